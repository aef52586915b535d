package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/memhook/memhook/memories/memoriestest"
)

// What people, apps and receivers may write, which no page may stumble over.
const (
	markup  = `<b onclick="alert(1)">Größe & "quotes"</b> '; drop table tasks; --`
	arabic  = "مرحبا بالعالم \u202eعكس\u202c"
	emoji   = "👩‍👩‍👧‍👦🇩🇪 e\u0301 ﷽"
	unbroke = "unbreakable_"
)

var unbreakable = strings.Repeat(unbroke, 20)

// pageNamed is a page of the dashboard with a name for its picture.
type pageNamed struct{ name, path string }

// hostile is an instance with something of everything: well and in trouble, short, very long, and in other scripts. It returns
// every page of the dashboard that shows it.
func hostile(t *testing.T) (*instance, []pageNamed) {
	t.Helper()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	b.env["MEMHOOK_RETRY_SCHEDULE"] = "50ms,50ms,1h"
	in := b.start("")
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("long", 200))
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte("<h1>" + markup + "</h1>" + emoji + arabic + strings.Repeat(unbroke, 3000)))
	}))
	t.Cleanup(broken.Close)
	videos := make([]string, 40)
	for i := range videos {
		videos[i] = fmt.Sprintf("PI-60306877528520%04d", i)
	}
	in.sim.Add(readyAfter("first", 0, videos...))
	metadata := map[string]string{"markup": markup, "arabic": arabic, "emoji": emoji, "long": strings.Repeat("2048 bytes ", 186), unbreakable[:120]: unbreakable}
	task := in.register("first", map[string]any{"metadata": metadata, "callback_url": in.receiver.URL + "/" + unbreakable + "?customer=" + unbreakable})
	in.sim.Add(readyAfter(strings.Repeat("long-task-id-", 19), 0, "PI-1"))
	in.register(strings.Repeat("long-task-id-", 19), map[string]any{"callback_url": broken.URL + "/hooks", "metadata": map[string]string{"order": "42"}})
	in.sim.Add(memoriestest.Task{TaskID: "refused", Refusal: "0001"})
	in.register("refused", map[string]any{"callback_url": broken.URL + "/hooks"})
	in.sim.Add(memoriestest.Task{TaskID: "never"})
	waiting := in.register("never", nil)
	in.receiver.await(t, 1, 20*time.Second)

	appID, _, _ := in.newApp((markup + arabic + unbreakable)[:100])
	in.newApp(emoji)
	var account struct{ ID string }
	in.admin(http.MethodPost, "/admin/v1/accounts", map[string]any{"name": markup + unbreakable[:20], "api_key": "sk-mavi-other", "requests_per_second": 0.5}, &account)
	id := func(sql string) string {
		var out string
		until(t, 20*time.Second, sql, func() bool { return b.query(`select count(*)::int from (`+sql+`) x`) > 0 })
		b.scan(&out, sql)
		return out
	}
	failing := id(`select id::text from endpoints where failing_since is not null limit 1`)
	retried := id(`select d.id::text from deliveries d where d.attempt_count >= 2 and d.retrying limit 1`)
	delivered := id(`select id::text from deliveries where status = 'delivered' limit 1`)
	var made struct{ ID string }
	in.want(http.StatusCreated, testAPIKey, http.MethodPost, "/v1/endpoints", map[string]any{
		"url": "https://disabled.example/" + unbreakable, "description": markup + arabic, "event_types": []string{"task.ready", "task.failed"},
		"rate_limit": 5, "headers": map[string]string{"X-Tenant": "secret", "X-" + strings.Repeat("Long", 20): "secret"},
	}, &made)
	in.want(http.StatusOK, testAPIKey, http.MethodPatch, "/v1/endpoints/"+made.ID, map[string]any{"description": emoji + strings.Repeat("a long description ", 20)}, nil)
	in.want(http.StatusOK, testAdminToken, http.MethodPost, "/admin/v1/endpoints/"+made.ID+"/disable", nil, nil)
	var bulk struct{ ID string }
	in.admin(http.MethodPost, "/admin/v1/deliveries/resend", map[string]any{"status": "delivered"}, &bulk)
	b.exec(`update accounts set state = 'refused', state_reason = '0401 ` + strings.ReplaceAll(markup, "'", "''") + unbreakable + `' where name <> 'default'`)
	b.history(failing)
	bulkID := id(`select id::text from resends limit 1`)
	return in, []pageNamed{
		{"overview", "/admin/"}, {"overview-day", "/admin/?range=day"}, {"overview-week", "/admin/?range=week"},
		{"tasks", "/admin/tasks"}, {"tasks-none", "/admin/tasks?task_id=nothing&since=2026-01-01T00:00"}, {"task", "/admin/tasks/" + task.ID}, {"task-waiting", "/admin/tasks/" + waiting.ID},
		{"deliveries", "/admin/deliveries"}, {"deliveries-none", "/admin/deliveries?status=cancelled"}, {"delivery", "/admin/deliveries/" + delivered}, {"delivery-retried", "/admin/deliveries/" + retried},
		{"endpoints", "/admin/endpoints"}, {"endpoint", "/admin/endpoints/" + failing + "?range=day"}, {"endpoint-disabled", "/admin/endpoints/" + made.ID},
		{"uploads", "/admin/uploads"}, {"accounts", "/admin/accounts"}, {"account", "/admin/accounts/" + account.ID}, {"apps", "/admin/apps"}, {"app", "/admin/apps/" + appID},
		{"search", "/admin/search?q=long-task"}, {"search-endpoints", "/admin/search?q=disabled.example"}, {"search-nothing", "/admin/search?q=" + url.QueryEscape(markup)}, {"search-short", "/admin/search"},
		{"audit", "/admin/audit"}, {"audit-none", "/admin/audit?actor=key&action=nothing"},
		{"resend-new", "/admin/resends/new?action=resend&status=delivered"}, {"resend-new-none", "/admin/resends/new?action=cancel&status=pending&event_type=nothing"}, {"resend", "/admin/resends/" + bulkID},
		{"flash", "/admin/"}, {"not-found", "/admin/nothing-here"},
	}
}

