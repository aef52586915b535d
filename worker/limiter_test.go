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

// fullLimiter returns a limiter with one place, which is taken.
func fullLimiter(t *testing.T) *limiter {
	t.Helper()
	lim := newLimiters(nil, 1, slog.New(slog.DiscardHandler)).of(uuid.New())
	if !lim.takePlace(t.Context()) {
		t.Fatal("an empty limiter has no place")
	}
	return lim
}

func TestAFullLimiterWaitsALittleWhereTheReceiverIsQuick(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lim := fullLimiter(t)
		time.AfterFunc(patience/2, func() { lim.finish(store.AttemptResult{Duration: time.Millisecond}) })
		if !lim.takePlace(t.Context()) {
			t.Error("a place that came free in time was not taken")
		}
		begin := time.Now()
		if lim.takePlace(t.Context()) || time.Since(begin) != patience {
			t.Errorf("gave up after %s, want %s", time.Since(begin), patience)
		}
		begin = time.Now()
		if lim.takePlace(t.Context()) || time.Since(begin) != 0 {
			t.Errorf("the next one waited %s although the first had waited in vain", time.Since(begin))
		}
		lim.finish(store.AttemptResult{})
		if !lim.takePlace(t.Context()) {
			t.Error("a place was lost to one that had given up")
		}
	})
}

func TestAFullLimiterDoesNotWaitForASlowReceiver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lim := fullLimiter(t)
		lim.finish(store.AttemptResult{Duration: 10 * quickMean})
		if !lim.takePlace(t.Context()) {
			t.Fatal("a free place was not taken")
		}
		begin := time.Now()
		if lim.takePlace(t.Context()) || time.Since(begin) != 0 {
			t.Errorf("waited %s", time.Since(begin))
		}
	})
}

func TestWhoIsStoppedWhileWaitingTakesNoPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lim := fullLimiter(t)
		ctx, cancel := context.WithTimeout(t.Context(), patience/2)
		defer cancel()
		if lim.takePlace(ctx) {
			t.Error("got a place that nobody left")
		}
		lim.finish(store.AttemptResult{})
		if lim.inFlight != 0 || len(lim.waiting) != 0 {
			t.Errorf("%d in flight, %d waiting, want none", lim.inFlight, len(lim.waiting))
		}
	})
}
