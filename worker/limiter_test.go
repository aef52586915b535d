package worker

import (
	"context"
	"fmt"
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
	all := newLimiters(nil, 1, slog.New(slog.DiscardHandler))
	lim := all.of(uuid.New())
	all.placeAt(lim, uuid.New(), "https://a.example/")
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
		lim.finish(store.AttemptResult{Duration: 10 * quickMean, ResponseStatus: new(200)})
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
		if all := lim.all; all.inFlight != 0 || all.waiting != 0 || lim.window.inFlight != 0 {
			t.Errorf("%d in flight, %d waiting, want none", all.inFlight, all.waiting)
		}
	})
}

// attemptsOf takes as many places at new endpoints of an app as there are, up to most, one for each host.
func attemptsOf(all *limiters, app uuid.UUID, most int) (taken []*limiter) {
	for i := range most {
		lim := all.of(uuid.New())
		all.placeAt(lim, app, fmt.Sprintf("https://h%d.example/", i))
		if !all.take(lim, time.Now()) {
			break
		}
		taken = append(taken, lim)
	}
	return taken
}

func TestAnAppsHangingHostsLeaveRoomForOthers(t *testing.T) {
	t.Parallel()
	all := newLimiters(nil, 1000, slog.New(slog.DiscardHandler))
	bad, good := uuid.New(), uuid.New()
	healthy := all.of(uuid.New())
	all.placeAt(healthy, bad, "https://healthy.example/")
	if !all.take(healthy, time.Now()) {
		t.Fatal("an app that is alone has no place")
	}
	healthy.finish(store.AttemptResult{Duration: time.Millisecond, Delivered: true, ResponseStatus: new(200)})

	// Alone, the app has all there is: half of it for hosts that have not answered.
	if n := len(attemptsOf(all, bad, 2000)); n != 500 {
		t.Errorf("%d attempts to hosts that have not answered, want 500", n)
	}
	for i := range 20 {
		if !all.take(healthy, time.Now()) {
			t.Fatalf("the app's healthy host has %d places beside the hanging ones", i)
		}
	}
	// Another app finds its share, and a small one its floor, whatever is in flight.
	all.tick(time.Now())
	if n := len(attemptsOf(all, good, 2000)); n != 125 {
		t.Errorf("another app has %d places for new hosts, want half of a quarter", n)
	}
	for range 40 {
		app := uuid.New()
		if n := len(attemptsOf(all, app, 5)); n < appFloor {
			t.Fatalf("an app has only %d places", n)
		}
	}
}

func TestAHostThatStopsAnsweringIsNoLongerProven(t *testing.T) {
	t.Parallel()
	all := newLimiters(nil, 1000, slog.New(slog.DiscardHandler))
	lim := all.of(uuid.New())
	all.placeAt(lim, uuid.New(), "https://a.example/")
	now := time.Now()
	for range 400 { // grows while it is full
		for all.take(lim, now) {
		}
		lim.finish(store.AttemptResult{Duration: 10 * time.Millisecond, Delivered: true, ResponseStatus: new(200)})
	}
	if size := lim.window.size(); size < 200 {
		t.Errorf("the window of a quick receiver is %d", size)
	}
	for all.take(lim, now) {
	}
	held := lim.window.inFlight
	all.tick(now.Add(stalledAfter + time.Second))
	if h := lim.host; h.proven || h.app.unproven != held || h.window.size() != windowMin {
		t.Errorf("after a stall: proven %t, %d of %d unproven, window %d", h.proven, h.app.unproven, held, h.window.size())
	}
	for lim.window.inFlight > 0 {
		lim.finish(store.AttemptResult{Duration: 15 * time.Second})
	}
	if h := lim.host; h.app.unproven != 0 || all.inFlight != 0 {
		t.Errorf("%d unproven, %d in flight, want none", h.app.unproven, all.inFlight)
	}
}

func TestAWindowIsHalvedOnceARoundAndGrowsByRounds(t *testing.T) {
	t.Parallel()
	var w window
	now := time.Now()
	fill := func() {
		for w.room(1000) > 0 {
			w.inFlight++
		}
	}
	for range 200 {
		fill()
		w.finish(10*time.Millisecond, true, now)
	}
	grown := w.size()
	fill()
	now = now.Add(time.Second)
	w.finish(10*time.Millisecond, false, now)
	w.finish(10*time.Millisecond, false, now)
	if w.size() != grown/2 {
		t.Errorf("two failures of a round made %d of %d", w.size(), grown)
	}
	for w.inFlight > 0 {
		w.finish(10*time.Millisecond, true, now)
	}
	before := w.size()
	for range before {
		fill()
		w.finish(10*time.Millisecond, true, now)
	}
	if w.size() != before+1 {
		t.Errorf("a round of successes made %d of %d", w.size(), before)
	}
	for range 100 {
		fill()
		w.finish(time.Second, true, now)
		now = now.Add(2 * time.Second)
	}
	if w.size() != windowMin {
		t.Errorf("a receiver that has slowed down keeps a window of %d", w.size())
	}
}
