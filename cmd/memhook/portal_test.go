package main

import (
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
)

type portalJSON struct {
	URL       string
	ExpiresAt time.Time `json:"expires_at"`
}

// portal makes a link to an endpoint's portal with an API key.
func (in *instance) portal(key, endpoint string) (link portalJSON) {
	in.t.Helper()
	if status := in.callWith(key, http.MethodPost, "/v1/endpoints/"+endpoint+"/portal", nil, &link); status != http.StatusOK {
		in.t.Fatalf("make a portal: %d", status)
	}
	return link
}

// customer is somebody who has opened the link.
func (in *instance) customer(link portalJSON) *visitor {
	in.t.Helper()
	v := in.visitor()
	if status, _ := v.get(strings.TrimPrefix(link.URL, in.url)); status != http.StatusSeeOther {
		in.t.Fatalf("open the link: %d", status)
	}
	return v
}

// form reads the field that proves that a form was sent from a portal's page.
func (v *visitor) form(page string) url.Values {
	v.t.Helper()
	_, body := v.get(page)
	m := regexp.MustCompile(`name="form" value="([^"]+)"`).FindStringSubmatch(body)
	if m == nil {
		v.t.Fatalf("%s has no form:\n%s", page, body)
	}
	return url.Values{"form": {m[1]}}
}

func with(form url.Values, pairs ...string) url.Values {
	out := url.Values{"form": form["form"]}
	for i := 0; i+1 < len(pairs); i += 2 {
		out.Set(pairs[i], pairs[i+1])
	}
	return out
}

// portalBench is an instance with a failed delivery of each of three endpoints: two of one app and one of another.
type portalBench struct {
	*instance

	mine, sibling, foreign         string // endpoints
	myDelivery, siblings, foreigns string // deliveries
	otherKey                       string // of the other app
	otherApp, appID                string
}

func newPortalBench(t *testing.T, args ...string) *portalBench {
	t.Helper()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	delete(b.env, "MEMHOOK_PUBLIC_URL")
	p := &portalBench{instance: b.start("", args...)}
	p.otherApp, p.otherKey, _ = p.newApp("other")
	b.scan(&p.appID, `select id::text from apps where name = 'default'`)
	// The deliveries are made in the database, so that a role that sends nothing has them too.
	failed := func(key, task, path string) (endpoint, delivery string) {
		var ep, registered struct{ ID string }
		if status := p.callWith(key, http.MethodPost, "/v1/endpoints", map[string]any{"url": b.receiver.URL + path}, &ep); status != http.StatusCreated {
			t.Fatalf("create an endpoint: %d", status)
		}
		body := map[string]any{"task_id": task, "callback_url": b.receiver.URL + path, "metadata": map[string]string{"private": "secret-of-" + task}}
		if status := p.callWith(key, http.MethodPost, "/v1/tasks", body, &registered); status != http.StatusCreated {
			t.Fatalf("register: %d", status)
		}
		b.scan(&delivery, `
			with made as (
				insert into events (id, app_id, task, type, payload, created_at)
				select (lpad(to_hex((extract(epoch from now()) * 1000)::bigint), 12, '0') || '7000' || right(md5(task_id), 16))::uuid, app_id, id, 'task.ready',
					'{"type":"task.ready","data":{"task_id":"' || task_id || '"}}', now()
				from tasks where id = $1::uuid
				returning *
			), d as (
				insert into deliveries (id, app_id, event_id, event_type, task, endpoint_id, status, failed, attempt_count, created_at)
				select id, app_id, id, type, task, $2::uuid, 'failed', true, 1, now() from made
				returning id
			)
			insert into attempts (delivery_id, number, at, duration_ms, outcome, response_status, response_body)
			select id, 1, now(), 12, 'failed', 500, 'answer to ' || $3::text from d
			returning delivery_id::text`, registered.ID, ep.ID, task)
		return ep.ID, delivery
	}
	p.mine, p.myDelivery = failed(testAPIKey, "task-of-mine", "/mine")
	p.sibling, p.siblings = failed(testAPIKey, "task-of-sibling", "/sibling")
	p.foreign, p.foreigns = failed(p.otherKey, "task-of-foreign", "/foreign")
	return p
}

