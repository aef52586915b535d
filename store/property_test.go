package store_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"

	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

// schedule is one random history of an account: registrations, answers, faults, kills, the passing of time.
type schedule struct {
	t     *testing.T
	store *store.Store
	rand  *rand.Rand
	now   *time.Time
	app   store.App

	tasks   []uuid.UUID
	shifts  []*store.Lease
	granted int
}

func (c *schedule) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *schedule) step() {
	ctx := c.t.Context()
	*c.now = c.now.Add(time.Duration(c.rand.Int64N(int64(4 * time.Minute))))
	switch k := c.rand.IntN(10); {
	case k < 2 || len(c.tasks) == 0:
		n := store.Registration{
			AppID: c.app.ID, UpstreamID: fmt.Sprintf("task-%d", c.rand.IntN(3)), UniqueID: "default", CallbackURL: "https://a.example/",
			Until: []string{store.UntilDownloaded, store.UntilIndexed}[c.rand.IntN(2)], ExpiresIn: time.Until(c.now.Add(time.Duration(c.rand.Int64N(int64(time.Hour))))),
		}
		if c.rand.IntN(2) == 0 {
			n.ExpectedVideos = new(1 + c.rand.IntN(3))
		}
		r, err := c.store.RegisterTask(ctx, n)
		c.must(err)
		if !slices.Contains(c.tasks, r.Task.ID) {
			c.tasks = append(c.tasks, r.Task.ID)
		}
	case k < 7:
		c.poll(c.tasks[c.rand.IntN(len(c.tasks))])
	case k < 8: // a kill: another shift takes over, and the old one gets nothing more
		sh, err := c.store.AcquireLease(ctx, c.app.AccountID)
		c.must(err)
		c.shifts = append(c.shifts, sh)
	case k < 9 && len(c.shifts) > 0:
		i := c.rand.IntN(len(c.shifts))
		slot, err := c.store.TakeSlot(ctx, store.SlotRequest{Account: c.app.AccountID, Lease: c.shifts[i].ID, Any: true})
		c.must(err)
		if slot.Lost != (i != len(c.shifts)-1) || (slot.Lost && slot.Granted) {
			c.t.Fatalf("shift %d of %d got %+v", i, len(c.shifts), slot)
		}
		if slot.Granted {
			c.granted++
		}
	default:
		_, _, err := c.store.ExpireTasks(ctx, time.Time{}, 100)
		c.must(err)
	}
}

func (c *schedule) poll(task uuid.UUID) {
	p := store.Poll{TaskID: task, At: *c.now, NextPollAt: *c.now}
	switch c.rand.IntN(6) {
	case 0:
		p.Refusal = &store.TaskError{Code: "0003", Message: "no"}
	case 1:
		p.Fault = &store.TaskError{Code: "unavailable", Message: "down"}
	default: // any part of the list, in any order
		for _, k := range c.rand.Perm(4)[:c.rand.IntN(5)] {
			v := store.Video{ID: fmt.Sprintf("PI-%d", k)}
			if c.rand.IntN(2) == 0 {
				v.Status = new([]string{"UNPARSE", "PARSE", "FAILED"}[c.rand.IntN(3)])
			}
			p.Videos = append(p.Videos, v)
		}
	}
	_, err := c.store.RecordPoll(c.t.Context(), p)
	c.must(err)
}

// check judges what subscribers were told of one task.
func (c *schedule) check(seed uint64, id uuid.UUID) {
	c.t.Helper()
	task, err := c.store.Task(c.t.Context(), store.Everything(), id)
	c.must(err)
	events, _, err := c.store.TaskEvents(c.t.Context(), id, uuid.Nil, 10_000)
	c.must(err)
	var told []string
	count := make(map[string]int)
	for _, ev := range events {
		count[ev.Type]++
		var payload struct{ IDs []string }
		c.must(json.Unmarshal([]byte(ev.Payload), &payload))
		if len(payload.IDs) < len(told) || !slices.Equal(payload.IDs[:len(told)], told) {
			c.t.Fatalf("seed %d: %s tells %v after %v", seed, ev.Type, payload.IDs, told)
		}
		if ev.Type == store.EventReady && len(payload.IDs) == 0 {
			c.t.Fatalf("seed %d: ready without videos", seed)
		}
		if ev.Type == store.EventUpdated && (count[store.EventReady] == 0 || len(payload.IDs) == len(told)) {
			c.t.Fatalf("seed %d: updated with nothing new, or before ready", seed)
		}
		told = payload.IDs
	}
	reached := task.Status == store.TaskReady
	final := count[store.EventFailed] + count[store.EventExpired]
	if task.Until == store.UntilIndexed {
		reached = count[store.EventIndexed] == 1
	}
	if task.Polling || count[store.EventReady] > 1 || count[store.EventIndexed] > 1 || (reached && final != 0) || (!reached && final != 1) {
		c.t.Fatalf("seed %d: %s, until %s: %v", seed, task.Status, task.Until, count)
	}
}

// Whatever happens in whatever order: no budget is exceeded, every task ends in exactly one final event
// for its kind, nothing is told twice or taken back, and task.ready is never without ids.
func TestRandomSchedules(t *testing.T) {
	t.Parallel()
	const cases, rps = 1000, 100
	now := time.Now()
	s := storetest.New(t, store.Config{
		Now: func() time.Time { return now },
		Encode: func(ev store.Event) ([]byte, error) {
			ids := make([]string, len(ev.Task.Videos))
			for i, v := range ev.Task.Videos {
				ids[i] = v.ID
			}
			return json.Marshal(map[string][]string{"IDs": ids})
		},
	})
	for seed := range uint64(cases) {
		now = time.Now()
		c := &schedule{t: t, store: s, rand: rand.New(rand.NewPCG(seed, 3)), now: &now}
		account, err := s.CreateAccount(t.Context(), store.NewAccount{Name: fmt.Sprintf("account-%d", seed), APIKey: fmt.Sprintf("key-%d", seed), RequestsPerSecond: rps})
		c.must(err)
		c.app, err = s.CreateApp(t.Context(), fmt.Sprintf("app-%d", seed), account.ID)
		c.must(err)
		began := time.Now()
		for range 5 + c.rand.IntN(15) {
			c.step()
		}
		if most := rps*(time.Since(began).Seconds()+0.2) + 1; float64(c.granted) > most {
			t.Fatalf("seed %d: %d slots, at most %.0f fit", seed, c.granted, most)
		}
		now = now.Add(48 * time.Hour) // everything expires in the end
		_, _, err = s.ExpireTasks(t.Context(), time.Time{}, 1000)
		c.must(err)
		for _, id := range c.tasks {
			c.check(seed, id)
		}
	}
}
