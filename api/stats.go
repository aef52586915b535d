package api

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/api/verdict"
	"github.com/memhook/memhook/store"
)

// Stats is the state of the whole service.
type Stats struct {
	Verdict    Verdict          `json:"verdict" doc:"Whether webhooks come in time, and if not, why."`
	Tasks      map[string]int64 `json:"tasks" doc:"By status."`
	Deliveries map[string]int64 `json:"deliveries" doc:"By status."`
	Queues     []Queue          `json:"queues" nullable:"false" doc:"The jobs of each queue, by state."`
	Paused     []string         `json:"paused" nullable:"false" doc:"What an operator has paused on all instances: polling, deliveries."`
	Rates      []Rates          `json:"rates" nullable:"false" doc:"One entry for each minute of the last hour in which something happened."`
	Lag        Quantiles        `json:"detection_lag" doc:"In the last hour: from the first video of a list, as far as that can be known, to the poll that saw it."`
	Latency    Quantiles        `json:"delivery_latency" doc:"In the last hour: from an event to its delivery."`
	Accounts   []Account        `json:"accounts" nullable:"false" doc:"All accounts."`
	Instances  []Instance       `json:"instances" nullable:"false" doc:"The running instances."`
}

// Verdict says whether webhooks come in time.
type Verdict struct {
	OK                bool      `json:"ok" doc:"Webhooks come in time: there are no findings."`
	Findings          []Finding `json:"findings" nullable:"false" doc:"What delays webhooks, or may; the worst first."`
	OldestUndelivered float64   `json:"oldest_undelivered_seconds" doc:"Age of the oldest webhook that waits for an enabled endpoint after a failed attempt."`
	Retrying          int64     `json:"retrying" doc:"Deliveries that wait for their next attempt."`
	Parked            int64     `json:"parked" doc:"Deliveries that wait for their endpoint to take them."`
	FailingEndpoints  int64     `json:"failing_endpoints" doc:"Endpoints that are enabled and whose last attempts have failed."`
	FailedShare       float64   `json:"failed_attempts_ratio" doc:"Share of the attempts of the last five minutes that failed."`
}

// Finding is something that delays webhooks, or may.
type Finding struct {
	Code     string `json:"code" doc:"Stable; for example endpoint-failing."`
	Severity string `json:"severity" enum:"critical,warning" doc:"critical: everybody's webhooks wait. warning: some receivers' do, or may."`
	Text     string `json:"text" doc:"What is wrong, for people."`
	Link     string `json:"link" doc:"The path of the dashboard's page where to act."`
}

// Rates is what all instances together did in one minute.
type Rates struct {
	Minute         Time  `json:"minute" doc:"The beginning of the minute."`
	Registrations  int64 `json:"registrations" doc:"New registrations."`
	Polls          int64 `json:"polls" doc:"Polls of memories.ai."`
	Deliveries     int64 `json:"deliveries" doc:"Successful deliveries."`
	FailedAttempts int64 `json:"failed_attempts" doc:"Attempts that failed."`
}

// Quantiles are durations in seconds; null where nothing was measured.
type Quantiles struct {
	P50 *float64 `json:"p50" doc:"The median in seconds."`
	P95 *float64 `json:"p95" doc:"95 % took at most this many seconds."`
	P99 *float64 `json:"p99" doc:"99 % took at most this many seconds."`
}

// Queue is the number of jobs of a queue in one state.
type Queue struct {
	Name          string  `json:"name" doc:"The name of the queue."`
	State         string  `json:"state" doc:"The state of the jobs that are counted."`
	Count         int64   `json:"count" doc:"The number of jobs."`
	OldestSeconds float64 `json:"oldest_seconds" doc:"The time since the oldest job was due."`
}

// Instance is a running memhook.
type Instance struct {
	ID        uuid.UUID `json:"id" doc:"The id of the instance."`
	Name      string    `json:"name" doc:"The host name and process of the instance."`
	Version   string    `json:"version" doc:"The version of memhook that it runs."`
	StartedAt Time      `json:"started_at" doc:"When it started."`
	BeatAt    Time      `json:"beat_at" doc:"The last heartbeat."`
}

func (s *server) stats(ctx context.Context, _ *struct{}) (*body[Stats], error) {
	st, err := s.store.Stats(ctx, math.MaxInt32)
	if err != nil {
		return nil, err
	}
	total := store.Totals(st.Minutes)
	out := Stats{
		Tasks: st.Tasks, Deliveries: st.Deliveries, Paused: []string{}, Lag: quantiles(total.DetectionLag), Latency: quantiles(total.Latency),
		Verdict: wireVerdict(&st), Queues: wireAll(st.Jobs, wireQueue), Rates: wireAll(st.Minutes, wireRates),
		Accounts:  wireAll(st.Accounts, func(a *store.Account) Account { return wireAccount(a, st.Backlogs) }),
		Instances: wireAll(st.Instances, wireInstance),
	}
	for what, queues := range store.Pausable {
		if slices.ContainsFunc(queues, func(queue string) bool { return !st.Paused[queue].IsZero() }) {
			out.Paused = append(out.Paused, what)
		}
	}
	slices.Sort(out.Paused)
	return &body[Stats]{out}, nil
}

func wireQueue(q *store.QueueDepth) Queue {
	return Queue{Name: q.Queue, State: q.State, Count: q.Count, OldestSeconds: q.OldestSecs}
}

func wireRates(m *store.Minute) Rates {
	return Rates{
		Minute: wireTime(m.Minute), Registrations: m.Registrations, Polls: m.Polls, Deliveries: m.Deliveries, FailedAttempts: m.FailedAttempts,
	}
}

func wireInstance(in *store.Instance) Instance {
	return Instance{ID: in.ID, Name: in.Name, Version: in.Version, StartedAt: wireTime(in.StartedAt), BeatAt: wireTime(in.BeatAt)}
}

func wireVerdict(st *store.Stats) Verdict {
	v := verdict.Of(st, time.Now())
	out := Verdict{
		OK: len(v.Findings) == 0, Findings: make([]Finding, len(v.Findings)), OldestUndelivered: v.Oldest.Seconds(),
		Retrying: v.Retrying, Parked: v.Parked, FailingEndpoints: st.Failing, FailedShare: v.FailedShare,
	}
	for i, f := range v.Findings {
		out.Findings[i] = Finding{Code: f.Code, Severity: "warning", Text: f.Text, Link: f.Link}
		if f.Bad {
			out.Findings[i].Severity = "critical"
		}
	}
	return out
}

func (s *server) setPaused(queues []string, paused bool) func(context.Context, *struct{}) (*struct{}, error) {
	return func(ctx context.Context, _ *struct{}) (*struct{}, error) {
		return nil, s.store.PauseQueues(ctx, queues, paused)
	}
}

func quantiles(h store.Histogram) Quantiles {
	at := func(q float64) *float64 {
		d, ok := h.Quantile(q)
		if !ok {
			return nil
		}
		return new(d.Seconds())
	}
	return Quantiles{at(0.5), at(0.95), at(0.99)}
}
