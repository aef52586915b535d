package worker

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// fullGate gives a gate with one place, which is taken.
func fullGate(t *testing.T) *gate {
	t.Helper()
	gt := newGates(nil, 1, slog.New(slog.DiscardHandler)).of(uuid.New())
	if !gt.acquire(t.Context()) {
		t.Fatal("an empty gate has no place")
	}
	return gt
}

func TestAFullGateWaitsALittleWhereTheReceiverIsQuick(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gt := fullGate(t)
		time.AfterFunc(patience/2, func() { gt.leave(store.AttemptResult{Duration: time.Millisecond}) })
		if !gt.acquire(t.Context()) {
			t.Error("a place that came free in time was not taken")
		}
		begin := time.Now()
		if gt.acquire(t.Context()) || time.Since(begin) != patience {
			t.Errorf("gave up after %s, want %s", time.Since(begin), patience)
		}
		begin = time.Now()
		if gt.acquire(t.Context()) || time.Since(begin) != 0 {
			t.Errorf("the next one waited %s although the first had waited in vain", time.Since(begin))
		}
		gt.leave(store.AttemptResult{})
		if !gt.acquire(t.Context()) {
			t.Error("a place was lost to one that had given up")
		}
	})
}

func TestAFullGateDoesNotWaitForASlowReceiver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gt := fullGate(t)
		gt.leave(store.AttemptResult{Duration: 10 * quick})
		if !gt.acquire(t.Context()) {
			t.Fatal("a free place was not taken")
		}
		begin := time.Now()
		if gt.acquire(t.Context()) || time.Since(begin) != 0 {
			t.Errorf("waited %s", time.Since(begin))
		}
	})
}

func TestWhoIsStoppedWhileWaitingTakesNoPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gt := fullGate(t)
		ctx, cancel := context.WithTimeout(t.Context(), patience/2)
		defer cancel()
		if gt.acquire(ctx) {
			t.Error("got a place that nobody left")
		}
		gt.leave(store.AttemptResult{})
		if gt.inFlight != 0 || len(gt.waiting) != 0 {
			t.Errorf("%d in flight, %d waiting, want none", gt.inFlight, len(gt.waiting))
		}
	})
}
