package main

import (
	"html"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

// The customer resends, recovers, reads the secret and rotates it, and the audit log says so.
func TestAPortalActs(t *testing.T) {
	t.Parallel()
	p := newPortalBench(t)
	v := p.customer(p.portal(testAPIKey, p.mine))
	base := "/portal/" + p.mine
	form := v.form(base + "/secret")

	if status := v.post(base+"/deliveries/"+p.myDelivery+"/resend", form); status != http.StatusSeeOther {
		t.Fatalf("resend: %d", status)
	}
	until(t, 20*time.Second, "it is delivered", func() bool {
		_, page := v.get(base + "/deliveries/" + p.myDelivery)
		return strings.Contains(page, "Attempt 2 delivered")
	})
	p.exec(`update deliveries set status = 'failed', failed = true where id = $1`, p.myDelivery)
	if status := v.post(base+"/recover", with(form, "hours", "24")); status != http.StatusSeeOther {
		t.Fatalf("recover: %d", status)
	}
	p.receiver.await(t, 2, 10*time.Second)
	if n := p.query(`select count(*) from deliveries where endpoint_id <> $1 and status = 'failed'`, p.mine); n != 2 {
		t.Errorf("%d deliveries of others have still failed, want 2", n)
	}

	secret := func() string {
		var out struct{ Secret string }
		p.call(http.MethodGet, "/v1/endpoints/"+p.mine+"/secret", nil, &out)
		return out.Secret
	}
	before := secret()
	if _, page := v.try(http.MethodPost, base+"/secret", form, v.cookie(base)...); !strings.Contains(html.UnescapeString(page), before) {
		t.Errorf("the secret is not revealed:\n%s", page)
	}
	if status := v.post(base+"/secret/rotate", with(form, "overlap", "24h")); status != http.StatusSeeOther {
		t.Fatalf("rotate: %d", status)
	}
	if after := secret(); after == before {
		t.Error("the secret was not rotated")
	}
	if _, page := v.get(base + "/secret"); !strings.Contains(page, "the old secret signs too until") {
		t.Errorf("the overlap is not shown:\n%s", page)
	}

	var log struct {
		Data []struct{ Actor, Name, Action, Target, Client string }
	}
	p.admin(http.MethodGet, "/admin/v1/audit?app_id="+p.appID, nil, &log)
	want := []string{"rotate-endpoint", "reveal-secret", "recover-endpoint", "resend-delivery"}
	for i, action := range want {
		if e := log.Data[i]; e.Actor != "portal" || e.Name != p.mine || e.Action != action || !strings.HasPrefix(e.Target, base) || e.Client != "127.0.0.1" {
			t.Errorf("entry %d is %+v, want %s", i, e, action)
		}
	}
	operator := p.visitor()
	operator.signIn()
	if _, page := operator.get("/admin/audit"); !strings.Contains(page, "portal of endpoint") {
		t.Error("the audit page does not show who it was")
	}
}

// cookie is the header that a browser sends below a path.
func (v *visitor) cookie(path string) []string {
	u, err := url.Parse(v.url + path + "/")
	if err != nil {
		v.t.Fatal(err)
	}
	var all []string
	for _, c := range v.http.Jar.Cookies(u) {
		all = append(all, c.Name+"="+c.Value)
	}
	return []string{"Cookie", strings.Join(all, "; ")}
}

// An entry of the audit log and the change that it records are one transaction.
func TestAChangeThatCannotBeAuditedIsNotMade(t *testing.T) {
	t.Parallel()
	p := newPortalBench(t)
	v := p.customer(p.portal(testAPIKey, p.mine))
	base := "/portal/" + p.mine
	form := v.form(base + "/secret")
	p.exec(`alter table audit add constraint nothing_more check (false) not valid`)
	before := p.state()
	for name, status := range map[string]int{
		"resend":          v.post(base+"/deliveries/"+p.myDelivery+"/resend", form),
		"recover":         v.post(base+"/recover", with(form, "hours", "24")),
		"reveal":          v.post(base+"/secret", form),
		"rotate":          v.post(base+"/secret/rotate", with(form, "overlap", "24h")),
		"rotate, the app": p.call(http.MethodPost, "/v1/endpoints/"+p.mine+"/secret/rotate", nil, nil),
		"delete, the app": p.call(http.MethodDelete, "/v1/endpoints/"+p.sibling, nil, nil),
	} {
		if status != http.StatusInternalServerError {
			t.Errorf("%s: %d, want 500", name, status)
		}
	}
	if after := p.state(); after != before {
		t.Errorf("something was changed:\n%s\n%s", before, after)
	}
	p.want(http.StatusOK, testAPIKey, http.MethodGet, "/v1/endpoints/"+p.sibling, nil, nil)
}

// A portal ends with its time, its API key, its endpoint and its app, on every instance.
func TestAPortalEnds(t *testing.T) {
	t.Parallel()
	p := newPortalBench(t)
	delete(p.env, "MEMHOOK_ADMIN_TOKEN")
	other := p.start("", "--role", "api")
	newKey := func(app string) (key, id string) {
		var made struct{ ID, Key string }
		p.want(http.StatusCreated, testAdminToken, http.MethodPost, "/admin/v1/apps/"+app+"/keys", nil, &made)
		return made.Key, made.ID
	}
	closes := func(name, endpoint string, v *visitor, link portalJSON, end func()) {
		t.Helper()
		there := other.visitor()
		u, _ := url.Parse(other.url + "/portal/" + endpoint + "/")
		there.http.Jar.SetCookies(u, v.http.Jar.Cookies(u.ResolveReference(&url.URL{Scheme: "http", Host: strings.TrimPrefix(p.url, "http://"), Path: u.Path})))
		path := "/portal/" + endpoint + "/secret"
		for on, visitor := range map[string]*visitor{"here": v, "there": there} {
			if status, _ := visitor.get(path); status != http.StatusOK {
				t.Fatalf("%s: before, %s: %d", name, on, status)
			}
		}
		end()
		at := time.Now()
		for on, visitor := range map[string]*visitor{"here": v, "there": there} {
			until(t, time.Second, name+": the portal is closed "+on, func() bool { status, _ := visitor.get(path); return status == http.StatusUnauthorized })
			if status := visitor.post("/portal/"+endpoint+"/secret", url.Values{}); status != http.StatusUnauthorized {
				t.Errorf("%s: reveal: %d", name, status)
			}
		}
		t.Logf("%s: closed %s after", name, time.Since(at))
		if status, page := p.visitor().get(strings.TrimPrefix(link.URL, p.url)); status != http.StatusUnauthorized || !strings.Contains(page, "does not work any more") {
			t.Errorf("%s: the link: %d", name, status)
		}
	}

	// Time is the database's. A link of two seconds is made as the API makes longer ones.
	st := storetest.On(t, storetest.Pool(t, p.database), store.Config{})
	who, err := st.Authenticate(t.Context(), testAPIKey)
	if err != nil {
		t.Fatal(err)
	}
	token, expires, err := st.CreatePortal(t.Context(), who, uuid.MustParse(p.mine), 3*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	short := portalJSON{URL: p.url + "/portal/" + p.mine + "?token=" + token, ExpiresAt: expires}
	closes("its time is over", p.mine, p.customer(short), short, func() { time.Sleep(time.Until(expires)) })

	key, id := newKey(p.appID)
	link := p.portal(key, p.mine)
	closes("its key is revoked", p.mine, p.customer(link), link, func() {
		p.want(http.StatusNoContent, testAdminToken, http.MethodDelete, "/admin/v1/apps/"+p.appID+"/keys/"+id, nil, nil)
	})
	link = p.portal(testAPIKey, p.sibling)
	closes("its endpoint is deleted", p.sibling, p.customer(link), link, func() {
		p.want(http.StatusNoContent, testAPIKey, http.MethodDelete, "/v1/endpoints/"+p.sibling, nil, nil)
	})
	p.want(http.StatusNotFound, testAPIKey, http.MethodPost, "/v1/endpoints/"+p.sibling+"/portal", nil, nil)
	link = p.portal(p.otherKey, p.foreign)
	closes("its app is deleted", p.foreign, p.customer(link), link, func() {
		p.want(http.StatusNoContent, testAdminToken, http.MethodDelete, "/admin/v1/apps/"+p.otherApp, nil, nil)
	})
	link = p.portal(testAPIKey, p.mine)
	closes("the environment has another key", p.mine, p.customer(link), link, func() {
		p.env["MEMHOOK_API_KEY"] = "another-api-key-0123456789"
		p.start("")
	})
}

// A portal outlives a change of the encryption key while the key that sealed its token is in the keyring.
func TestAPortalOutlivesAKeyChange(t *testing.T) {
	t.Parallel()
	p := newPortalBench(t)
	path := strings.TrimPrefix(p.portal(testAPIKey, p.mine).URL, p.url)
	const newKey = "bm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm4="
	p.env["MEMHOOK_ENCRYPTION_KEY"] = newKey + "," + storetest.EncryptionKey
	if status, _ := p.start("").visitor().get(path); status != http.StatusSeeOther {
		t.Errorf("with both keys: %d", status)
	}
	rotate := exec.Command(binary, "rotate-keys")
	rotate.Env = []string{"DATABASE_URL=" + p.database, "MEMHOOK_ENCRYPTION_KEY=" + p.env["MEMHOOK_ENCRYPTION_KEY"]}
	if out, err := rotate.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p.env["MEMHOOK_ENCRYPTION_KEY"] = newKey
	if status, _ := p.start("").visitor().get(path); status != http.StatusUnauthorized {
		t.Errorf("with the new key alone: %d", status)
	}
}

// The link is where customers reach memhook, lasts as long as asked within bounds, and its cookie is bound to these pages.
func TestPortalLinks(t *testing.T) {
	t.Parallel()
	p := newPortalBench(t)
	path := "/v1/endpoints/" + p.mine + "/portal"
	for body, want := range map[string]struct {
		status int
		lasts  time.Duration
	}{
		`{}`: {200, time.Hour}, `{"expires_in":"1m"}`: {200, time.Minute}, `{"expires_in":"168h"}`: {200, 168 * time.Hour}, `{"expires_in":"90m"}`: {200, 90 * time.Minute},
		`{"expires_in":"59s"}`: {422, 0}, `{"expires_in":"168h1s"}`: {422, 0}, `{"expires_in":"-1h"}`: {422, 0}, `{"expires_in":"0"}`: {422, 0}, `{"expires_in":"a day"}`: {422, 0},
		`{"expires_in":3600}`: {422, 0}, `{"endpoint":"x"}`: {422, 0},
	} {
		var out struct {
			portalJSON
			Errors []struct{ Field string }
		}
		status := p.call(http.MethodPost, path, body, &out)
		if lasts := time.Until(out.ExpiresAt); status != want.status || status == 200 && (lasts > want.lasts || lasts < want.lasts-10*time.Second) {
			t.Errorf("%s: %d, lasts %s", body, status, lasts)
		}
		if status == 422 && len(out.Errors) != 1 {
			t.Errorf("%s names no field", body)
		}
	}
	for name, path := range map[string]string{"another app's": "/v1/endpoints/" + p.foreign + "/portal", "none": "/v1/endpoints/" + uuid.NewString() + "/portal", "no id": "/v1/endpoints/x/portal"} {
		if status := p.call(http.MethodPost, path, nil, nil); status != http.StatusNotFound {
			t.Errorf("%s: %d", name, status)
		}
	}
	if status := p.callWith("", http.MethodPost, path, nil, nil); status != http.StatusUnauthorized {
		t.Errorf("without a key: %d", status)
	}

	get := func(in *instance, link string, header ...string) *http.Response {
		req, err := http.NewRequest(http.MethodGet, in.url+link[strings.Index(link, "/portal/"):], nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp
	}
	opened := get(p.instance, p.portal(testAPIKey, p.mine).URL)
	c := opened.Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/portal/"+p.mine || c.Secure || c.MaxAge < 3500 || c.MaxAge > 3600 || c.Domain != "" {
		t.Errorf("cookie %+v", c)
	}
	if to := opened.Header.Get("Location"); to != "/portal/"+p.mine+"/" {
		t.Errorf("the link leads to %s", to)
	}
	for name, want := range map[string]string{
		"Referrer-Policy": "^no-referrer$", "X-Robots-Tag": "noindex", "Cache-Control": "^no-store$", "Content-Security-Policy": "default-src 'none'.*frame-ancestors 'none'", "X-Content-Type-Options": "nosniff",
	} {
		if got := opened.Header.Get(name); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s: %q", name, got)
		}
	}

	p.env["MEMHOOK_TRUSTED_PROXIES"] = "127.0.0.0/8"
	behind := p.start("")
	var link portalJSON
	req := func(in *instance) { in.call(http.MethodPost, path, nil, &link) }
	req(behind)
	if !strings.HasPrefix(link.URL, behind.url+"/portal/") {
		t.Errorf("the link of another instance is %s", link.URL)
	}
	if c := get(behind, link.URL, "X-Forwarded-Proto", "https").Cookies()[0]; !c.Secure {
		t.Error("the cookie is not Secure behind TLS")
	}
	if c := get(p.instance, link.URL, "X-Forwarded-Proto", "https").Cookies()[0]; c.Secure {
		t.Error("anybody is believed to have come over TLS")
	}
	p.env["MEMHOOK_PUBLIC_URL"] = "https://hooks.example"
	req(p.start(""))
	if !strings.HasPrefix(link.URL, "https://hooks.example/portal/"+p.mine+"?token=") {
		t.Errorf("the link with a public URL is %s", link.URL)
	}
}
