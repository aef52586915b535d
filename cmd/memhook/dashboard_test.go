package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/cmd/memhook-dev/proc"
	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store"
)

// visitor is somebody at the dashboard, without a browser.
type visitor struct {
	*instance
	http *http.Client
}

func (in *instance) visitor() *visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		in.t.Fatal(err)
	}
	return &visitor{in, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (v *visitor) get(path string) (status int, body string) {
	v.t.Helper()
	resp, err := v.http.Get(v.url + path)
	if err != nil {
		v.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw)
}

func (v *visitor) post(path string, form url.Values, header ...string) int {
	v.t.Helper()
	req, err := http.NewRequest(http.MethodPost, v.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := v.http.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func (v *visitor) signIn() {
	v.t.Helper()
	if status := v.post("/admin/sign-in", url.Values{"token": {testAdminToken}}); status != http.StatusSeeOther {
		v.t.Fatalf("sign in: %d", status)
	}
}

// refused reads how often the dashboard has refused for a reason.
func (in *instance) refused(reason string) int {
	in.t.Helper()
	_, metrics := in.visitor().get("/metrics")
	m := regexp.MustCompile(`memhook_admin_refused_total\{reason="` + reason + `"\} (\d+)`).FindStringSubmatch(metrics)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

func TestTheDashboardRefuses(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in := b.start("")
	pause := "/admin/deliveries/pause"

	nobody := in.visitor()
	if status := nobody.post(pause, nil); status != http.StatusUnauthorized {
		t.Errorf("no session: %d", status)
	}
	for _, path := range []string{"/admin/", "/admin/tasks", "/admin/jobs/", "/admin/nothing"} {
		if status, _ := nobody.get(path); status != http.StatusFound {
			t.Errorf("%s without a session: %d", path, status)
		}
	}
	if status, _ := nobody.get("/admin/jobs/api/queues"); status != http.StatusUnauthorized {
		t.Errorf("River's API without a session: %d", status)
	}

	operator := in.visitor()
	operator.signIn()
	u, _ := url.Parse(in.url + "/admin/")
	session := operator.http.Jar.Cookies(u)[0].Value
	resp, err := in.visitor().http.PostForm(in.url+"/admin/sign-in", url.Values{"token": {testAdminToken}})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	with := func(cookie string) *visitor {
		v := in.visitor()
		v.http.Jar.SetCookies(u, []*http.Cookie{{Name: "memhook_session", Value: cookie, Path: "/admin"}})
		return v
	}
	parts := strings.Split(session, ".")
	cases := []struct {
		name, reason string
		status       int
		v            *visitor
		header       []string
	}{
		{"a session with another expiry", "forged-session", 401, with("1." + parts[1] + "." + parts[2]), nil},
		{"a forged session", "forged-session", 401, with(parts[0] + "." + parts[1] + ".AAAA"), nil},
		{"another site's page", "cross-site", 403, operator, []string{"Sec-Fetch-Site", "cross-site"}},
		{"another host of the same site", "cross-site", 403, operator, []string{"Sec-Fetch-Site", "same-site"}},
		{"another site's page that names our origin", "cross-site", 403, operator, []string{"Sec-Fetch-Site", "cross-site", "Origin", in.url}},
		{"another origin", "cross-site", 403, operator, []string{"Origin", "https://evil.example"}},
		{"another port", "cross-site", 403, operator, []string{"Origin", "http://127.0.0.1:1"}},
		{"a page without an origin", "cross-site", 403, operator, []string{"Origin", "null"}},
	}
	for _, c := range cases {
		before := in.refused(c.reason)
		if status := c.v.post(pause, nil, c.header...); status != c.status {
			t.Errorf("%s: %d, want %d", c.name, status, c.status)
		}
		if after := in.refused(c.reason); after != before+1 {
			t.Errorf("%s was counted %d times as %s", c.name, after-before, c.reason)
		}
		if !strings.Contains(in.log.String(), `"reason":"`+c.reason+`"`) {
			t.Errorf("%s is not in the log", c.name)
		}
	}
	if n := b.query(`select count(*) from river_queue where paused_at is not null`); n != 0 {
		t.Error("something was paused all the same")
	}
	if status := operator.post(pause, nil, "Origin", in.url, "Sec-Fetch-Site", "same-origin"); status != http.StatusSeeOther {
		t.Errorf("the operator's own form: %d", status)
	}
	if n := b.query(`select count(*) from river_queue where paused_at is not null`); n != len(store.Pausable["deliveries"]) {
		t.Error("the operator's own form did nothing")
	}
	cookie := resp.Cookies()[0]
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || cookie.Path != "/admin" || cookie.Secure {
		t.Errorf("cookie %+v", cookie)
	}

	// A thousand wrong tokens.
	guesser := in.visitor()
	statuses := make(map[int]int)
	for i := range 1000 {
		statuses[guesser.post("/admin/sign-in", url.Values{"token": {fmt.Sprintf("guess-%d-0123456789", i)}})]++
	}
	if statuses[http.StatusUnauthorized] > 12 || statuses[http.StatusUnauthorized]+statuses[http.StatusTooManyRequests] != 1000 {
		t.Errorf("a thousand guesses: %v", statuses)
	}
	if n := in.refused("wrong-token") + in.refused("too-many-attempts"); n != 1000 {
		t.Errorf("%d of a thousand guesses were counted", n)
	}
	// The right token is taken all the same, from the client that has sent all the wrong ones.
	if status := guesser.post("/admin/sign-in", url.Values{"token": {testAdminToken}}); status != http.StatusSeeOther {
		t.Errorf("the right token after a thousand wrong ones: %d", status)
	}
	for i := range 1000 {
		if status := in.callWith(fmt.Sprintf("guess-%d-0123456789", i), http.MethodGet, "/admin/v1/stats", nil, nil); status != http.StatusUnauthorized {
			t.Fatalf("a wrong bearer: %d", status)
		}
	}
	if n := in.refused("wrong-bearer"); n != 1000 {
		t.Errorf("%d of a thousand wrong bearers were counted", n)
	}
	if strings.Contains(in.log.String(), "guess-") {
		t.Error("a guess stands in the log")
	}
}

// A page tells once what a button did, and a link cannot make it tell anything.
func TestAButtonAloneLeavesAMessage(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in := b.start("")
	operator := in.visitor()
	operator.signIn()
	_, page := operator.get("/admin/?done=Your+token+has+leaked&problem=Send+it+to+me")
	if strings.Contains(page, ">Your token") || strings.Contains(page, ">Send it") {
		t.Error("a link's text stands on the page")
	}
	for _, c := range []struct {
		path, want string
		form       url.Values
	}{
		{"/admin/polling/pause", ">polling paused everywhere<", nil},
		{"/admin/accounts", ">An API key has only printable ASCII characters", url.Values{"name": {"x"}, "api_key": {"a b"}}},
	} {
		if status := operator.post(c.path, c.form); status != http.StatusSeeOther {
			t.Errorf("%s: %d", c.path, status)
		}
		_, first := operator.get("/admin/")
		_, second := operator.get("/admin/")
		if !strings.Contains(first, c.want) || strings.Contains(second, c.want) {
			t.Errorf("%s: %q is not on the first page alone", c.path, c.want)
		}
	}
}

// Without an admin token there is no dashboard and no admin API.
func TestWithoutAnAdminTokenThereIsNoDashboard(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	delete(b.env, "MEMHOOK_ADMIN_TOKEN")
	in := b.start("")
	for _, path := range []string{"/admin", "/admin/", "/admin/tasks", "/admin/jobs/", "/admin/v1/stats"} {
		var p problemJSON
		if status := in.callWith("anything at all", http.MethodGet, path, nil, &p); status != http.StatusServiceUnavailable || p.Code != "admin-disabled" {
			t.Errorf("%s: %d %+v", path, status, p)
		}
	}
}

// seedService fills the database as years of work do.
func (b *bench) seedService(accounts, tasks, attemptsEach int) {
	b.t.Helper()
	b.exec(`
		insert into accounts (id, name, api_key, requests_per_second)
		select gen_random_uuid(), 'seeded-' || i, (select api_key from accounts limit 1), 1 from generate_series(1, $1::int) i`, accounts)
	b.exec(`
		insert into apps (id, name, account_id, hint_token, signing_key, public_key)
		select gen_random_uuid(), name, id, md5(name), (select signing_key from apps limit 1), (select public_key from apps limit 1) from accounts where name like 'seeded-%'`)
	b.exec(`
		insert into endpoints (id, app_id, url, secret, enabled, breaker)
		select gen_random_uuid(), id, 'https://customer.example/' || name, (select secret from endpoints limit 1), row_number() over () % 50 <> 0, case row_number() over () % 40 when 0 then 'open' else 'closed' end
		from apps where name like 'seeded-%'`)
	b.exec(fmt.Sprintf(`
		do $$ begin
			create temporary table made as
			select (lpad(to_hex((extract(epoch from now()) * 1000)::bigint - 1000 * i), 12, '0') || '7000' || right(md5(i::text), 16))::uuid as id, a.id as app_id, a.account_id, e.id as endpoint_id, i
			from generate_series(1, %d) i
			join (select *, row_number() over () as n from apps where name like 'seeded-%%') a on a.n = 1 + i %% %d
			join endpoints e on e.app_id = a.id;
			insert into tasks (id, app_id, account_id, task_id, unique_id, status, polling, urgent, videos, metadata, polls, created_at, expires_at)
			select id, app_id, account_id, 'seeded-' || i, 'default', case when i %% 10 = 0 then 'waiting' else 'ready' end, i %% 10 = 0, false, '[{"video_id":"PI-1","status":null}]', jsonb_build_object('order', 'order-' || i), 7, now(), now() + interval '1 day' from made;
			insert into subscriptions (id, task, endpoint_id) select id, id, endpoint_id from made;
			insert into events (id, app_id, task, type, payload, created_at) select id, app_id, id, 'task.ready', '{"type":"task.ready","data":{}}', now() from made;
			insert into deliveries (id, app_id, event_id, event_type, task, endpoint_id, status, failed, attempt_count, created_at, delivered_at)
			select id, app_id, id, 'task.ready', id, endpoint_id, case when i %% 20 = 0 then 'failed' else 'delivered' end, i %% 20 = 0, %d, now(), now() from made;
			insert into attempts (delivery_id, number, at, duration_ms, outcome, response_status, response_body)
			select id, n, now(), 12, case when n = %d then 'delivered' else 'failed' end, 500, 'no' from made, generate_series(1, %d) n;
			insert into endpoint_activity select e.id, date_bin('5 min', now() - n * interval '5 min', '2000-01-01'), 10, n %% 2
			from (select id from endpoints limit 50) e, generate_series(0, 2000) n;
			insert into activity_hours select date_trunc('hour', now()) - n * interval '1 hour', 10, 70, 9, 1, array_fill(1, array[61]), array_fill(2, array[61]) from generate_series(1, 180) n on conflict do nothing;
			insert into activity select date_trunc('minute', now()) - n * interval '1 min', 10, 70, 9, 1, array_fill(1, array[61]), array_fill(2, array[61]) from generate_series(1, 1440) n on conflict do nothing;
			insert into audit (id, at, actor, name, client, action, target, object, changes)
			select id, now(), 'admin', '', '192.0.2.1', 'update-endpoint', '/admin/v1/endpoints/' || endpoint_id, endpoint_id, '{"rate_limit": [null, 5]}' from made where i %% 10 = 0;
		end $$`, tasks, accounts, attemptsEach, attemptsEach, attemptsEach))
	b.exec(`vacuum analyze`)
}

// pages are the dashboard's pages of a service that seedService has filled: each list at its beginning, in its middle and near
// its end, and each filter.
func (b *bench) pages() []string {
	one := func(sql string) string {
		var id string
		b.scan(&id, sql)
		return id
	}
	// As a page in the middle of a list, or near its end, is asked for.
	at := func(share float64) string {
		return base64.RawURLEncoding.EncodeToString(uuidBytes(b.t, one(fmt.Sprintf(`select id::text from tasks order by id offset (select %g * count(*) from tasks)::int limit 1`, share))))
	}
	middle, deep := at(0.5), at(0.01)
	task, endpoint, webhook := one(`select id::text from tasks where task_id = 'seeded-777'`), one(`select id::text from endpoints where url = 'https://customer.example/seeded-7'`),
		one(`select event_id::text from deliveries where task = (select id from tasks where task_id = 'seeded-777')`)
	day := time.Now().UTC().Add(-2 * time.Hour).Format("2006-01-02T15:04")
	return []string{
		"/admin/?range=day", "/admin/?range=week", "/admin/tasks?before=" + middle, "/admin/tasks?before=" + deep, "/admin/tasks?after=" + deep, "/admin/tasks?status=failed&before=" + deep,
		"/admin/tasks?status=waiting&before=" + deep, "/admin/tasks?status=expired&after=" + middle, "/admin/tasks?since=" + day, "/admin/tasks?until=" + day,
		"/admin/deliveries?before=" + deep, "/admin/deliveries?after=" + deep, "/admin/deliveries?status=failed&before=" + deep, "/admin/deliveries?status=failed&after=" + deep,
		"/admin/deliveries?status=delivered&after=" + middle, "/admin/deliveries?status=pending&before=" + deep, "/admin/deliveries?status=pending&after=" + deep,
		"/admin/deliveries?endpoint_id=" + endpoint, "/admin/deliveries?endpoint_id=" + endpoint + "&status=failed&after=" + deep, "/admin/deliveries?endpoint_id=" + endpoint + "&status=cancelled",
		"/admin/deliveries?task=" + task, "/admin/deliveries?status=failed&app_id=" + one(`select id::text from apps where name = 'seeded-7'`),
		"/admin/endpoints?state=failing", "/admin/endpoints/" + endpoint + "?range=day", "/admin/endpoints/" + endpoint + "?range=week",
		"/admin/audit", "/admin/audit?before=" + deep, "/admin/audit?after=" + deep, "/admin/audit?object=" + endpoint, "/admin/audit?object=" + task, "/admin/audit?actor=key", "/admin/audit?action=nothing",
		"/admin/search?q=seeded-777", "/admin/search?q=nothing-like-it", "/admin/search?q=" + task, "/admin/search?q=" + task[:9], "/admin/search?q=evt_" + webhook, "/admin/search?q=order-777",
		"/admin/search?q=order-7", "/admin/search?q=customer.example", "/admin/search?q=https://customer.example/seeded-7", "/admin/search?q=sha", "/admin/search?q=seeded",
		"/admin/resends/new?action=resend&status=failed", "/admin/resends/new?action=resend&status=failed&endpoint_id=" + endpoint, "/admin/resends/new?action=resend&status=delivered",
		"/admin/resends/new?action=cancel&status=pending", "/admin/", "/admin/tasks", "/admin/tasks?status=waiting", "/admin/tasks?status=failed", "/admin/tasks?task_id=seeded-777", "/admin/tasks/" + one(`select id::text from tasks where task_id = 'seeded-777'`),
		"/admin/deliveries", "/admin/deliveries?status=failed", "/admin/deliveries?status=pending", "/admin/deliveries?status=cancelled", "/admin/deliveries/" + one(`select id::text from deliveries limit 1`),
		"/admin/endpoints", "/admin/endpoints/" + one(`select id::text from endpoints where url = 'https://customer.example/seeded-7'`), "/admin/accounts", "/admin/accounts/" + one(`select id::text from accounts where name = 'seeded-7'`),
		"/admin/apps", "/admin/apps/" + one(`select id::text from apps where name = 'seeded-7'`),
	}
}

func uuidBytes(t *testing.T, id string) []byte {
	t.Helper()
	u, err := uuid.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	return u[:]
}

// However much there is, every page is there at once, and an overview that is left open costs next to nothing.
func TestTheDashboardIsFastWithMuchInIt(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in := b.start("")
	in.register("first", nil)
	in.admin(http.MethodPost, "/admin/v1/polling/pause", nil, nil)
	b.seedService(pick(100, 1000), pick(20_000, 1_000_000), 3)
	v := in.visitor()
	v.signIn()
	for _, path := range b.pages() {
		took := make([]time.Duration, 20)
		for i := range took {
			start := time.Now()
			if status, body := v.get(path); status != http.StatusOK {
				t.Fatalf("%s: %d %s", path, status, body)
			}
			took[i] = time.Since(start)
		}
		slices.Sort(took)
		t.Logf("%-60s p50 %s, max %s", path, took[10].Round(100*time.Microsecond), took[19].Round(100*time.Microsecond))
		if most := pick(time.Second, 300*time.Millisecond); took[10] > most {
			t.Errorf("%s: p50 %s", path, took[10])
		}
	}
	// As a browser does that has the overview open.
	cpuBefore := in.cpu()
	idleFor := pick(3*time.Second, 60*time.Second)
	time.Sleep(idleFor)
	idle := in.cpu() - cpuBefore
	cpuBefore = in.cpu()
	for start := time.Now(); time.Since(start) < idleFor; time.Sleep(5 * time.Second) {
		v.get("/admin/")
	}
	share := (in.cpu() - cpuBefore - idle) / idleFor.Seconds()
	t.Logf("an open overview costs %.2f %% of a core beside %.2f %% at rest", 100*share, 100*idle/idleFor.Seconds())
	if long && share > 0.02 {
		t.Errorf("an open overview costs %.2f %% of a core", 100*share)
	}
}

// cpu gives the CPU seconds of the instance and of all of PostgreSQL's processes so far.
func (in *instance) cpu() float64 {
	in.t.Helper()
	own, err := proc.CPUAlone(in.cmd.Process.Pid)
	if err != nil {
		in.t.Fatal(err)
	}
	var postmaster int
	in.scan(&postmaster, `select (string_to_array(pg_read_file('postmaster.pid'), E'\n'))[1]::int`)
	all, err := proc.CPU(postmaster)
	if err != nil {
		in.t.Fatal(err)
	}
	return own + all
}

// The pictures of the README: the demo as somebody sees it who has watched it for a while.
func TestPicturesOfTheDemo(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	demo := exec.Command(devBinary, "demo", "--addr", addr)
	var out safeBuffer
	demo.Stdout, demo.Stderr = &out, &out
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = demo.Process.Signal(os.Interrupt); _ = demo.Wait() })
	token := regexp.MustCompile(`dashboard .* token (\S+)`)
	until(t, time.Minute, "the demo is up", func() bool { return token.MatchString(out.String()) })
	dir := os.Getenv("MEMHOOK_PICTURES")
	watch := 5 * time.Second
	if dir == "" {
		dir = t.ArtifactDir()
	} else {
		watch = 6 * time.Minute
	}
	time.Sleep(watch)
	b := newBrowser(t, "http://"+addr)
	b.signInWith(token.FindStringSubmatch(out.String())[1])
	b.open("/admin/")
	b.awaitShown("default")
	b.picture(filepath.Join(dir, "overview.png"))
	b.open("/admin/tasks?task_id=demo-1-ready-at-once")
	b.eval(`document.querySelector("#list a").click()`)
	b.awaitShown("Timeline")
	b.picture(filepath.Join(dir, "task.png"))
	b.clean()
}
