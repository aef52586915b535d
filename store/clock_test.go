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
