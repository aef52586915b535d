package worker

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// attemptsOf takes as many places at new endpoints of an app as there are, up to most, one for each host.
func attemptsOf(all *limiters, app uuid.UUID, most int) (taken []*limiter) {
	for i := range most {
		lim := all.of(uuid.New())
		all.placeAt(lim, app, fmt.Sprintf("https://h%d.example/", i))
		if !all.take(lim, 1, time.Now()) {
			break
		}
		taken = append(taken, lim)
	}
	return taken
}

// of returns the endpoint's limiter.
func (l *limiters) of(endpoint uuid.UUID) *limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.find(endpoint)
}

func TestAnAppsHangingHostsLeaveRoomForOthers(t *testing.T) {
	t.Parallel()
	all := newLimiters(nil, 1000, slog.New(slog.DiscardHandler))
	bad, good := uuid.New(), uuid.New()
	healthy := all.of(uuid.New())
	all.placeAt(healthy, bad, "https://healthy.example/")
	if !all.take(healthy, 1, time.Now()) {
		t.Fatal("an app that is alone has no place")
	}
	healthy.finish(1, &store.AttemptResult{Duration: time.Millisecond, Delivered: true, ResponseStatus: new(200)})

	// Alone, the app has all there is.
	now, hanging := time.Now(), 0
	for range 8 { // little by little
		n := len(attemptsOf(all, bad, 2000))
		if hanging += n; n > 125 {
			t.Fatalf("%d attempts begin at once", n)
		}
		now = now.Add(stallTick)
		all.tick(now)
	}
	if hanging != 1000 {
		t.Errorf("%d attempts to hosts that have not answered, want 1,000", hanging)
	}
	for i := range 20 {
		if !all.take(healthy, 1, time.Now()) {
			t.Fatalf("the app's healthy host has %d places beside the hanging ones", i)
		}
	}
	// Another app finds its share, and a small one its floor, whatever is in flight.
	if n := len(attemptsOf(all, good, 2000)); n != 31 {
		t.Errorf("another app has %d places at once, want an eighth of a quarter", n)
	}
	served := 0
	for range 10 {
		now = now.Add(stallTick)
		all.tick(now)
		served += len(attemptsOf(all, good, 2000))
	}
	if served != 250-31 {
		t.Errorf("another app has %d more places, want a quarter in all", served)
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
		for all.take(lim, 1, now) {
		}
		lim.finish(1, &store.AttemptResult{Duration: 10 * time.Millisecond, Delivered: true, ResponseStatus: new(200)})
	}
	if size := lim.window.size(); size < 200 {
		t.Errorf("the window of a quick receiver is %d", size)
	}
	for all.take(lim, 1, now) {
	}
	held := lim.window.inFlight
	all.tick(now.Add(stalledAfter + time.Second))
	if h := lim.host; h.proven || h.app.unproven != held || h.window.size() != windowMin {
		t.Errorf("after a stall: proven %t, %d of %d unproven, window %d", h.proven, h.app.unproven, held, h.window.size())
	}
	for lim.window.inFlight > 0 {
		lim.finish(1, &store.AttemptResult{Duration: 15 * time.Second})
	}
	if h := lim.host; h.app.unproven != 0 || all.inFlight != 0 {
		t.Errorf("%d unproven, %d in flight, want none", h.app.unproven, all.inFlight)
	}
}

// The endpoints of a host share its limiter and their app's, whenever they were placed at it, until none has used it for long.
func TestEndpointsOfAHostShareItsLimiter(t *testing.T) {
	t.Parallel()
	all := newLimiters(nil, 1000, slog.New(slog.DiscardHandler))
	app, now := uuid.New(), time.Now()
	first, second := all.of(uuid.New()), all.of(uuid.New())
	all.placeAt(first, app, "https://a.example/1")
	all.tick(now.Add(2 * stallTick)) // before the first attempt
	all.placeAt(second, app, "https://a.example/2")
	if first.host != second.host || all.apps[app] != first.host.app || first.host.app.hosts["https://a.example"] != first.host {
		t.Error("two endpoints of a host have a limiter each")
	}
	if !all.take(first, 1, now) {
		t.Fatal("no place")
	}
	all.tick(now.Add(2 * limiterIdle))
	if all.apps[app] == nil || all.apps[app].attempts != 1 {
		t.Error("a host with an attempt in flight was dropped")
	}
	first.finish(1, nil)
	all.tick(now.Add(2 * limiterIdle))
	if len(all.apps) != 0 {
		t.Error("an idle app is kept")
	}
}

// A host that was busy for so long that it was not placed meanwhile keeps its limiter in the first moment without an attempt: the
// next one takes its place there before the endpoint is read again.
func TestABusyHostKeepsItsLimiterInAPause(t *testing.T) {
	t.Parallel()
	all := newLimiters(nil, 1000, slog.New(slog.DiscardHandler))
	app, lim := uuid.New(), all.of(uuid.New())
	all.placeAt(lim, app, "https://a.example/")
	if !all.take(lim, 1, time.Now()) {
		t.Fatal("no place")
	}
	lim.host.usedAt = time.Now().Add(-2 * limiterIdle) // it was placed long ago, and has been busy since
	lim.finish(1, nil)
	all.tick(time.Now().Add(stallTick))
	if all.apps[app] != lim.host.app || lim.host.app.hosts["https://a.example"] != lim.host {
		t.Error("a busy host lost its limiter in a pause")
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
	end := func(took time.Duration, ok bool) {
		w.adapt(took, ok, now)
		w.inFlight--
	}
	for range 200 {
		fill()
		end(10*time.Millisecond, true)
	}
	grown := w.size()
	fill()
	now = now.Add(time.Second)
	end(10*time.Millisecond, false)
	end(10*time.Millisecond, false)
	if w.size() != grown/2 {
		t.Errorf("two failures of a round made %d of %d", w.size(), grown)
	}
	for w.inFlight > 0 {
		end(10*time.Millisecond, true)
	}
	before := w.size()
	for range before {
		fill()
		end(10*time.Millisecond, true)
	}
	if w.size() != before+1 {
		t.Errorf("a round of successes made %d of %d", w.size(), before)
	}
	for range 100 {
		fill()
		end(time.Second, true)
		now = now.Add(2 * time.Second)
	}
	if w.size() != windowMin {
		t.Errorf("a receiver that has slowed down keeps a window of %d", w.size())
	}
}
