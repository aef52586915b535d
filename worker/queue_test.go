package worker

import (
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// traffic is what a test sends through limiters with a settable clock.
type traffic struct {
	*limiters
	app                    uuid.UUID
	begun, refused, parked int // deliveries that got their place after a wait, were parked after one, and at once
}

func newTraffic(maxInFlight int) *traffic {
	return &traffic{limiters: newLimiters(nil, maxInFlight, slog.New(slog.DiscardHandler)), app: uuid.New()}
}

// endpoint returns the limiter of a new endpoint of an app at a host of this name.
func (tr *traffic) endpoint(app uuid.UUID, host string) *limiter {
	lim := tr.of(uuid.New())
	tr.mu.Lock()
	defer tr.mu.Unlock()
	rec := &store.Receiver{}
	rec.AppID, rec.URL, rec.Enabled, rec.Breaker = app, "https://"+host+".example/", true, store.BreakerClosed
	lim.update(rec)
	return lim
}

// send sends n deliveries to the endpoint, each of which takes so long and then is delivered or fails.
func (tr *traffic) send(lim *limiter, n int, took time.Duration, answers bool) {
	for range n {
		w := &waiter{lim: lim, weight: 1}
		w.begin = func(placed bool) {
			if !placed {
				tr.refused++
				return
			}
			tr.begun++
			time.AfterFunc(took, func() {
				r := store.AttemptResult{Duration: took}
				if answers {
					r.Delivered, r.ResponseStatus = true, new(200)
				}
				lim.finish(w.weight, &r)
			})
		}
		tr.parked += len(tr.enqueue(w))
	}
}

// pass lets time pass, with the ticks of run.
func (tr *traffic) pass(d time.Duration) {
	tr.mu.Lock()
	tr.mu.Unlock() //nolint:staticcheck // tells the race detector that what was read until now was read before what follows
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(min(stallTick, time.Until(end)))
		synctest.Wait()
		tr.tick(time.Now())
	}
}

// A receiver that answers in 200 ms gets 1,000 webhooks a second within some round trips, and nothing is parked on the way.
func TestAWellReceiverSoonGetsAllItsTraffic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTraffic(1000)
		lim := tr.endpoint(tr.app, "a")
		const answer = 200 * time.Millisecond
		tr.send(lim, 1000, answer, true)
		tr.pass(5*answer + time.Millisecond)
		if size := lim.window.size(); size < 200 {
			t.Errorf("after five round trips the window is %d", size)
		}
		tr.pass(5 * answer)
		if tr.begun != 1000 || tr.parked+tr.refused > 0 {
			t.Errorf("%d were sent, %d were parked at once and %d after a wait; want all 1,000 sent", tr.begun, tr.parked, tr.refused)
		}
		tr.send(lim, 3000, answer, true)
		tr.pass(3 * time.Second)
		if tr.begun != 4000 || tr.parked+tr.refused > 0 {
			t.Errorf("of 3,000 more at once %d were sent, %d parked at once and %d after a wait", tr.begun-1000, tr.parked, tr.refused)
		}
	})
}

func TestAWindowDoesNotGrowWithoutBacklog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTraffic(1000)
		lim := tr.endpoint(tr.app, "a")
		for range 300 {
			tr.send(lim, 1, 100*time.Millisecond, true) // ten at once
			tr.pass(10 * time.Millisecond)
		}
		if lim.window.size() != windowMin {
			t.Errorf("the window is %d with at most ten in flight", lim.window.size())
		}
	})
}

