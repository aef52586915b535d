package main

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/memhook/memhook/memories/memoriestest"
)

// spans is an OTLP collector.
type spans struct {
	mu   sync.Mutex
	list []*tracepb.Span
}

func (s *spans) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = unzipped
	}
	raw, _ := io.ReadAll(body)
	var sent collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(raw, &sent); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range sent.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			s.list = append(s.list, scope.GetSpans()...)
		}
	}
}

// trace gives the spans of a trace, by name.
func (s *spans) trace(id string) (byName map[string][]*tracepb.Span, byID map[string]*tracepb.Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	byName, byID = make(map[string][]*tracepb.Span), make(map[string]*tracepb.Span)
	for _, span := range s.list {
		if hex.EncodeToString(span.GetTraceId()) == id {
			byName[span.GetName()] = append(byName[span.GetName()], span)
			byID[hex.EncodeToString(span.GetSpanId())] = span
		}
	}
	return byName, byID
}

// A registration, its polls and every attempt are one connected trace, which goes on at the receiver.
func TestOneTraceFromRegistrationToAttempts(t *testing.T) {
	t.Parallel()
	var s spans
	otlp := httptest.NewServer(&s)
	t.Cleanup(otlp.Close)
	b := newBench(t, memoriestest.Config{})
	b.fast()
	b.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = otlp.URL
	b.env["OTEL_BSP_SCHEDULE_DELAY"] = "200"
	in := b.start("")
	b.receiver.answers(func(n int, _ received) int {
		if n == 1 {
			return http.StatusInternalServerError // so that there are two attempts
		}
		return http.StatusNoContent
	})
	b.sim.Add(readyAfter("task", 0, "PI-1"))
	in.register("task", nil)
	got := b.receiver.await(t, 2, 20*time.Second)
	parts := strings.Split(got[0].header.Get("traceparent"), "-")
	if len(parts) != 4 {
		t.Fatalf("traceparent %q", got[0].header.Get("traceparent"))
	}
	id := parts[1]
	if other := strings.Split(got[1].header.Get("traceparent"), "-"); other[1] != id || other[2] == parts[2] {
		t.Errorf("the second attempt has traceparent %v after %v", other, parts)
	}
	var byName map[string][]*tracepb.Span
	var byID map[string]*tracepb.Span
	until(t, 20*time.Second, "the spans have come", func() bool {
		byName, byID = s.trace(id)
		return len(byName["POST /v1/tasks"]) == 1 && len(byName["poll"]) > 0 && len(byName["attempt"]) == 2
	})
	if byID[parts[2]].GetName() != "attempt" {
		t.Error("the receiver's parent is not the attempt")
	}
	root := hex.EncodeToString(byName["POST /v1/tasks"][0].GetSpanId())
	for name, list := range byName {
		for _, span := range list {
			top := span
			for i := 0; i < 5 && len(top.GetParentSpanId()) > 0; i++ {
				top = byID[hex.EncodeToString(top.GetParentSpanId())]
				if top == nil {
					t.Fatalf("%s hangs in the air", name)
				}
			}
			if hex.EncodeToString(top.GetSpanId()) != root {
				t.Errorf("%s is not under the registration", name)
			}
		}
	}
	for _, span := range byName["attempt"] {
		if parent := byID[hex.EncodeToString(span.GetParentSpanId())]; parent.GetName() != "poll" || len(span.GetLinks()) == 0 {
			t.Errorf("an attempt is under %s, with %d links", parent.GetName(), len(span.GetLinks()))
		}
	}
}

// prometheus scrapes the instance and answers queries.
func (in *instance) prometheus() (query func(expr string) (n int, err error)) {
	in.t.Helper()
	dir := in.t.TempDir()
	addr := freeAddr(in.t)
	config := fmt.Sprintf("global: {scrape_interval: 1s}\nrule_files: [%q]\nscrape_configs: [{job_name: memhook, static_configs: [{targets: [%q]}]}]\n",
		repository(in.t, "deploy/prometheus/alerts.yaml"), strings.TrimPrefix(in.url, "http://"))
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		in.t.Fatal(err)
	}
	cmd := exec.Command("prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr, "--log.level=error")
	var log safeBuffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		in.t.Fatalf("prometheus (install Debian's package prometheus to run this test): %v", err)
	}
	in.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return func(expr string) (int, error) {
		resp, err := http.Get("http://" + addr + "/api/v1/query?query=" + url.QueryEscape(expr))
		if err != nil {
			return 0, err
		}
		defer func() { _ = resp.Body.Close() }()
		var out struct {
			Status, Error string
			Data          struct{ Result []json.RawMessage }
		}
		if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
			return 0, err
		}
		if out.Status != "success" {
			return 0, fmt.Errorf("%s: %s", expr, out.Error)
		}
		return len(out.Data.Result), nil
	}
}

