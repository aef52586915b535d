package verdict_test

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/api/verdict"
	"github.com/memhook/memhook/store"
)

func TestFindings(t *testing.T) {
	t.Parallel()
	now := time.Now()
	before := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	id := func(age time.Duration) (id uuid.UUID) {
		binary.BigEndian.PutUint64(id[:8], uint64(now.Add(-age).UnixMilli())<<16)
		return id
	}
	failing := store.Undelivered{URL: "https://a.example/", Enabled: true, Breaker: store.BreakerClosed, Failures: 2, FailingSince: before(45 * time.Second), Retrying: 1, Oldest: id(45 * time.Second)}
	fresh := failing
	fresh.Oldest = id(3 * time.Second)
	open := fresh
	open.Breaker = store.BreakerOpen
	disabled := fresh
	disabled.Enabled = false
	behind := store.Undelivered{URL: "https://a.example/", Enabled: true, Breaker: store.BreakerClosed, Parked: 7, Oldest: id(time.Minute)}
	between := failing // others were delivered in between
	between.FailingSince, between.Failures = nil, 0
	recent := between
	recent.Oldest = id(3 * time.Second)
	well := func() store.Stats { return store.Stats{Instances: []store.Instance{{}}} }
	minutes := func(delivered, failed int64) []store.Minute {
		return []store.Minute{{Minute: now.Truncate(time.Minute), Deliveries: delivered, FailedAttempts: failed}, {Minute: now.Add(-30 * time.Minute), FailedAttempts: 1000}}
	}
	for name, c := range map[string]struct {
		change func(*store.Stats)
		want   []string
		text   string
	}{
		"all is well":               {func(*store.Stats) {}, nil, ""},
		"no worker":                 {func(st *store.Stats) { st.Instances = nil }, []string{"no-instance"}, "Nothing is polled"},
		"a first failure":           {func(st *store.Stats) { st.Waiting = []store.Undelivered{fresh} }, nil, ""},
		"a failing endpoint":        {func(st *store.Stats) { st.Waiting = []store.Undelivered{failing} }, []string{"endpoint-failing"}, "https://a.example/ has failed for 45 s (2 attempts in a row). 1 webhook waits, the oldest for 45 s."},
		"an open breaker":           {func(st *store.Stats) { st.Waiting = []store.Undelivered{open} }, []string{"endpoint-failing"}, ""},
		"a disabled endpoint":       {func(st *store.Stats) { st.Waiting = []store.Undelivered{disabled} }, []string{"endpoint-disabled"}, "is disabled"},
		"one that takes too little": {func(st *store.Stats) { st.Waiting = []store.Undelivered{behind} }, []string{"endpoint-behind"}, "7 webhooks wait, the oldest for 1 min 0 s"},
		"one that refuses some":     {func(st *store.Stats) { st.Waiting = []store.Undelivered{between} }, []string{"webhooks-waiting"}, "https://a.example/ has not accepted some of its webhooks. 1 webhook waits, the oldest for 45 s."},
		"one that has refused one":  {func(st *store.Stats) { st.Waiting = []store.Undelivered{recent} }, nil, ""},
		"six of them":               {func(st *store.Stats) { st.Waiting = slices.Repeat([]store.Undelivered{failing}, 6) }, append(slices.Repeat([]string{"endpoint-failing"}, 5), "endpoints-more"), "|1 more endpoint is failing,"},
		"many of them":              {func(st *store.Stats) { st.Waiting = slices.Repeat([]store.Undelivered{failing}, 7) }, append(slices.Repeat([]string{"endpoint-failing"}, 5), "endpoints-more"), "|2 more endpoints are failing,"},
		"a forgotten pause":         {func(st *store.Stats) { st.Paused = map[string]time.Time{store.QueueDeliver: now.Add(-3 * time.Hour)} }, []string{"deliveries-paused"}, "for 3 h 0 min"},
		"many attempts fail":        {func(st *store.Stats) { st.Minutes, st.Failing = minutes(80, 20), 1 }, []string{"attempts-failing"}, "20 % of the 100 attempts"},
		"many attempts have failed": {func(st *store.Stats) { st.Minutes = minutes(80, 20) }, nil, ""},
		"few attempts fail":         {func(st *store.Stats) { st.Minutes, st.Failing = minutes(95, 5), 1 }, nil, ""},
		"too few attempts to say":   {func(st *store.Stats) { st.Minutes, st.Failing = minutes(0, 2), 1 }, nil, ""},
		"no worker takes what is due": {func(st *store.Stats) {
			st.Jobs = []store.QueueDepth{{Queue: store.QueueFirst, State: "available", Count: 1, OldestSecs: 20}}
		}, []string{"queue-late"}, ""},
		"a refused account": {func(st *store.Stats) {
			st.Waiting = []store.Undelivered{failing}
			st.Accounts = []store.Account{{Name: "a", State: store.AccountRefused, RequestsPerSecond: 1, StateReason: new("no credits")}}
		}, []string{"account-refused", "endpoint-failing"}, "no credits"},
	} {
		st := well()
		c.change(&st)
		v := verdict.Of(&st, now)
		var codes, texts []string
		for _, f := range v.Findings {
			codes, texts = append(codes, f.Code), append(texts, f.Text)
			if f.Link == "" {
				t.Errorf("%s: %s does not say where to act", name, f.Code)
			}
		}
		if !slices.Equal(codes, c.want) || !strings.Contains(strings.Join(texts, "|"), c.text) {
			t.Errorf("%s: %q %q, want %q", name, codes, texts, c.want)
		}
	}
}