// Where answers take longer the more is in flight, the window ends where they begin to.
func TestAWindowStopsWhereAnswersSlowDown(t *testing.T) {
	t.Parallel()
	var w window
	now := time.Now()
	for range 10_000 {
		for w.room(500) > 0 {
			w.inFlight++
		}
		took := max(100*time.Millisecond, time.Duration(w.inFlight)*time.Millisecond) // serves 1,000 a second
		now = now.Add(took / time.Duration(w.inFlight))
		w.adapt(took, true, now)
		w.inFlight--
	}
	if size := w.size(); size < 100 || size > 200 {
		t.Errorf("the window is %d, want a little more than 100", size)
	}
	for range 200 {
		w.inFlight = w.size() / 2
		w.adapt(100*time.Millisecond, true, now)
	}
	before := w.size()
	w.adapt(3*time.Second, true, now.Add(time.Second))
	if w.size() < before {
		t.Errorf("a single slow answer makes %d of %d", w.size(), before)
	}
}

// A good receiver has every hundredth answer take seconds: its window grows all the same.
func TestAWindowGrowsBesideASlowTail(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2)) // the same durations each time
	var w window
	type answer struct {
		at   time.Time
		took time.Duration
	}
	var flying []answer
	start := time.Now()
	for now := start; w.size() < 500; {
		for w.room(500) > 0 {
			took := time.Duration(float64(100*time.Millisecond) * math.Exp(0.5*random.NormFloat64()))
			if random.IntN(100) == 0 {
				took = 2*time.Second + time.Duration(random.Int64N(int64(2*time.Second)))
			}
			flying = append(flying, answer{now.Add(took), took})
			w.inFlight++
		}
		slices.SortFunc(flying, func(a, b answer) int { return a.at.Compare(b.at) })
		now = flying[0].at
		w.adapt(flying[0].took, true, now)
		w.inFlight--
		if flying = flying[1:]; now.Sub(start) > time.Minute {
			t.Fatalf("after a minute the window is %d", w.size())
		}
	}
}

// What waits for a host that stops answering is parked, soon after it is known; then everything is parked at once.
func TestWhoWaitsForAHostThatHangsIsParked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTraffic(1000)
		lim := tr.endpoint(tr.app, "a")
		tr.send(lim, 100, time.Millisecond, true)
		tr.pass(time.Second)
		begun := tr.begun
		tr.send(lim, 500, 15*time.Second, false)
		size := lim.window.size()
		tr.pass(stalledAfter + 2*stallTick + tryFor)
		if tr.begun-begun > size || tr.refused != 500-size || lim.host.app.waiting != 0 {
			t.Errorf("with a window of %d, %d were sent, %d parked after a wait, %d wait", size, tr.begun-begun, tr.refused, lim.host.app.waiting)
		}
		tr.send(lim, 50, 15*time.Second, false)
		if tr.parked != 50 {
			t.Errorf("%d of the next 50 were parked at once", tr.parked)
		}
		tr.pass(20 * time.Second)
		if tr.inFlight != 0 || lim.host.app.inFlight != 0 || lim.host.app.unproven != 0 || lim.host.weight != 0 || len(lim.host.app.queues) != 0 {
			t.Error("something is still counted")
		}
	})
}

// A host that never answered keeps nobody for longer than the first answers of a burst take.
func TestNewHostsKeepNobodyWaitingForLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTraffic(1000)
		lim := tr.endpoint(tr.app, "a")
		tr.send(lim, 500, 15*time.Second, false)
		if tr.begun != windowMin || tr.parked != 0 {
			t.Errorf("%d are in flight, %d were parked", tr.begun, tr.parked)
		}
		tr.pass(tryFor + stallTick)
		if tr.refused != 500-windowMin {
			t.Errorf("after %s %d were parked", tryFor+stallTick, tr.refused)
		}
	})
}