// repository gives the path of a file of the repository.
func repository(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../..", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// The alerts that no other test can bring about fire where they should, and nowhere else.
func TestAlertsFire(t *testing.T) {
	t.Parallel()
	var tests strings.Builder
	fmt.Fprintf(&tests, "rule_files: [%q]\nevaluation_interval: 1m\ntests:\n", repository(t, "deploy/prometheus/alerts.yaml"))
	for _, c := range []struct{ series, firing string }{
		{``, "MemhookDown"}, // no instance, or a database that does not answer
		{`memhook_instances{instance="a"}: 0, memhook_clock_skew_seconds{instance="a"}: 4`, "MemhookDown"},
		{`memhook_instances{instance="a"}: 2, memhook_instances{instance="b"}: 0`, ""}, // b's was read some seconds before
		{`memhook_instances{instance="a"}: 1, memhook_clock_skew_seconds{instance="a"}: 4, memhook_clock_skew_seconds{instance="b"}: -5`, ""},
		{`memhook_instances{instance="a"}: 1, memhook_clock_skew_seconds{instance="a"}: 0, memhook_clock_skew_seconds{instance="b"}: -6`, "MemhookClockSkew"},
		{`memhook_instances{instance="a"}: 1, memhook_queue_oldest_seconds{queue="deliver"}: 31`, "MemhookQueueGrowing"},
	} {
		tests.WriteString("  - interval: 1m\n    input_series:\n")
		for one := range strings.SplitSeq(c.series, ", ") {
			if name, value, ok := strings.Cut(one, ": "); ok {
				fmt.Fprintf(&tests, "      - {series: '%s', values: '%s+0x20'}\n", name, value)
			}
		}
		tests.WriteString("    promql_expr_test:\n      - eval_time: 10m\n        expr: count by (alertname) (ALERTS{alertstate=\"firing\"})\n        exp_samples:\n")
		if c.firing != "" {
			fmt.Fprintf(&tests, "          - {labels: '{alertname=\"%s\"}', value: 1}\n", c.firing)
		}
	}
	file := filepath.Join(t.TempDir(), "tests.yaml")
	if err := os.WriteFile(file, []byte(tests.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("promtool", "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool (install Debian's package prometheus to run this test): %v: %s", err, out)
	}
}

// Every query of the Grafana file and the expression of every alert, without its threshold, has an answer from
// a real Prometheus; the metrics and the rules are as promtool wants them.
func TestGrafanaAndAlerts(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	in := b.start("")
	query := in.prometheus()
	stop := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				in.registerAt(fmt.Sprintf("task-%d", i), b.receiver.URL)
			}
		}
	})
	defer func() { close(stop); load.Wait() }() // before the test's context ends, in which it registers

	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	raw, err := os.ReadFile(repository(t, "deploy/grafana/memhook.json"))
	if err != nil || json.Unmarshal(raw, &dashboard) != nil || len(dashboard.Panels) < 10 {
		t.Fatalf("grafana: %v", err)
	}
	expressions := make(map[string]string)
	for _, p := range dashboard.Panels {
		for i, target := range p.Targets {
			expressions[fmt.Sprintf("panel %q %d", p.Title, i)] = strings.ReplaceAll(target.Expr, "$__rate_interval", "10s")
		}
	}
	alerts, err := os.ReadFile(repository(t, "deploy/prometheus/alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	operations, err := os.ReadFile(repository(t, "docs/operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	threshold := regexp.MustCompile(` > [0-9.]+$`)
	for _, m := range regexp.MustCompile(`- alert: (\w+)\n\s+expr: (.*)`).FindAllStringSubmatch(string(alerts), -1) {
		if !threshold.MatchString(m[2]) {
			t.Errorf("%s has no threshold", m[1])
		}
		expressions["alert "+m[1]] = regexp.MustCompile(`\[\d+[mh]\]`).ReplaceAllString(threshold.ReplaceAllString(m[2], ""), "[10s]")
		if !strings.Contains(string(operations), "### "+m[1]) {
			t.Errorf("%s has no line in docs/operations.md", m[1])
		}
	}
	if len(expressions) < 30 {
		t.Fatalf("%d expressions", len(expressions))
	}
	for name, expr := range expressions {
		var n int
		var err error
		for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline) && (n == 0 || err != nil); time.Sleep(200 * time.Millisecond) {
			n, err = query(expr)
		}
		if err != nil || n == 0 {
			t.Errorf("%s: %d series, %v: %s", name, n, err, expr)
		}
	}

	resp, err := http.Get(in.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	exposed, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	lint := exec.Command("promtool", "check", "metrics")
	lint.Stdin = bytes.NewReader(exposed)
	if out, err := lint.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v: %s", err, out)
	}
	if out, err := exec.Command("promtool", "check", "rules", repository(t, "deploy/prometheus/alerts.yaml")).CombinedOutput(); err != nil {
		t.Errorf("promtool check rules: %v: %s", err, out)
	}
	for _, private := range []string{"task-1", "127.0.0.1", "PI-"} {
		if strings.Contains(string(exposed), private) {
			t.Errorf("%q stands in the metrics", private)
		}
	}
}
