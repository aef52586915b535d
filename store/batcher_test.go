package store_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/memhook/memhook/store"
)

func TestGroupKeepsNeighboursFromBadRows(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			n := b.task(fmt.Sprintf("task-%d", i), "https://a.example/")
			if i == 7 {
				n.UpstreamID = "a\x00b" // PostgreSQL stores no NUL
			}
			if _, err := b.RegisterTask(context.Background(), n); (err != nil) != (i == 7) {
				t.Errorf("task %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

// Calls that come one after the other share the batches of a patient batcher.
func TestPatientCallsWaitForOneAnother(t *testing.T) {
	t.Parallel()
	const calls = 20
	for patient, most := range map[bool]int64{false: calls, true: calls / 2} {
		var batches atomic.Int64
		g := store.NewBatcher(calls, time.Second, func(_ context.Context, in []int) ([]int, error) {
			batches.Add(1)
			return in, nil
		})
		if patient {
			g.Patient()
		}
		var wg sync.WaitGroup
		for i := range calls {
			wg.Go(func() {
				if got, err := g.Do(t.Context(), i); err != nil || got != i {
					t.Errorf("%d: %d, %v", i, got, err)
				}
			})
			time.Sleep(time.Millisecond)
			if !patient {
				wg.Wait()
			}
		}
		wg.Wait()
		if n := batches.Load(); n > most || (!patient && n < calls) {
			t.Errorf("patient %t: %d batches for %d calls", patient, n, calls)
		}
	}
}
