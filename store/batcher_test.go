package store_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/memhook/memhook/store"
)

// A registration that cannot be stored, for whatever reason of its own, fails alone.
func TestGroupKeepsNeighboursFromBadRows(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 8000)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*store.Registration){
		"a text that PostgreSQL does not store": func(r *store.Registration) { r.UpstreamID = "a\x00b" },
		"a number that the driver cannot write": func(r *store.Registration) { r.ExpectedVideos = new(1 << 40) },
		"a key that is too long for an index":   func(r *store.Registration) { r.UpstreamID = hex.EncodeToString(noise) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t)
			var wg sync.WaitGroup
			for i := range 50 {
				wg.Go(func() {
					n := b.task(fmt.Sprintf("task-%d", i), "https://a.example/")
					if i == 7 {
						spoil(&n)
					}
					if _, err := b.RegisterTask(context.Background(), n); (err != nil) != (i == 7) {
						t.Errorf("task %d: %v", i, err)
					}
				})
			}
			wg.Wait()
		})
	}
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
