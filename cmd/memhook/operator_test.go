package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/webhook"
)

// status gets a URL on a connection of its own; 0 means that there was no answer.
func status(url string) int {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// After SIGTERM an instance is not ready, and serves requests on new connections until its drain time is over.
func TestSIGTERMDrains(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.env["MEMHOOK_DRAIN_TIME"] = "2s"
	in := b.start("")
	start := time.Now()
	if err := in.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	until(t, 20*time.Second, "it is not ready", func() bool { return status(in.url+"/readyz") == http.StatusServiceUnavailable })
	var hints struct{ URL string }
	for time.Since(start) < 1500*time.Millisecond {
		if got := status(in.url + "/healthz"); got != http.StatusOK {
			t.Fatalf("after %s of draining: %d", time.Since(start), got)
		}
		if got := in.call(http.MethodGet, "/v1/hint-url", nil, &hints); got != http.StatusOK {
			t.Fatalf("after %s of draining the API answers %d", time.Since(start), got)
		}
		time.Sleep(20 * time.Millisecond)
	}
	select {
	case err := <-in.done:
		in.done <- err
		if took := time.Since(start); err != nil || took < 2*time.Second {
			t.Errorf("it ended after %s: %v", took, err)
		}
	case <-time.After(15 * time.Second):
		t.Fatal("it goes on")
	}
}

// A session that was signed out is worth nothing, on no instance, though its cookie was copied before.
func TestASignedOutSessionIsOver(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in, other := b.start(""), b.start("")
	operator := in.visitor()
	operator.signIn()
	u, err := url.Parse(in.url + "/admin/")
	if err != nil {
		t.Fatal(err)
	}
	at := func(on *instance) *visitor {
		v := on.visitor()
		there, err := url.Parse(on.url + "/admin/")
		if err != nil {
			t.Fatal(err)
		}
		v.http.Jar.SetCookies(there, operator.http.Jar.Cookies(u))
		return v
	}
	copies := []*visitor{at(in), at(other)}
	for i, v := range copies {
		if got, _ := v.get("/admin/"); got != http.StatusOK {
			t.Fatalf("copy %d before: %d", i, got)
		}
	}
	if got := operator.post("/admin/sign-out", nil); got != http.StatusSeeOther {
		t.Fatalf("sign out: %d", got)
	}
	if got, _ := copies[0].get("/admin/"); got != http.StatusFound {
		t.Errorf("on the same instance: %d", got)
	}
	until(t, 20*time.Second, "the other instance knows", func() bool { got, _ := copies[1].get("/admin/"); return got == http.StatusFound })
}

// Whatever the files for Kubernetes and Prometheus ask of a metric, a running instance has with just those labels.
func TestDeploymentsAskForLabelsThatExist(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in := b.start("")
	_, exposed := in.visitor().get("/metrics")
	has := func(metric, label, value string) bool {
		return regexp.MustCompile(`(?m)^` + metric + `(_bucket|_sum|_count)?\{[^}]*\b` + label + `="` + value + `"[^}]*\} `).MatchString(exposed)
	}
	read := func(file string) string {
		raw, err := os.ReadFile(repository(t, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	asked := 0
	scaler := regexp.MustCompile(`metric: \{name: (\w+), selector: \{matchLabels: \{(\w+): (\w+)\}\}\}`)
	for _, m := range scaler.FindAllStringSubmatch(read("deploy/kubernetes/worker.yaml"), -1) {
		asked++
		if !has(m[1], m[2], m[3]) {
			t.Errorf("the autoscaler asks for %s with %s %s", m[1], m[2], m[3])
		}
	}
	for _, queue := range []string{"deliver_first", "deliver"} {
		if !strings.Contains(read("deploy/kubernetes/worker.yaml"), "{queue: "+queue+"}") {
			t.Errorf("the autoscaler does not look at the queue %s", queue)
		}
	}
	metric, matcher := regexp.MustCompile(`(memhook_\w+)\{([^}]*)\}`), regexp.MustCompile(`(\w+)=\\?"(\w+)\\?"`)
	for _, file := range []string{"deploy/prometheus/alerts.yaml", "deploy/grafana/memhook.json"} {
		for _, m := range metric.FindAllStringSubmatch(read(file), -1) {
			for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
				asked++
				if !has(m[1], l[1], l[2]) {
					t.Errorf("%s asks for %s with %s", file, m[1], l[0])
				}
			}
		}
	}
	if asked < 4 {
		t.Fatalf("only %d labels were found", asked)
	}
}

// Jobs of a paused queue wait for the operator, not for a worker: neither the alert nor the autoscaler counts their time.
func TestAPausedQueueIsNotLate(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	in := b.start("")
	if got := in.admin(http.MethodPost, "/admin/v1/deliveries/pause", nil, nil); got != http.StatusNoContent {
		t.Fatalf("pause: %d", got)
	}
	b.sim.Add(readyAfter("task", 0, "PI-1"))
	in.register("task", nil)
	until(t, 30*time.Second, "a job has waited for a second", func() bool {
		return b.query(`select count(*)::int from river_job where kind like 'deliver%' and state = 'available' and scheduled_at < now() - interval '1 s'`) > 0
	})
	_, metrics := in.visitor().get("/metrics") // the first, so it is fresh
	waiting := regexp.MustCompile(`(?m)^memhook_queue_jobs\{queue="(deliver\w*)",state="available"\} 1$`).FindStringSubmatch(metrics)
	if waiting == nil || !strings.Contains(metrics, `memhook_queue_oldest_seconds{queue="`+waiting[1]+`"} 0`+"\n") {
		t.Errorf("%q waits, and the metrics are %s", waiting, metrics)
	}
	if got := in.admin(http.MethodPost, "/admin/v1/deliveries/resume", nil, nil); got != http.StatusNoContent {
		t.Fatalf("resume: %d", got)
	}
	b.receiver.await(t, 1, 30*time.Second)
}

// Every alert links to a section of the runbook that exists.
func TestAlertsLinkToTheRunbook(t *testing.T) {
	t.Parallel()
	read := func(file string) string {
		raw, err := os.ReadFile(repository(t, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	anchors := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(read("docs/operations.md"), -1) {
		anchors[strings.ReplaceAll(regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	alerts := read("deploy/prometheus/alerts.yaml")
	links := regexp.MustCompile(`(?m)^ +runbook_url: https://github.com/memhook/memhook/blob/main/docs/operations.md#(.*)$`).FindAllStringSubmatch(alerts, -1)
	for _, m := range links {
		if !anchors[m[1]] {
			t.Errorf("docs/operations.md has no section #%s", m[1])
		}
	}
	if n := strings.Count(alerts, "- alert: "); n != len(links) || n < 10 {
		t.Errorf("%d alerts have %d links", n, len(links))
	}
}

// A receiver breaks: within a minute the verdict, the metrics and the log say so, each once; when it is repaired they say that.
func TestTheVerdictTurnsWhenAReceiverBreaks(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	b.env["MEMHOOK_RETRY_SCHEDULE"] = "200ms,200ms,200ms,200ms,200ms,200ms,200ms,200ms,200ms,200ms,200ms,5m"
	in := b.start("")
	type stats struct {
		Verdict struct {
			OK       bool
			Findings []struct{ Code, Text, Link string }
		}
	}
	judge := func() (s stats) {
		if got := in.admin(http.MethodGet, "/admin/v1/stats", nil, &s); got != http.StatusOK {
			t.Fatalf("stats: %d", got)
		}
		return s
	}
	until(t, 20*time.Second, "all is well", func() bool { return judge().Verdict.OK })
	b.receiver.answers(func(int, received) int { return http.StatusInternalServerError })
	b.sim.Add(readyAfter("task", 0, "PI-1"))
	in.register("task", nil)
	var found stats
	until(t, 55*time.Second, "the verdict names the endpoint", func() bool {
		found = judge()
		return !found.Verdict.OK && found.Verdict.Findings[0].Code == "endpoint-failing"
	})
	if f := found.Verdict.Findings[0]; !strings.Contains(f.Text, b.receiver.URL) || !strings.HasPrefix(f.Link, "/admin/endpoints/") {
		t.Errorf("%+v", f)
	}
	_, metrics := in.visitor().get("/metrics")
	if !strings.Contains(metrics, `memhook_changes_total{kind="endpoint.failing"} 1`) {
		t.Error("the metrics have no change to failing")
	}
	b.receiver.answers(func(int, received) int { return http.StatusNoContent })
	start := time.Now()
	if got := in.admin(http.MethodPost, "/admin/v1"+strings.TrimPrefix(found.Verdict.Findings[0].Link, "/admin")+"/enable", nil, nil); got != http.StatusOK {
		t.Fatalf("enable: %d", got)
	}
	until(t, pick(time.Minute, 10*time.Second), "the webhook is delivered and the verdict is good", func() bool { return judge().Verdict.OK })
	t.Logf("delivered and well %s after the endpoint was enabled", time.Since(start))
	for _, line := range []string{"breaker opened"} {
		if n := strings.Count(in.log.String(), line); n != 1 {
			t.Errorf("%q stands %d times in the log", line, n)
		}
	}
}

// Each change is told once, signed, though there are two instances: an endpoint that fails, retries that are used up, an endpoint
// that is well again.
func TestAlertsAreSentOnceForEachChange(t *testing.T) {
	t.Parallel()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	alerts, chat := newReceiver(t), newReceiver(t)
	b := newBench(t, memoriestest.Config{})
	b.fast()
	b.env["MEMHOOK_ALERT_URL"], b.env["MEMHOOK_ALERT_SECRET"] = alerts.URL+"/hook", secret
	b.env["MEMHOOK_RETRY_SCHEDULE"] = "50ms,50ms"
	in := b.start("")
	b.env["MEMHOOK_ALERT_URL"] = chat.URL + "/#text" // whichever instance is first sends it
	b.start("")
	b.receiver.answers(func(int, received) int { return http.StatusInternalServerError })
	for i := range 5 { // three attempts each
		b.sim.Add(readyAfter(fmt.Sprintf("task-%d", i), 0, "PI-1"))
		in.register(fmt.Sprintf("task-%d", i), nil)
	}
	type alert struct {
		Type string
		Data struct{ Subject, State, Summary, Link string }
	}
	told := func() (states []string) {
		for _, r := range alerts.all() {
			if err := webhook.Verify(r.body, r.header, secret); err != nil {
				t.Errorf("an alert does not verify: %v", err)
			}
			var a alert
			if err := json.Unmarshal(r.body, &a); err != nil || a.Type != "memhook.alert" || a.Data.Link == "" {
				t.Errorf("%v: %s", err, r.body)
			}
			states = append(states, a.Data.State)
		}
		for _, r := range chat.all() {
			var text map[string]string
			if err := json.Unmarshal(r.body, &text); err != nil || len(text) != 1 || !strings.HasPrefix(text["text"], "memhook: ") {
				t.Errorf("%v: %s", err, r.body)
			}
			for word, state := range map[string]string{"is failing": "endpoint.failing", "Retries are used up": "delivery.failed", "works again": "endpoint.recovered"} {
				if strings.Contains(text["text"], word) {
					states = append(states, state)
				}
			}
		}
		slices.Sort(states)
		return states
	}
	until(t, 30*time.Second, "two alerts", func() bool { return len(told()) >= 2 })
	b.receiver.answers(func(int, received) int { return http.StatusNoContent })
	var list struct{ Data []struct{ ID string } }
	in.call(http.MethodGet, "/v1/endpoints", nil, &list)
	if got := in.call(http.MethodPost, "/v1/endpoints/"+list.Data[0].ID+"/enable", nil, nil); got != http.StatusOK {
		t.Fatalf("enable: %d", got)
	}
	until(t, 20*time.Second, "the third", func() bool { return len(told()) >= 3 })
	if got := told(); !slices.Equal(got, []string{"delivery.failed", "endpoint.failing", "endpoint.recovered"}) {
		t.Errorf("told: %q", got)
	}
}

// An operator at night: the search finds the webhook by its id, the receiver is repaired, "Retry now" delivers all that waits.
func TestTheOperatorsNight(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	b.env["MEMHOOK_RETRY_SCHEDULE"] = "1s,5m,5m"
	in := b.start("")
	b.receiver.answers(func(int, received) int { return http.StatusServiceUnavailable })
	for i := range 15 {
		b.sim.Add(readyAfter(fmt.Sprintf("night-%d", i), 0, "PI-1"))
		in.register(fmt.Sprintf("night-%d", i), nil)
	}
	operator := newBrowser(t, in.url)
	operator.signIn()
	operator.open("/admin/")
	operator.awaitShown("in a row") // the verdict names the endpoint
	got := b.receiver.await(t, 1, 20*time.Second)
	operator.open("/admin/search?q=" + got[0].header.Get("webhook-id"))
	operator.awaitShown("night-")
	operator.do(chromedp.Click(chromedp.CSS(`#list a[href^="/admin/endpoints/"]`)))
	operator.awaitShown("Retry now")
	b.receiver.answers(func(int, received) int { return http.StatusNoContent })
	start := time.Now()
	operator.press("Retry now")
	until(t, 10*time.Second, "everything is delivered", func() bool {
		return b.query(`select count(*) from deliveries where status = 'delivered' and event_type = 'task.ready'`) == 15
	})
	t.Logf("delivered %s after the button was pressed", time.Since(start))
	operator.open("/admin/audit")
	operator.awaitShown("retry")
	operator.clean()

	// The page says so when the server stops answering.
	operator.open("/admin/")
	in.kill()
	operator.awaitShown("Not updated since")
}
