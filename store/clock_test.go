package store_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

// An instance knows by its heartbeats how far its clock is from the database's.
func TestClockSkew(t *testing.T) {
	t.Parallel()
	var off time.Duration
	s := storetest.New(t, store.Config{Encode: encode, Now: func() time.Time { return time.Now().Add(off) }})
	in := store.Instance{ID: uuid.New(), Name: "a", StartedAt: time.Now()}
	for _, off = range []time.Duration{0, 25 * time.Hour, -10 * time.Second, 0} {
		if err := s.Heartbeat(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		if got := s.ClockSkew(); (got - off).Abs() > time.Second {
			t.Errorf("%s off: %s measured", off, got)
		}
	}
}

// When the database's clock steps back, the next slot is not as far away as the step, and an instance that died before it is
// found dead. What the clock wrote before is written here: a step itself would take the machine's clock.
func TestTheDatabasesClockStepsBack(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	dead := store.Instance{ID: uuid.New(), Name: "dead", StartedAt: time.Now()}
	alive := store.Instance{ID: uuid.New(), Name: "alive", StartedAt: time.Now()}
	if err := b.Heartbeat(t.Context(), dead); err != nil {
		t.Fatal(err)
	}
	b.upload("https://example.com/1")
	execAll(t, connectTo(t, b.pool.Config().ConnString()),
		`update accounts set next_slot_at = now() + interval '1 hour', next_upload_at = now() + interval '1 hour'`,
		`update uploads set next_attempt_at = now() + interval '1 hour'`,
		`update instances set beat_at = now() + interval '1 hour'`)
	if _, err := storetest.On(t, b.pool, store.Config{Encode: encode}).RegisterInstance(t.Context(), alive); err != nil {
		t.Fatal(err)
	}
	if n := b.count(`select count(*) from instances where beat_at > now() + interval '1 second'`); n != 0 {
		t.Errorf("%d instances beat in the future", n)
	}
	if _, wait, err := b.ReserveSlot(t.Context(), b.account.ID); err != nil || wait > time.Second {
		t.Errorf("the next slot is %s away, %v", wait, err)
	}
	if next := b.take(b.uploadLease()); next.Wait > time.Minute { // an interval of the budget
		t.Errorf("the next submission is %s away", next.Wait)
	}
}

// What an instance whose clock is an hour ahead queues or puts off is due by the database's clock.
func TestUploadsAreDueByTheDatabasesClock(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	ahead := &bundle{t: t, pool: b.pool, account: b.account, app: b.app}
	ahead.Store = storetest.On(t, b.pool, store.Config{Encode: encode, Now: func() time.Time { return time.Now().Add(time.Hour) }})
	u := ahead.upload("https://example.com/1")
	l := b.uploadLease()
	if next := b.take(l); next.Upload.ID != u.ID {
		t.Errorf("queued by one that is ahead: %+v", next)
	}
	again := store.UploadResult{Status: store.UploadQueued, Error: &store.TaskError{Code: "0429"}, RetryIn: 2 * time.Minute}
	if err := b.RecordUpload(t.Context(), l, u.ID, again); err != nil {
		t.Fatal(err)
	}
	if next := ahead.take(l); next.Wait < time.Minute {
		t.Errorf("the one that is ahead sends it at once: %+v", next)
	}
}

// off returns the bundle as an instance sees it whose clock is off by so much, and has noticed it.
func (b *bundle) off(by time.Duration) *bundle {
	b.t.Helper()
	other := &bundle{t: b.t, pool: b.pool, account: b.account, app: b.app}
	other.Store = storetest.On(b.t, b.pool, store.Config{Encode: encode, Now: func() time.Time { return time.Now().Add(by) }})
	if err := other.Heartbeat(b.t.Context(), store.Instance{ID: uuid.New(), Name: "off", StartedAt: time.Now()}); err != nil {
		b.t.Fatal(err)
	}
	return other
}

// A difference between the clocks that every network has is no error; one that is too large is, to the second.
func TestClockError(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for by, want := range map[time.Duration]time.Duration{
		0: 0, 3 * time.Second: 0, -3 * time.Second: 0, 25 * time.Hour: 25 * time.Hour, -745 * time.Hour: -745 * time.Hour,
	} {
		if got := b.off(by).ClockError(); got != want {
			t.Errorf("%s off: %s", by, got)
		}
	}
}

// Whatever the clocks of instances show, a task expires when its time is over by the database's clock.
func TestTasksExpireByTheDatabasesClock(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for by, name := range map[time.Duration]string{25 * time.Hour: "ahead", -25 * time.Hour: "behind"} {
		other := b.off(by)
		began := time.Now().Add(-time.Second)
		task := other.register(name, "https://a.example/").Task // for an hour
		for what, times := range map[string][2]time.Time{
			"registered": {task.CreatedAt, began}, "due": {*task.NextPollAt, began}, "expires": {task.ExpiresAt, began.Add(time.Hour)},
		} {
			if late := times[0].Sub(times[1]); late < 0 || late > time.Minute {
				t.Errorf("%s: %s at %s", name, what, times[0])
			}
		}
		read, err := b.Task(t.Context(), store.OfApp(b.app.ID), task.ID)
		if err != nil || !read.CreatedAt.Equal(task.CreatedAt) || !read.ExpiresAt.Equal(task.ExpiresAt) || !read.NextPollAt.Equal(*task.NextPollAt) {
			t.Errorf("%s: answered %+v, stored %+v, %v", name, task, read, err)
		}
		polled, err := other.RecordPoll(t.Context(), store.Poll{TaskID: task.ID, At: time.Now()})
		if err != nil || polled.Target.Status != store.TaskWaiting || !polled.Polling {
			t.Errorf("%s: an empty answer within the hour: %+v, %v", name, polled, err)
		}
		if _, err := b.pool.Exec(t.Context(), `update tasks set expires_at = now() where id = $1`, task.ID); err != nil {
			t.Fatal(err)
		}
		polled, err = other.RecordPoll(t.Context(), store.Poll{TaskID: task.ID, At: time.Now()})
		if err != nil || polled.Target.Status != store.TaskExpired {
			t.Errorf("%s: an empty answer after the hour: %+v, %v", name, polled, err)
		}
	}
}

// Five days of failures are five days of the database's clock: an instance whose clock is six days off disables nothing, and
// does not make another do so.
func TestEndpointsAreDisabledByTheDatabasesClock(t *testing.T) {
	t.Parallel()
	const six = 6 * 24 * time.Hour
	for _, offs := range [][2]time.Duration{{0, six}, {-six, 0}, {-six, six}} {
		b := newBundle(t)
		first, second := b.register("first", "https://a.example/").Task, b.register("second", "https://a.example/").Task
		b.ready(first.ID, "PI-1")
		b.ready(second.ID, "PI-2")
		deliveries, err := b.Deliveries(t.Context(), store.DeliveryFilter{Scope: store.OfApp(b.app.ID)}, store.Page{Limit: 10})
		if err != nil || len(deliveries) != 2 {
			t.Fatalf("%+v, %v", deliveries, err)
		}
		for i, by := range offs {
			at := time.Now().Add(by)
			r := store.AttemptResult{DeliveryID: deliveries[i].ID, EndpointID: deliveries[i].EndpointID, At: at, NextAttemptAt: &at}
			if err := b.off(by).RecordAttempt(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		if n := b.count(`select count(*) from endpoints where enabled and failing_since between now() - interval '1 minute' and now() + interval '1 minute'`); n != 1 {
			t.Errorf("%v off: the endpoint is disabled, or has been failing for days", offs)
		}
	}
}

// Instances whose clocks differ by less than what is reported keep an endpoint's rate limit together, also after the database's
// clock was set back.
func TestARateLimitIsKeptByInstancesWhoseClocksDiffer(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	at := func(off time.Duration) *store.Store {
		return storetest.On(t, b.pool, store.Config{Encode: encode, Now: func() time.Time { return time.Now().Add(off) }})
	}
	const rate, rounds = 5, 6
	for name, instances := range map[string][]*store.Store{
		"two clocks": {at(4 * time.Second), at(0), at(-4 * time.Second)},
		"set back":   {at(0)},
	} {
		endpoint := b.register("task", "https://"+uuid.NewString()+".example/").Task.Subscriptions[0].EndpointID
		b.insertDeliveries(endpoint, 100, "pending")
		b.exec(`update deliveries set parked = true, retrying = false, next_attempt_at = now() - interval '1 min' where not parked`,
			`update endpoints set rate_limit = 5, backlog = true, next_slot_at = now() + interval '1 h' where id = '`+endpoint.String()+`'`)
		start, total := time.Now(), 0
		for i := 0; i < rounds || total == 0 && time.Since(start) < 10*time.Second; i++ {
			for _, s := range instances {
				n, err := s.Release(t.Context(), []store.Room{{EndpointID: endpoint, Places: 50}})
				if err != nil {
					t.Fatal(err)
				}
				total += n[endpoint]
			}
		}
		if most := rate * (1 + time.Since(start).Seconds()); total == 0 || float64(total) > most {
			t.Errorf("%s: %d were released, want some and at most %.1f", name, total, most)
		}
	}
}
