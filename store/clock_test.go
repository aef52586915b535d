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
