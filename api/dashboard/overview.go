package dashboard

import (
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/api/verdict"
	"github.com/memhook/memhook/store"
)

// overviewRows is the maximum number of accounts and of endpoints that the overview shows.
const overviewRows = 12

type overviewData struct {
	store.Stats
	verdict.Verdict
	Lag      quantiles
	Latency  quantiles
	Charts   chartsData
	Queue    map[string]queueLine
	Accounts []accountLine
}

// chartsData is what the charts of a page show, as pictures and as a table.
type chartsData struct {
	Choices []link
	Span    timespan
	Figures []chart
	Table   []store.Minute // by bar, the newest first, without those in which nothing happened
	AllApps bool           // not one endpoint: the table also has what happened before attempts
}

func figures(slots []store.Minute) (table []store.Minute) {
	for _, m := range slices.Backward(slots) {
		if m.Registrations+m.Polls+m.Deliveries+m.FailedAttempts > 0 {
			table = append(table, m)
		}
	}
	return table
}

type quantiles struct{ P50, P95, P99 string }

func quantilesOf(h store.Histogram) quantiles {
	at := func(q float64) string {
		d, ok := h.Quantile(q)
		if !ok {
			return "–"
		}
		return verdict.Span(d)
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

func accountLineOf(a store.Account, backlogs map[uuid.UUID]int64) accountLine {
	l := accountLine{Account: a, Backlog: backlogs[a.ID], Share: min(100, int(100*a.Used/a.RequestsPerSecond+0.5))}
	l.Round = verdict.Span(verdict.Round(&a, l.Backlog))
	return l
}

func (d *dashboard) overview(r *http.Request) (*view, error) {
	st, err := d.store.Stats(r.Context(), overviewRows)
	if err != nil {
		return nil, err
	}
	now, span := time.Now(), timespanOf(r)
	minutes := st.Minutes
	if span.Key != timespans[0].Key {
		if minutes, err = d.store.Activity(r.Context(), span.start(now)); err != nil {
			return nil, err
		}
	}
	data, total := overviewData{Stats: st, Queue: make(map[string]queueLine)}, store.Totals(st.Minutes)
	data.Lag, data.Latency = quantilesOf(total.DetectionLag), quantilesOf(total.Latency)
	data.Charts = charts(span, span.fold(minutes, now), now)
	data.Charts.Choices = span.choices(r)
	for name, queues := range store.Pausable {
		line := queueLine{Paused: slices.ContainsFunc(queues, func(queue string) bool { return !st.Paused[queue].IsZero() })}
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
		data.Accounts = append(data.Accounts, accountLineOf(a, st.Backlogs))
	}
	data.Verdict = verdict.Of(&data.Stats, now)
	return &view{template: "overview", Title: "Overview", Live: 5, Data: data}, nil
}

func charts(span timespan, slots []store.Minute, now time.Time) chartsData {
	return chartsData{Span: span, Table: figures(slots), AllApps: true, Figures: []chart{
		attemptBars(span, slots, now),
		bars(halfWide, "Registrations", "registration", span, slots, now, func(m store.Minute) (int64, int64) { return m.Registrations, 0 }),
		bars(halfWide, "Polls", "poll", span, slots, now, func(m store.Minute) (int64, int64) { return m.Polls, 0 }),
		lines("Detection lag", "first video of a list → the poll that saw it", span, slots, now,
			func(m store.Minute) store.Histogram { return m.DetectionLag }),
		lines("Delivery latency", "event → delivered", span, slots, now, func(m store.Minute) store.Histogram { return m.Latency }),
	}}
}

func (d *dashboard) setPaused(what string, paused bool) func(*http.Request) (to, done string, err error) {
	state := map[bool]string{true: " paused", false: " resumed"}[paused]
	return func(r *http.Request) (to, done string, err error) {
		return "/admin/", what + state + " everywhere", d.store.PauseQueues(r.Context(), store.Pausable[what], paused)
	}
}
