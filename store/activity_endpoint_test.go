package store_test

import (
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

// Every attempt is counted once: by its endpoint, by its minute and by its hour, though two instances flush at the same time.
func TestActivityCountsEachAttemptOnce(t *testing.T) {
	t.Parallel()
	b, list := announced(t, 3)
	other := storetest.On(t, b.pool, store.Config{Encode: encode})
	var wg sync.WaitGroup
	for round := range 10 {
		for i, d := range list {
			r := store.AttemptResult{DeliveryID: d.ID, EndpointID: d.EndpointID, At: time.Now(), Delivered: i > 0, Healthy: i > 0}
			for _, s := range []*store.Store{b.Store, other} {
				wg.Go(func() {
					if err := s.RecordAttempt(t.Context(), r); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		for _, s := range []*store.Store{b.Store, other} {
			wg.Go(func() {
				if err := s.FlushActivity(t.Context()); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		wg.Wait()
	}
	ids := []uuid.UUID{list[0].EndpointID, list[1].EndpointID, list[2].EndpointID}
	for _, step := range []time.Duration{5 * time.Minute, time.Hour} {
		found, err := b.EndpointActivity(t.Context(), ids, time.Now().Add(-24*time.Hour), step)
		if err != nil {
			t.Fatal(err)
		}
		for i, id := range ids {
			var good, bad int64
			for _, a := range found[id] {
				good, bad = good+a.Delivered, bad+a.Failed
				if !a.At.Equal(a.At.Truncate(step)) {
					t.Errorf("a step of %s begins at %s", step, a.At)
				}
			}
			if want := [2]int64{20 * min(1, int64(i)), 20 - 20*min(1, int64(i))}; good != want[0] || bad != want[1] {
				t.Errorf("endpoint %d: %d delivered and %d failed, want %d", i, good, bad, want)
			}
		}
	}
	for _, age := range []time.Duration{time.Hour, 7 * 24 * time.Hour} {
		minutes, err := b.Activity(t.Context(), time.Now().Add(-age).Truncate(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if sum := store.Totals(minutes); sum.Deliveries != 40 || sum.FailedAttempts != 20 {
			t.Errorf("%s: %d delivered, %d failed, want 40 and 20", age, sum.Deliveries, sum.FailedAttempts)
		}
	}
}
