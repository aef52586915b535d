package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store/localpg"
)

// plan is a node of what auto_explain logs.
type plan struct {
	Type     string  `json:"Node Type"`
	Table    string  `json:"Relation Name"`
	Index    string  `json:"Index Name"`
	Rows     float64 `json:"Actual Rows"` // a loop
	Loops    float64 `json:"Actual Loops"`
	Filtered float64 `json:"Rows Removed by Filter"`
	Rechecks float64 `json:"Rows Removed by Index Recheck"`
	Plans    []plan
}

// mostRead is how many rows of a table a page may read: a bulk resend is counted up to 10,000, and a search looks at as many.
const mostRead = 11_000

var (
	// growing are the tables that grow with the service's work, with their partitions.
	growing = regexp.MustCompile(`^(tasks|subscriptions|events|deliveries|attempts|uploads|audit)(_|$)`)
	// costly are the statements that may read more: counts, which are cached for 400 times as long as they take, and the sweep,
	// which maintenance makes and which reads each delivery once, in chunks.
	costly = regexp.MustCompile(`^select status, count\(\*\) from (tasks|deliveries) group by status|^with chunk as materialized`)
)

// faults are the nodes of a plan that take longer the more there is. A limit above a node ends it early.
func (p *plan) faults(limited bool) (list []string) {
	read := p.Loops * (p.Rows + p.Filtered + p.Rechecks)
	if growing.MatchString(p.Table) && (p.Type == "Seq Scan" && !limited && read > 1000 || read > mostRead) {
		list = append(list, fmt.Sprintf("%s of %s %s reads %.0f rows", p.Type, p.Table, p.Index, read))
	}
	if strings.HasSuffix(p.Type, "Sort") && len(p.Plans) > 0 && p.Plans[0].Rows*p.Plans[0].Loops > mostRead {
		list = append(list, fmt.Sprintf("%s of %.0f rows", p.Type, p.Plans[0].Rows*p.Plans[0].Loops))
	}
	for i := range p.Plans {
		list = append(list, p.Plans[i].faults(p.Type == "Limit" || limited && p.Type != "Aggregate" && !strings.HasSuffix(p.Type, "Sort"))...)
	}
	return list
}

// Whatever page or list is asked for, no statement reads or sorts a whole table that grows: a page takes as long with a million
// tasks as with forty thousand. PostgreSQL itself logs the plan of every statement that it runs.
func TestNoPageReadsAWholeTable(t *testing.T) {
	t.Parallel()
	pg, err := localpg.Start(t.Context(), localpg.Options{Settings: map[string]string{
		"logging_collector": "on", "log_destination": "csvlog", "log_directory": "log", "log_filename": "plans", "log_rotation_size": "0", "log_min_messages": "log",
		"session_preload_libraries": "auto_explain", "auto_explain.log_format": "json", "auto_explain.log_analyze": "on", "auto_explain.log_timing": "off",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pg.Stop() })
	b := newBench(t, memoriestest.Config{})
	b.database = pg.URL("postgres")
	b.env["DATABASE_URL"], b.env["MEMHOOK_DATABASE_POOLER"] = b.database, ""
	in := b.start("")
	in.register("first", nil)
	in.admin(http.MethodPost, "/admin/v1/polling/pause", nil, nil)
	b.seedService(100, 40_000, 2)
	v := in.visitor()
	v.signIn()
	pages := b.pages()
	var app string
	b.scan(&app, `select id::text from apps where name = 'seeded-7'`)
	b.exec(`alter system set auto_explain.log_min_duration = 0`)
	b.exec(`select pg_reload_conf()`)
	visit := func(name string, ask func() int) {
		b.exec(`select 'page ` + strings.ReplaceAll(name, "'", "") + `'`)
		if status := ask(); status != http.StatusOK {
			t.Errorf("%s: %d", name, status)
		}
	}
	for _, path := range pages {
		visit(path, func() int { status, _ := v.get(path); return status })
	}
	// The app whose key this is has one task, among forty thousand of others.
	for _, path := range []string{
		"tasks", "tasks?status=waiting", "tasks?status=failed", "tasks?status=ready", "tasks?task_id=seeded-777", "tasks?unique_id=other", "uploads", "uploads?status=queued",
		"events", "events?type=task.ready", "endpoints", "deliveries", "deliveries?status=failed", "deliveries?status=pending", "deliveries?status=delivered",
		"search?q=seeded-777", "search?q=nothing-like-it", "search?q=order-7",
	} {
		visit("/v1/"+path, func() int { return in.call(http.MethodGet, "/v1/"+path, nil, nil) })
		visit("/admin/v1/"+path, func() int { return in.admin(http.MethodGet, "/admin/v1/"+path, nil, nil) })
		separator := "?"
		if strings.Contains(path, "?") {
			separator = "&"
		}
		path += separator + "app_id=" + app
		visit("/admin/v1/"+path, func() int { return in.admin(http.MethodGet, "/admin/v1/"+path, nil, nil) })
	}
	for _, path := range []string{"/admin/v1/stats", "/admin/v1/audit", "/admin/v1/accounts", "/admin/v1/apps"} {
		visit(path, func() int { return in.admin(http.MethodGet, path, nil, nil) })
	}
	b.exec(`select 'page the end'`)

	var log string
	until(t, 10*time.Second, "the log is written", func() bool {
		b.scan(&log, `select pg_read_file('log/plans.csv')`)
		return strings.Contains(log, "page the end")
	})
	seen, page, faults := 0, "", make(map[string]bool)
	records := csv.NewReader(strings.NewReader(log))
	for {
		record, err := records.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		_, raw, ok := strings.Cut(record[13], " plan:\n")
		if !ok {
			continue
		}
		var logged struct {
			Text string `json:"Query Text"`
			Plan plan
		}
		if err := json.Unmarshal([]byte(raw), &logged); err != nil {
			t.Fatal(err, raw)
		}
		text := strings.Join(strings.Fields(logged.Text), " ")
		if name, ok := strings.CutPrefix(text, "select 'page "); ok {
			page = strings.TrimSuffix(name, "'")
			continue
		}
		seen++
		if costly.MatchString(text) {
			continue
		}
		for _, fault := range logged.Plan.faults(false) {
			if key := fault + text; !faults[key] {
				faults[key] = true
				t.Errorf("%s: %s\n\t%s", page, fault, text)
			}
		}
	}
	if seen < len(pages) {
		t.Errorf("%d plans of %d pages", seen, len(pages))
	}
}
