package store_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

// A patient call that has waited for a batch under way as long as it may does not wait once more.
func TestAPatientCallWaitsOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const linger = time.Second
		g := store.NewBatcher(20, linger, func(_ context.Context, in []int) ([]int, error) {
			time.Sleep(linger)
			return in, nil
		}).Patient()
		ask := func(i int, most time.Duration) {
			begun := time.Now()
			if got, err := g.Do(t.Context(), i); err != nil || got != i {
				t.Errorf("%d: %d, %v", i, got, err)
			}
			if took := time.Since(begun); took > most {
				t.Errorf("call %d took %s, want at most %s", i, took, most)
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() { ask(1, 2*linger) })
		time.Sleep(linger + time.Millisecond) // its batch is under way
		wg.Go(func() { ask(2, 2*linger) })
		wg.Wait()
	})
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