// notMine is what no page of the portal shows unasked.
var notMine = regexp.MustCompile(`of-sibling|/sibling|of-foreign|/foreign|secret-of|whsec_[A-Za-z0-9+/]{8}`)

// A portal shows one endpoint's things and nothing else, whatever is tried.
func TestAPortalOpensOneEndpointAlone(t *testing.T) {
	t.Parallel()
	p := newPortalBench(t)
	link := p.portal(testAPIKey, p.mine)
	base := "/portal/" + p.mine
	if want := p.url + base + "?token="; !strings.HasPrefix(link.URL, want) {
		t.Fatalf("the link is %s", link.URL)
	}
	if left := time.Until(link.ExpiresAt); left < 59*time.Minute || left > time.Hour {
		t.Errorf("it expires in %s", left)
	}
	v := p.customer(link)
	form := v.form(base + "/secret")

	// What the customer is offered.
	for path, wants := range map[string][]string{
		base + "/":                           {"task-of-mine", "failed", "500", p.receiver.URL + "/mine", "This link works until"},
		base + "/?status=failed":             {"task-of-mine"},
		base + "/?q=task-of-mine":            {"task-of-mine"},
		base + "/?q=" + p.myDelivery:         {"task-of-mine"},
		base + "/deliveries/" + p.myDelivery: {"Attempt 1 failed", "answer to task-of-mine", "webhook-id"},
		base + "/secret":                     {"Reveal the secret"},
	} {
		status, body := v.get(path)
		if status != http.StatusOK {
			t.Errorf("%s: %d", path, status)
		}
		for _, want := range wants {
			if !strings.Contains(body, want) {
				t.Errorf("%s does not show %q:\n%s", path, want, body)
			}
		}
		if never := notMine.FindString(body); never != "" {
			t.Errorf("%s shows %q:\n%s", path, never, body)
		}
	}

	// What it is not. Nothing of it may change anything.
	before := p.state()
	token := strings.SplitN(link.URL, "?token=", 2)[1]
	siblings := p.portal(testAPIKey, p.sibling)
	siblingForm := p.customer(siblings).form("/portal/" + p.sibling + "/secret")
	tamper := func(i int) string {
		c := byte('A')
		if token[i] == c {
			c = 'B'
		}
		return token[:i] + string(c) + token[i+1:]
	}
	bearer := []string{"Authorization", "Bearer " + token}
	for _, c := range []struct {
		name, method, path string
		form               url.Values // of a POST
		header             []string
		status             int
	}{
		{"a sibling's delivery", "GET", base + "/deliveries/" + p.siblings, nil, nil, 404},
		{"another app's delivery", "GET", base + "/deliveries/" + p.foreigns, nil, nil, 404},
		{"no delivery", "GET", base + "/deliveries/nothing", nil, nil, 404},
		{"resend a sibling's", "POST", base + "/deliveries/" + p.siblings + "/resend", form, nil, 404},
		{"resend another app's", "POST", base + "/deliveries/" + p.foreigns + "/resend", form, nil, 404},
		{"a sibling's pages", "GET", "/portal/" + p.sibling + "/", nil, nil, 401},
		{"a sibling's secret", "POST", "/portal/" + p.sibling + "/secret", form, nil, 401},
		{"another app's secret", "POST", "/portal/" + p.foreign + "/secret", form, nil, 401},
		{"a sibling's secret by GET", "GET", "/portal/" + p.sibling + "/secret", nil, nil, 401},
		{"another app's with our token", "GET", "/portal/" + p.foreign + "?token=" + token, nil, nil, 401},
		{"a sibling's with our token", "GET", "/portal/" + p.sibling + "?token=" + token, nil, nil, 401},
		{"up and over", "GET", base + "/../" + p.sibling + "/secret", nil, nil, 404},
		{"up and over, encoded", "GET", base + "/%2e%2e/" + p.sibling + "/secret", nil, nil, 404},
		{"a slash encoded", "GET", base + "%2f..%2f" + p.sibling + "/secret", nil, nil, 401},
		{"two slashes", "GET", "/portal//" + p.mine + "/secret", nil, nil, 401},
		{"two in one", "GET", base + "/" + p.sibling + "/", nil, nil, 404},
		{"upper case", "GET", "/portal/" + strings.ToUpper(p.mine) + "/secret", nil, nil, 401},
		{"another form of the id", "GET", "/portal/urn:uuid:" + p.mine + "?token=" + token, nil, nil, 401},
		{"the dashboard", "GET", "/admin/tasks", nil, nil, 302},
		{"the dashboard, with the cookie", "GET", "/admin/", nil, []string{"Cookie", "memhook_session=" + token}, 302},
		{"the dashboard's buttons", "POST", "/admin/deliveries/pause", form, []string{"Cookie", "memhook_session=" + token}, 401},
		{"the API", "GET", "/v1/endpoints", nil, bearer, 401},
		{"the API, with the cookie", "GET", "/v1/deliveries", nil, nil, 401},
		{"the admin API", "GET", "/admin/v1/stats", nil, bearer, 401},
		{"a first character", "GET", base + "?token=" + tamper(0), nil, nil, 401},
		{"a character of the middle", "GET", base + "?token=" + tamper(len(token)/2), nil, nil, 401},
		{"a last character", "GET", base + "?token=" + tamper(len(token)-1), nil, nil, 401},
		{"half a token", "GET", base + "?token=" + token[:len(token)/2], nil, nil, 401},
		{"a word for a token", "GET", base + "?token=admin", nil, nil, 401},
		{"no cookie", "GET", base + "/", nil, []string{"Cookie", "none=none"}, 401},
		{"a form without its field", "POST", base + "/deliveries/" + p.myDelivery + "/resend", url.Values{}, nil, 403},
		{"reveal without the field", "POST", base + "/secret", url.Values{}, nil, 403},
		{"rotate without the field", "POST", base + "/secret/rotate", url.Values{"overlap": {"0s"}}, nil, 403},
		{"recover with another's field", "POST", base + "/recover", with(siblingForm, "hours", "24"), nil, 403},
		{"rotate with the token for the field", "POST", base + "/secret/rotate", url.Values{"form": {token}, "overlap": {"0s"}}, nil, 403},
		{"rotate with another overlap", "POST", base + "/secret/rotate", with(form, "overlap", "9000h"), nil, 422},
		{"recover for ever", "POST", base + "/recover", with(form, "hours", "1e9"), nil, 422},
		{"resend by GET", "GET", base + "/deliveries/" + p.myDelivery + "/resend", nil, nil, 405},
		{"rotate by GET", "GET", base + "/secret/rotate", nil, nil, 405},
		{"recover by GET", "GET", base + "/recover?hours=24&form=" + form.Get("form"), nil, nil, 405},
		{"rotate by HEAD", "HEAD", base + "/secret/rotate", nil, nil, 405},
		{"options", "OPTIONS", base + "/secret", nil, nil, 405},
		{"delete", "DELETE", base + "/", nil, nil, 405},
		{"put", "PUT", base + "/secret", nil, nil, 405},
		{"endpoint's other things", "POST", base + "/disable", form, nil, 404},
		{"a test", "POST", base + "/test", form, nil, 404},
	} {
		// The cookie goes with all of them, also where a browser would keep it back.
		status, body := p.try(c.method, c.path, c.form, append([]string{"Cookie", "memhook_portal=" + token}, c.header...)...)
		if status != c.status {
			t.Errorf("%s: %s %s: %d, want %d", c.name, c.method, c.path, status, c.status)
		}
		if never := notMine.FindString(body); never != "" {
			t.Errorf("%s: it shows %q:\n%s", c.name, never, body)
		}
	}
	for _, q := range []string{"task-of-sibling", "task-of-foreign", p.siblings, p.foreigns, "secret-of-task-of-sibling", "%' or true --"} {
		if _, body := v.get(base + "/?q=" + url.QueryEscape(q)); !strings.Contains(body, "No matching deliveries") {
			t.Errorf("a search for %q finds something:\n%s", q, body)
		}
	}
	if after := p.state(); after != before {
		t.Errorf("something was changed:\n%s\n%s", before, after)
	}
	if strings.Contains(p.log.String(), token) {
		t.Error("the token is in the log")
	}
}

