package api

import (
	"encoding/base64"
	"encoding/json"
	"html"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/memhook/memhook/store"
)

// pages is the dashboard with an operator who has signed in.
type pages struct {
	*bench
	http.Handler

	session string
	errors  atomic.Int32 // lines of that level in the service's log
}

func newPages(t *testing.T) *pages {
	t.Helper()
	p := &pages{bench: newBench(t)}
	p.cfg.Logger = slog.New(slog.NewTextHandler(p, &slog.HandlerOptions{Level: slog.LevelError}))
	p.Handler, p.session = p.dashboard()
	return p
}

// Write takes a line of the service's log.
func (p *pages) Write(line []byte) (int, error) {
	p.errors.Add(1)
	return p.t.Output().Write(line)
}

func (p *pages) get(target string) *httptest.ResponseRecorder {
	return ask(p, http.MethodGet, target, "", "", "Cookie", p.session)
}

// post sends a form with the given names and values, and returns the answer and what the next page says is wrong.
func (p *pages) post(target string, form ...string) (w *httptest.ResponseRecorder, problem string) {
	values := url.Values{}
	for i := 0; i+1 < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	w = ask(p, http.MethodPost, target, "", values.Encode(), "Cookie", p.session, "Content-Type", "application/x-www-form-urlencoded")
	for _, c := range w.Result().Cookies() {
		if c.Name == "memhook_problem" {
			text, err := base64.RawURLEncoding.DecodeString(c.Value)
			if err != nil {
				p.t.Errorf("%s: %v", target, err)
			}
			problem = string(text)
		}
	}
	return w, problem
}

// changes are the actions in the audit log, oldest first, with their targets.
func (p *pages) changes() (list []string) {
	p.t.Helper()
	entries, err := p.store.AuditLog(p.t.Context(), store.AuditFilter{Scope: store.Everything()}, store.Page{Limit: 100})
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range entries {
		changes, err := json.Marshal(e.Changes)
		if err != nil {
			p.t.Fatal(err)
		}
		list = append([]string{strings.Join([]string{e.Actor, e.Action, e.Target, string(changes)}, " ")}, list...)
	}
	return list
}

// Pages take whatever a browser or a script sends as text: bytes that are no UTF-8, NUL, and more than they store.
func TestPagesTakeAnyText(t *testing.T) {
	t.Parallel()
	p := newPages(t)
	for _, target := range []string{
		"/admin/tasks?task_id=%ff", "/admin/tasks?status=%ff", "/admin/tasks?task_id=a%00", "/admin/tasks?since=%ff&before=%ff", "/admin/tasks?app_id=%ff",
		"/admin/uploads?status=%ff", "/admin/deliveries?status=%ff&task=%ff", "/admin/endpoints?state=%ff", "/admin/search?q=abc%ff",
		"/admin/search?q=" + strings.Repeat("%E2%82%AC", 600), "/admin/audit?name=%ff", "/admin/audit?actor=%ff&action=%ff&object=%ff",
		"/admin/resends/new?action=resend&status=failed&event_type=%ff",
	} {
		if w := p.get(target); w.Code != http.StatusOK {
			t.Errorf("%.60s: %d", target, w.Code)
		}
	}
	for _, target := range []string{"/admin/resends", "/admin/apps/" + p.app.String() + "/keys"} {
		form := []string{"action", "resend", "status", "failed", "event_type", "\xff", "name", "\xff\x00"}
		if w, problem := p.post(target, form...); w.Code >= http.StatusBadRequest || problem != "" {
			t.Errorf("%s: %d %s", target, w.Code, problem)
		}
	}
	// 400 characters of 3 bytes each fit the form, and are stored as they are.
	text := strings.Repeat("€", 400)
	if w, problem := p.post("/admin/endpoints/"+p.endpoint, "description", text); w.Code != http.StatusSeeOther || problem != "" {
		t.Errorf("a description: %d %s", w.Code, problem)
	}
	if page := p.get("/admin/endpoints/" + p.endpoint).Body.String(); !strings.Contains(page, text) {
		t.Error("the description was cut")
	}
	// An id in braces is an id, whatever the braces are, and stands in the audit log.
	if w, problem := p.post("/admin/endpoints/%FF"+p.endpoint+"%00/test", ""); w.Code != http.StatusSeeOther || problem != "" {
		t.Errorf("an id in braces: %d %s", w.Code, problem)
	}
	w := ask(p, http.MethodPost, "/v1/endpoints/%FF"+p.endpoint+"%00/test", p.key, "")
	if w.Code != http.StatusAccepted {
		t.Errorf("an id in braces for the API: %d %s", w.Code, w.Body)
	}
	log := strings.Join(p.changes(), "\n")
	for _, want := range []string{"session test-endpoint /admin/endpoints/\uFFFD", "key test-endpoint /v1/endpoints/\uFFFD"} {
		if !strings.Contains(log, want+p.endpoint+"/test") {
			t.Errorf("the audit log has not %q:\n%s", want, log)
		}
	}
	if n := p.errors.Load(); n > 0 {
		t.Errorf("the log has %d errors", n)
	}
}

