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
	// overviewRows is the maximum number of accounts and of endpoints that the overview shows.
	overviewRows = 12
	// lateQueue is how long a delivery may wait for a worker before the overview says that customers wait.
	lateQueue = 10.0 // seconds
	// lateLatency is the p95 from event to delivery above which the overview warns.
	lateLatency = time.Minute
	// lateRound is how long polling each task of an account once may take before the overview warns.
	lateRound = 15 * time.Minute
)

// finding is something that delays webhooks, or may.
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

// round is how long polling each task of an account once takes.
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
	data.Charts = charts(st.Minutes, now)
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

// charts draws the last hour, minute by minute.
func charts(minutes []store.Minute, now time.Time) []chart {
	bar := func(title string, value func(store.Minute) int64) chart {
		return chart{title, bars(title, minutes, now, value)}
	}
	line := func(title, of string, value func(store.Minute) store.Histogram) chart {
		return chart{title + ": " + of, lines(title, minutes, now, value)}
	}
	return []chart{
		bar("Registrations", func(m store.Minute) int64 { return m.Registrations }),
		bar("Polls", func(m store.Minute) int64 { return m.Polls }),
		bar("Deliveries", func(m store.Minute) int64 { return m.Deliveries }),
		bar("Failed attempts", func(m store.Minute) int64 { return m.FailedAttempts }),
		line("Detection lag", "first video of a list → the poll that saw it", func(m store.Minute) store.Histogram { return m.DetectionLag }),
		line("Delivery latency", "event → delivered", func(m store.Minute) store.Histogram { return m.Latency }),
	}
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

// findings returns why customers wait, the worst first. No finding means that they receive their webhooks in time.
func findings(o *overviewData) (list []finding) {
	add := func(bad bool, link, format string, args ...any) {
		list = append(list, finding{bad, fmt.Sprintf(format, args...), link})
	}
	if len(o.Instances) == 0 {
		add(true, "", "No instance with workers is running. Nothing is polled and nothing is delivered.")
	}
	if o.Queue["deliveries"].Paused {
		add(true, "", "Deliveries are paused. Events wait until they are resumed.")
	}
	if o.Queue["polling"].Paused {
		add(true, "", "Polling is paused. No task becomes ready until it is resumed.")
	}
	for _, a := range o.Accounts {
		if f, found := accountFinding(a); found {
			list = append(list, f)
		}
	}
	if q := o.Queue["deliveries"]; !q.Paused && q.Oldest > lateQueue {
		add(true, "/admin/jobs/", "Deliveries wait for a worker, the oldest for %s. Add an instance, or look for what blocks the workers.",
			span(time.Duration(q.Oldest*float64(time.Second))))
	}
	if p95, ok := o.Total.Latency.Quantile(0.95); ok && p95 > lateLatency {
		add(false, "/admin/deliveries?status=failed", "In the last hour, one delivery in twenty took longer than %s.", span(p95))
	}
	list = append(list, endpointFindings(o.Endpoints)...)
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

// accountFinding returns what is wrong with an account.
func accountFinding(a accountLine) (f finding, found bool) {
	f = finding{Bad: true, Link: "/admin/accounts/" + a.ID.String()}
	reason := "."
	if a.StateReason != nil {
		reason = ": " + *a.StateReason
	}
	switch {
	case a.State == store.AccountRefused:
		f.Text = fmt.Sprintf("memories.ai refuses the account %s%s", a.Name, reason)
	case a.State == store.AccountUnavailable:
		f.Text = fmt.Sprintf("memories.ai does not answer for the account %s%s", a.Name, reason)
	case a.State == store.AccountRateLimited:
		f.Text = fmt.Sprintf("memories.ai rate-limits the account %s, so something else uses its budget%s", a.Name, reason)
	case round(a.Account, a.Backlog) > lateRound:
		f.Bad = false
		f.Text = fmt.Sprintf("Polling each of the %s of the account %s once takes %s at its budget of %s requests/s.",
			count(a.Backlog, "task"), a.Name, a.Round, decimal(a.RequestsPerSecond))
	default:
		return f, false
	}
	return f, true
}

// endpointFindings returns a finding for the disabled endpoints and one for the failing ones. There may be more of both than
// the overview reads.
func endpointFindings(endpoints []store.Endpoint) (list []finding) {
	disabled := 0
	for _, e := range endpoints {
		if !e.Enabled {
			disabled++
		}
	}
	say := func(n int, one, several string) {
		text := one
		if n != 1 {
			text = fmt.Sprintf("%d endpoints %s", n, several)
		}
		if len(endpoints) == overviewRows {
			text = "There may be more endpoints in trouble than are shown here. " + text
		}
		if n > 0 {
			list = append(list, finding{Text: text, Link: "/admin/endpoints"})
		}
	}
	say(disabled, "One endpoint is disabled. Its webhooks wait.", "are disabled. Their webhooks wait.")
	say(len(endpoints)-disabled, "One endpoint is failing or falling behind.", "are failing or falling behind.")
	return list
}

func (d *dashboard) pause(r *http.Request) (to, done string, err error) {
	what, verb := chi.URLParam(r, "what"), chi.URLParam(r, "verb")
	err = d.store.PauseQueues(r.Context(), store.Pausable[what], verb == "pause")
	return "/admin/", what + " " + map[string]string{"pause": "paused", "resume": "resumed"}[verb] + " everywhere", err
}