// history makes a week of activity, so that charts have something to show, with an outage in its last day.
func (b *bench) history(endpoint string) {
	b.t.Helper()
	const counts = `(40 + 30 * sin(n / 14.0) + n % 7)::int`
	b.exec(`insert into endpoint_activity select '` + endpoint + `', date_bin('5 min', now() - n * interval '5 min', '2000-01-01'),
		case when n between 60 and 90 then 0 else ` + counts + ` end, case when n between 60 and 90 then 40 else (n % 11 = 0)::int * 3 end
		from generate_series(1, 2016) n on conflict do nothing`)
	histogram := func(least int) string {
		return fmt.Sprintf(`(select array_agg(case when k between %d and %d + 3 + n %% 9 then 3 else 0 end order by k) from generate_series(1, 61) k)`, least, least)
	}
	for table, unit := range map[string]string{"activity": "minute", "activity_hours": "hour"} {
		b.exec(fmt.Sprintf(`insert into %s select date_trunc('%s', now()) - n * interval '1 %s', %s, 3 * %s, %s, case when n between 20 and 26 then 25 else n %% 13 / 12 end, %s, %s
			from generate_series(1, case '%s' when 'minute' then 1440 else 180 end) n on conflict do nothing`,
			table, unit, unit, counts, counts, counts, histogram(20), histogram(8), unit))
	}
}