// A number in a form has the bounds of the same field of the API.
func TestNumbersInFormsHaveTheBoundsOfTheAPI(t *testing.T) {
	t.Parallel()
	p := newPages(t)
	account, endpoint, keys := "/admin/accounts/"+p.account.String(), "/admin/endpoints/"+p.endpoint, "/admin/apps/"+p.app.String()+"/keys"
	for _, c := range []struct {
		target, field, least, most, above string
	}{
		{account, "requests_per_second", "0.01", "1000", "1000.1"},
		{account, "uploads_per_minute", "0.01", "6000", "6000.1"},
		{endpoint, "rate_limit", "0.01", "10000", "10000.1"},
		{keys, "rate_limit", "0.01", "100000", "100000.1"},
	} {
		for _, wrong := range []string{"0", "-1", "1e-300", "0.009", "NaN", "Inf", "x", c.above} {
			if w, problem := p.post(c.target, c.field, wrong); w.Code < http.StatusBadRequest && !strings.Contains(problem, "a number from 0.01 to "+c.most) {
				t.Errorf("%s %s=%s: %d %q", c.target, c.field, wrong, w.Code, problem)
			}
		}
		for _, right := range []string{"", c.least, c.most} {
			if w, problem := p.post(c.target, c.field, right); w.Code >= http.StatusBadRequest || problem != "" {
				t.Errorf("%s %s=%s: %d %q", c.target, c.field, right, w.Code, problem)
			}
		}
	}
	for _, hours := range []string{"0", "-1", "1e-300", "NaN", "8760.1"} {
		if _, problem := p.post(endpoint+"/recover", "hours", hours); !strings.Contains(problem, "from 0.1 to 8760") {
			t.Errorf("hours=%s: %q", hours, problem)
		}
	}
}

// The public key of an endpoint stands on its page, since each has its own: the app has none that verifies anything.
func TestThePublicKeyStandsOnTheEndpointsPage(t *testing.T) {
	t.Parallel()
	p := newPages(t)
	page := "/admin/endpoints/" + p.endpoint
	if strings.Contains(p.get(page).Body.String(), "whpk_") {
		t.Error("an endpoint without v1a has a public key")
	}
	ask(p, http.MethodPatch, "/v1/endpoints/"+p.endpoint, p.key, `{"signatures":["v1","v1a"]}`, "Content-Type", "application/json")
	var want EndpointPublicKey
	got := ask(p, http.MethodGet, "/v1/endpoints/"+p.endpoint+"/public-key", p.key, "")
	if err := json.Unmarshal(got.Body.Bytes(), &want); err != nil || !strings.Contains(html.UnescapeString(p.get(page).Body.String()), "<code>"+want.PublicKey+"</code>") {
		t.Errorf("the page does not show %q: %v", want.PublicKey, err)
	}
	if strings.Contains(p.get("/admin/apps/"+p.app.String()).Body.String(), "whpk_") {
		t.Error("the app has a public key")
	}
}

// What River's pages change is in the audit log; what they only show or refuse is not.
func TestChangesOnTheJobsPagesAreAudited(t *testing.T) {
	t.Parallel()
	p := newPages(t)
	send := func(method, path, body string) {
		t.Helper()
		w := ask(p, method, "/admin/jobs/api/"+path, "", body, "Cookie", p.session, "Content-Type", "application/json")
		if w.Code >= http.StatusBadRequest != strings.Contains(path, "nothing") {
			t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
	}
	var job string
	if err := p.store.Pool().QueryRow(t.Context(), `
		update river_job set state = 'cancelled', finalized_at = now() where id = (select min(id) from river_job)
		returning id::text`).Scan(&job); err != nil {
		t.Fatal(err)
	}
	if _, err := p.store.Pool().Exec(t.Context(), `insert into river_queue (name, created_at, updated_at) values ('deliver', now(), now())`); err != nil {
		t.Fatal(err)
	}
	send(http.MethodGet, "queues", "")
	send(http.MethodPut, "queues/nothing/pause", "")
	send(http.MethodPut, "queues/deliver/pause", "")
	send(http.MethodPut, "queues/deliver/resume", "")
	send(http.MethodPost, "jobs/delete", `{"ids":["`+job+`"]}`)
	want := []string{
		"session pause-queue /admin/jobs/api/queues/deliver/pause null", "session resume-queue /admin/jobs/api/queues/deliver/resume null",
		`session delete-job /admin/jobs/api/jobs/delete {"ids":[null,["` + job + `"]]}`,
	}
	if got := p.changes(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the audit log has\n%s", strings.Join(got, "\n"))
	}
	if w := p.get("/admin/audit"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "pause-queue") {
		t.Errorf("the audit page: %d", w.Code)
	}
}

// The audit log has what was changed: neither the repetition of a request under its Idempotency-Key nor a count.
func TestOnlyChangesAreAudited(t *testing.T) {
	t.Parallel()
	p := newPages(t)
	rotate := "/v1/endpoints/" + p.endpoint + "/secret/rotate"
	first, again := "", ""
	for _, answer := range []*string{&first, &again} {
		w := ask(p, http.MethodPost, rotate, p.key, "", headerIdempotency, "once")
		if *answer = w.Body.String(); w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	if first != again {
		t.Errorf("%s, then %s", first, again)
	}
	for target, token := range map[string]string{"/v1/deliveries/resend": p.key, "/admin/v1/deliveries/resend": testToken} {
		if w := ask(p, http.MethodPost, target, token, `{"status":"pending","dry_run":true}`, "Content-Type", "application/json"); w.Code != http.StatusAccepted {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	if got := p.changes(); len(got) != 1 || !strings.HasPrefix(got[0], "key rotate-endpoint-secret "+rotate) {
		t.Errorf("the audit log has\n%s", strings.Join(got, "\n"))
	}
	ask(p, http.MethodPost, "/v1/deliveries/resend", p.key, `{"status":"pending"}`, "Content-Type", "application/json")
	if got := p.changes(); len(got) != 2 || !strings.Contains(got[1], `"matched":[null,`) {
		t.Errorf("after a resend the audit log has\n%s", strings.Join(got, "\n"))
	}
}
