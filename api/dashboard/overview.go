package dashboard

import (
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/memhook/memhook/store"
)

const (
	// overviewRows is how many accounts and endpoints the overview shows.
	overviewRows = 12
	// lateQueue is how long a delivery may wait for a worker before customers are said to wait.
	lateQueue = 10.0 // seconds
	// lateLatency is the p95 of event to delivery from which on customers are said to wait.
	lateLatency = time.Minute
	// lateRound is how long a round of polls of an account may take before it is pointed out.
	lateRound = 15 * time.Minute
)

// finding is something that keeps webhooks from customers, or may.
type finding struct {
	Bad  bool // customers wait
	Text string
	Link string
}

type overviewData struct {
	store.Stats
	Findings []finding
	Total    store.Minute // of the last hour
	Lag      quantiles
	Latency  quantiles
	Charts   []chart
	Queue    map[string]queueLine
	Accounts []accountLine
}

type chart struct {
	Title string
	SVG   template.HTML
}

type quantiles struct{ P50, P95, P99 string }

func quantilesOf(h store.Histogram) quantiles {
	at := func(q float64) string {
		d, ok := h.Quantile(q)
		if !ok {
			return "–"
		}
		return span(d)
	}
	return quantiles{at(0.5), at(0.95), at(0.99)}
}

type queueLine struct {
	Waiting, Running, Later int64
	Oldest                  float64 // seconds
	Paused                  bool
}

type accountLine struct {
	store.Account
	Backlog int64
	Share   int // of the budget, in percent
	Round   string
}

func accountLineOf(a store.Account, backlogs map[string]int64) accountLine {
	l := accountLine{Account: a, Backlog: backlogs[a.ID.String()], Share: min(100, int(100*a.Used/a.RequestsPerSecond+0.5))}
	l.Round = span(round(a, l.Backlog))
	return l
}

// round is how long it takes to poll each of an account's tasks once.
func round(a store.Account, backlog int64) time.Duration {
	return time.Duration(float64(backlog) / a.RequestsPerSecond * float64(time.Second))
}

func (d *dashboard) overview(r *http.Request) (*view, error) {
	st, err := d.store.Stats(r.Context(), overviewRows)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	data := overviewData{Stats: st, Total: store.Totals(st.Minutes), Queue: make(map[string]queueLine)}
	data.Lag, data.Latency = quantilesOf(data.Total.DetectionLag), quantilesOf(data.Total.Latency)
	data.Charts = []chart{
		{"Registrations", bars("Registrations", st.Minutes, now, func(m store.Minute) int64 { return m.Registrations })},
		{"Polls", bars("Polls", st.Minutes, now, func(m store.Minute) int64 { return m.Polls })},
		{"Deliveries", bars("Deliveries", st.Minutes, now, func(m store.Minute) int64 { return m.Deliveries })},
		{"Failed attempts", bars("Failed attempts", st.Minutes, now, func(m store.Minute) int64 { return m.FailedAttempts })},
		{"Detection lag: a list's first video → the poll that saw it", lines("Detection lag", st.Minutes, now, func(m store.Minute) store.Histogram { return m.DetectionLag })},
		{"Delivery latency: event → delivered", lines("Delivery latency", st.Minutes, now, func(m store.Minute) store.Histogram { return m.Latency })},
	}
	for name, queues := range store.Pausable {
		line := queueLine{Paused: slices.ContainsFunc(queues, func(queue string) bool { return st.Paused[queue] })}
		for _, j := range st.Jobs {
			if !slices.Contains(queues, j.Queue) {
				continue
			}
			switch j.State {
			case "available":
				line.Waiting += j.Count
				line.Oldest = max(line.Oldest, j.OldestSecs)
			case "running":
				line.Running += j.Count
			default:
				line.Later += j.Count
			}
		}
		data.Queue[name] = line
	}
	for _, a := range st.Accounts {
		data.Accounts = append(data.Accounts, accountLineOf(a, backlogsByName(st.Backlogs)))
	}
	data.Findings = findings(&data)
	return &view{template: "overview", Title: "Overview", Live: 5, Data: data}, nil
}

func backlogsByName[K interface {
	comparable
	fmt.Stringer
}](byID map[K]int64) map[string]int64 {
	out := make(map[string]int64, len(byID))
	for id, n := range byID {
		out[id.String()] = n
	}
	return out
}

// findings says why customers wait, the worst first; none means that they get their webhooks in time.
func findings(o *overviewData) (list []finding) {
	add := func(bad bool, link, format string, args ...any) {
		list = append(list, finding{bad, fmt.Sprintf(format, args...), link})
	}
	if len(o.Instances) == 0 {
		add(true, "", "No instance with workers is alive: nothing is polled and nothing is delivered.")
	}
	if o.Queue["deliveries"].Paused {
		add(true, "", "Deliveries are paused: events gather until they are resumed.")
	}
	if o.Queue["polling"].Paused {
		add(true, "", "Polling is paused: no task turns ready until it is resumed.")
	}
	for _, a := range o.Accounts {
		link := "/admin/accounts/" + a.ID.String()
		reason := ""
		if a.StateReason != nil {
			reason = ": " + *a.StateReason
		}
		switch {
		case a.State == store.AccountRefused:
			add(true, link, "memories.ai refuses the account %s%s", a.Name, reason)
		case a.State == store.AccountUnavailable:
			add(true, link, "memories.ai does not answer for the account %s%s", a.Name, reason)
		case a.State == store.AccountRateLimited:
			add(true, link, "memories.ai limits the account %s: something else uses its budget%s", a.Name, reason)
		case round(a.Account, a.Backlog) > lateRound:
			add(false, link, "A round of the account %s's %d tasks takes %s at %s requests a second.", a.Name, a.Backlog, a.Round, decimal(a.RequestsPerSecond))
		}
	}
	if q := o.Queue["deliveries"]; !q.Paused && q.Oldest > lateQueue {
		add(true, "/admin/jobs/", "Deliveries wait for a worker, the oldest for %s: add an instance, or look at what holds them up.", span(time.Duration(q.Oldest*float64(time.Second))))
	}
	if p95, ok := o.Total.Latency.Quantile(0.95); ok && p95 > lateLatency {
		add(false, "/admin/deliveries?status=failed", "One delivery in twenty took longer than %s in the last hour.", span(p95))
	}
	disabled := 0
	for _, e := range o.Endpoints {
		if !e.Enabled {
			disabled++
		}
	}
	if disabled > 0 {
		add(false, "/admin/endpoints", "%d endpoints are disabled: their webhooks wait.", disabled)
	}
	if broken := len(o.Endpoints) - disabled; broken > 0 {
		add(false, "/admin/endpoints", "%d endpoints fail or take less than they are sent.", broken)
	}
	slices.SortStableFunc(list, func(a, b finding) int {
		if a.Bad == b.Bad {
			return 0
		}
		if a.Bad {
			return -1
		}
		return 1
	})
	return list
}

func (d *dashboard) pause(r *http.Request) (to, done string, err error) {
	what, verb := chi.URLParam(r, "what"), chi.URLParam(r, "verb")
	err = d.store.PauseQueues(r.Context(), store.Pausable[what], verb == "pause")
	return "/admin/", what + " " + map[string]string{"pause": "paused", "resume": "resumed"}[verb] + " everywhere", err
}