// state is what the portal's buttons can change.
func (b *bench) state() (all string) {
	b.t.Helper()
	b.scan(&all, `
		select (select string_agg(id::text || status || generation, ' ' order by id) from deliveries) || ' ' ||
			(select string_agg(encode(sha256(secret), 'hex'), ' ' order by id) from endpoints) || ' ' || (select count(*) from audit where actor = 'portal')`)
	return all
}

// try sends any request, to the path as it is written, and returns the answer.
func (in *instance) try(method, path string, form url.Values, header ...string) (status int, body string) {
	in.t.Helper()
	req, err := http.NewRequest(method, in.url, strings.NewReader(form.Encode()))
	if err != nil {
		in.t.Fatal(err)
	}
	at, query, _ := strings.Cut(path, "?")
	req.URL.Opaque, req.URL.RawQuery = "//"+req.URL.Host+at, query
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		in.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw)
}

// Who loads an endpoint's pages without end is refused for a while, at no cost of the database and without a line in the log. The pages
// of another endpoint are not refused, nor the same pages by another link.
func TestAPortalsRequestsAreBounded(t *testing.T) {
	t.Parallel()
	p := newPortalBench(t, "--role", "api")
	first := p.portal(testAPIKey, p.mine)
	second := first
	until(t, 20*time.Second, "there is a link of another second", func() bool {
		second = p.portal(testAPIKey, p.mine)
		return !second.ExpiresAt.Equal(first.ExpiresAt)
	})
	v, colleague, other := p.customer(first), p.customer(second), p.customer(p.portal(testAPIKey, p.sibling))
	var refused atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 250 {
				if refused.Load() > 0 {
					return
				}
				switch status, body := v.get("/portal/" + p.mine + "/secret"); {
				case status == http.StatusTooManyRequests && strings.Contains(body, "Wait a second"):
					refused.Add(1)
				case status != http.StatusOK:
					t.Errorf("%d", status)
				}
			}
		})
	}
	wg.Wait()
	if refused.Load() == 0 {
		t.Error("2,000 requests at once were all answered")
	}
	refused.Store(0)
	p.locked("memhook.endpoints", func() { // nobody is answered who asks the database
		for range 300 {
			wg.Go(func() {
				if status, _ := v.get("/portal/" + p.mine + "/secret"); status == http.StatusTooManyRequests {
					refused.Add(1)
				}
			})
		}
		wg.Wait()
	})
	if refused.Load() == 0 {
		t.Error("who asks too often waits for the database")
	}
	if strings.Contains(p.log.String(), "too-many-requests") {
		t.Error("refusals fill the log")
	}
	if status, _ := colleague.get("/portal/" + p.mine + "/secret"); status != http.StatusOK {
		t.Errorf("the same pages by another link: %d", status)
	}
	if status, _ := other.get("/portal/" + p.sibling + "/secret"); status != http.StatusOK {
		t.Errorf("another endpoint's pages: %d", status)
	}
	until(t, 20*time.Second, "the pages open again", func() bool {
		status, _ := v.get("/portal/" + p.mine + "/secret")
		return status == http.StatusOK
	})
}
