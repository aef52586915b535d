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
	dead, alive := store.Instance{ID: uuid.New(), Name: "dead", StartedAt: time.Now()}, store.Instance{ID: uuid.New(), Name: "alive", StartedAt: time.Now()}
	if err := b.Heartbeat(t.Context(), dead); err != nil {
		t.Fatal(err)
	}
	execAll(t, connectTo(t, b.pool.Config().ConnString()), `update accounts set next_slot_at = now() + interval '1 hour'`, `update instances set beat_at = now() + interval '1 hour'`)
	if _, err := storetest.On(t, b.pool, store.Config{Encode: encode}).RegisterInstance(t.Context(), alive); err != nil {
		t.Fatal(err)
	}
	if n := b.count(`select count(*) from instances where beat_at > now() + interval '1 second'`); n != 0 {
		t.Errorf("%d instances beat in the future", n)
	}
	if _, wait, err := b.ReserveSlot(t.Context(), b.account.ID); err != nil || wait > time.Second {
		t.Errorf("the next slot is %s away, %v", wait, err)
	}
}