// What waits is bounded by app, and an endpoint of which none waits still finds room beside one that has filled it.
func TestWhatWaitsIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTraffic(100)
		lim := tr.endpoint(tr.app, "a")
		tr.send(lim, 40, time.Millisecond, true)
		tr.pass(time.Second)
		begun := tr.begun
		tr.send(lim, 1000, 20*time.Millisecond, true)
		if n := lim.host.app.waiting; n != waitShares*100 {
			t.Errorf("%d wait, want %d", n, waitShares*100)
		}
		if tr.parked != 1000-waitShares*100-(tr.begun-begun) {
			t.Errorf("%d were parked", tr.parked)
		}
		other := tr.endpoint(tr.app, "b")
		tr.send(other, 1, time.Millisecond, true)
		tr.send(tr.endpoint(uuid.New(), "c"), 1, time.Millisecond, true)
		before := tr.begun
		tr.pass(25 * time.Millisecond)
		if other.host.window.base == 0 || tr.begun == before {
			t.Error("the other endpoint has got nothing")
		}
		tr.pass(5 * time.Second)
		if lim.host.app.waiting != 0 || tr.inFlight != 0 {
			t.Errorf("%d still wait, %d are in flight", lim.host.app.waiting, tr.inFlight)
		}
	})
}

// Endpoints that wait at their app's bound get places in turn, however many deliveries each of them has.
func TestPlacesGoRoundByEndpoint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTraffic(20)
		var lims []*limiter
		for i := range 10 {
			lim := tr.endpoint(tr.app, fmt.Sprint("h", i))
			tr.send(lim, 1, time.Millisecond, true)
			tr.pass(5 * time.Millisecond)
			lims = append(lims, lim)
		}
		for _, lim := range lims[:2] { // take all that the app may have
			tr.send(lim, 50, 50*time.Millisecond, true)
		}
		begun := make([]int, 10)
		for i, lim := range lims[2:] {
			for range 3 + 3*(i%2) {
				tr.enqueue(&waiter{lim: lim, weight: 1, begin: func(bool) { begun[i]++ }})
			}
		}
		tr.pass(51 * time.Millisecond)
		for i, n := range begun[:8] {
			if n < 1 || n > 3 {
				t.Errorf("endpoint %d has %d attempts of %v", i+2, n, begun)
			}
		}
	})
}

// While a receiver asks to be left alone nothing that waited for it is sent.
func TestWhoWaitsForAHeldEndpointIsParked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := newTraffic(1000)
		lim := tr.endpoint(tr.app, "a")
		tr.send(lim, 100, 50*time.Millisecond, true)
		held := *lim.receiver
		held.HoldUntil = new(time.Now().Add(time.Minute))
		tr.mu.Lock()
		lim.update(&held)
		tr.mu.Unlock()
		if tr.begun != windowMin || tr.refused != 100-windowMin {
			t.Errorf("%d are in flight, %d were parked", tr.begun, tr.refused)
		}
		// The probe of a breaker is released although its endpoint is held.
		tr.send(lim, 1, time.Second, true)
		probe := &waiter{lim: lim, weight: 1, released: true, begin: func(bool) {}}
		if tr.parked != 1 || len(tr.enqueue(probe)) != 0 {
			t.Errorf("%d were parked, and so was the probe", tr.parked)
		}
		tr.mu.Lock()
		lim.update(&held)
		tr.mu.Unlock()
		if lim.host.app.waiting != 1 {
			t.Error("the probe does not wait any more")
		}
	})
}

// An attempt with a large payload counts as many, so that what is in flight is bounded in bytes.
func TestWhatIsInFlightIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	tr := newTraffic(1000)
	d := &store.Delivery{PayloadBytes: 1 << 20}
	weight, n := weightOf(d), 0
	now := time.Now()
	for i := range 100 {
		if tr.take(tr.endpoint(tr.app, fmt.Sprint("h", i)), weight, now) {
			n++
		}
		now = now.Add(stallTick)
		tr.tick(now)
	}
	if bytes := n << 20; bytes > 1001*weightBytes+1<<20 || n < 10 {
		t.Errorf("%d attempts with a MiB each", n)
	}
	other := uuid.New()
	for n = 0; tr.take(tr.endpoint(other, fmt.Sprint("o", n)), weight, time.Now()); n++ {
	}
	if n != appFloor {
		t.Errorf("another app has %d of them, want %d", n, appFloor)
	}
}