// Every page, at the width of a desk and of a phone, in light and in dark: axe-core finds no violation of WCAG 2.1 A and AA,
// nothing is wider than the screen or cut off, one button of a row is the first, and nothing that somebody has written runs.
// Pictures are kept where MEMHOOK_SCREENSHOTS says.
func TestEveryPageIsAccessible(t *testing.T) {
	t.Parallel()
	in, pages := hostile(t)
	axe, err := os.ReadFile(filepath.Join(nodeModules(t), "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	dir := os.Getenv("MEMHOOK_SCREENSHOTS")
	b, since := newBrowser(t, in.url), time.Now()
	fresh := func(width int64, dark bool) {
		b.clean()
		b, since = newBrowser(t, in.url), time.Now()
		b.dark(dark)
		b.do(chromedp.EmulateViewport(width, 900))
		b.signIn()
	}
	check := func(p pageNamed, width int64, dark bool) {
		if time.Since(since) > 2*time.Minute { // a browser lasts for some
			fresh(width, dark)
		}
		if p.name == "flash" {
			for cookie, text := range map[string]string{"memhook_done": unbreakable, "memhook_problem": "Not possible: " + markup} {
				b.eval(fmt.Sprintf(`(document.cookie = "%s=%s; path=/admin")`, cookie, base64.RawURLEncoding.EncodeToString([]byte(text))))
			}
		}
		b.open(p.path)
		name := fmt.Sprintf("%s-%d-%s", p.name, width, map[bool]string{true: "dark", false: "light"}[dark])
		if dir != "" {
			b.picture(filepath.Join(dir, name+".png"))
		}
		if wide := b.eval(`document.documentElement.scrollWidth > document.documentElement.clientWidth`); wide == "true" {
			t.Errorf("%s is wider than the screen: %s", name, b.eval(`[...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll") && e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML.slice(0, 120)).slice(0, 5).join("\n")`))
		}
		if cut := b.eval(`[...document.querySelectorAll("svg text")].filter(e => e.getBoundingClientRect().right > e.closest("svg").getBoundingClientRect().right + 1 ||
				(!e.closest(".pan") && e.getBoundingClientRect().left < e.closest("figure").getBoundingClientRect().left + 1))
			.concat([...document.querySelectorAll("td")].filter(e => e.scrollHeight > e.clientHeight + 1)).map(e => e.outerHTML.slice(0, 120)).slice(0, 5).join("\n")`); cut != "" {
			t.Errorf("%s cuts %s", name, cut)
		}
		if loud := b.eval(`[...document.querySelectorAll(".buttons")].filter(e => e.querySelectorAll(":scope > button:not(.second), :scope > form > button:not(.second)").length > 1).length`); loud != "0" {
			t.Errorf("%s has buttons of one rank beside each other", name)
		}
		if dark != (width == 390) && !long { // half of them, twice a page
			return
		}
		b.eval(`document.querySelectorAll("details").forEach(d => d.open = true)`)
		for _, v := range b.violations(string(axe)) {
			t.Errorf("%s: %s", name, v)
		}
	}
	for _, dark := range []bool{false, true} {
		b.dark(dark)
		for _, width := range []int64{1440, 390} {
			b.do(chromedp.EmulateViewport(width, 900))
			if !dark && width == 1440 {
				check(pageNamed{"sign-in", "/admin/sign-in"}, width, dark)
				b.signIn()
			}
			for _, p := range pages {
				check(p, width, dark)
			}
		}
	}
	b.clean()
}

// violations runs axe-core on the page.
func (b *browser) violations(axe string) []string {
	b.t.Helper()
	b.do(chromedp.Evaluate[chromedp.Void](axe))
	out, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}).then(r => JSON.stringify({violations: r.violations.map(v => v.id + ": " + v.nodes.map(n => n.html.slice(0, 200) + " " + n.failureSummary).join("; ")), passes: r.passes.length}))`, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatal(err)
	}
	var result struct {
		Violations []string
		Passes     int
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil || result.Passes < 5 {
		b.t.Fatalf("axe-core: %v %s", err, out)
	}
	return result.Violations
}
