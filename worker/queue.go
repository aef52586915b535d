package worker

import (
	"slices"
	"time"

	"github.com/memhook/memhook/store"
)

// A delivery that finds no place at its limiters waits for one in memory, if its turn will probably come within waitMost;
// parking it, releasing it and loading it again costs more than the delivery itself. Its job runs meanwhile, so that a crash
// loses nothing. Places go round by endpoint among those of an app.
//
// How long a delivery will wait is known of hosts that answer: from the attempts' duration, the window and those who wait
// already. Others are given tryFor, in which the first answers may come. Whoever waits in vain is parked: when its host
// stops answering, when its endpoint is held, or when it has waited much longer than was expected.

// waiter is a delivery that wants a place.
type waiter struct {
	lim      *limiter
	delivery *store.Delivery
	weight   int
	released bool              // it was released from parking for this attempt
	held     bool              // it was released although its endpoint is held: it is a probe
	since    time.Time         // it waits
	begin    func(placed bool) // is called once, unless enqueue returns the waiter, with the mutex held: it must not block
}

// allowed reports whether an endpoint takes the delivery, apart from places. A released delivery has passed the rate limit
// and the breaker already.
func (w *waiter) allowed(rec *store.Receiver) bool {
	return rec != nil && rec.Enabled && (w.released || !rec.Holds(time.Now()) && rec.RateLimit == nil)
}

// enqueue gives each waiter its place, or lets it wait for one. It returns those that must be parked.
func (l *limiters) enqueue(waiters ...*waiter) (refused []*waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for _, w := range waiters {
		lim := w.lim
		if w.released && lim.coming > 0 {
			lim.coming--
		}
		switch {
		case !w.allowed(lim.receiver):
			refused = append(refused, w)
		case len(lim.queue) == 0 && l.take(lim, w.weight, now):
			w.begin(true)
		case l.mayWait(w, now):
			w.since = now
			if w.held = lim.receiver.Holds(now); len(lim.queue) == 0 {
				lim.host.app.queues = append(lim.host.app.queues, lim)
			}
			lim.queue = append(lim.queue, w)
			lim.host.app.waiting++
		default:
			lim.fullUntil, l.backlog = now.Add(parkAtOnce), true
			refused = append(refused, w)
		}
	}
	return refused
}

// mayWait reports whether a delivery without a place may wait for one.
func (l *limiters) mayWait(w *waiter, now time.Time) bool {
	lim, a := w.lim, w.lim.host.app
	share := l.share(a)
	switch {
	case w.released:
		return a.waiting < (waitShares+2)*share // its release has found room for it
	case now.Before(lim.fullUntil):
		return false
	case !lim.host.proven:
		return lim.window.mean <= quickMean && a.waiting < share
	case len(lim.queue) == 0:
		return a.waiting < (waitShares+1)*share // whoever has none waiting has its turn soon
	default:
		return a.waiting < waitShares*share && l.expectedWait(lim, share) <= waitMost
	}
}

// expectedWait returns how long a delivery that joins the endpoint's queue will wait.
func (l *limiters) expectedWait(lim *limiter, share int) time.Duration {
	window := lim.window.size()
	if !lim.window.cut {
		window = share / 2 // it will grow
	}
	window = max(1, min(window, share/max(1, len(lim.host.app.queues))))
	return lim.window.mean * time.Duration(len(lim.queue)+1) / time.Duration(window)
}

// serve gives places to waiting deliveries of an app, round by endpoint; those of the endpoint whose place was given back
// are asked even if there are too many others to look at.
func (l *limiters) serve(a *appLimiter, last *limiter, now time.Time) {
	for missed := 0; missed < min(serveMost, len(a.queues)); missed++ {
		a.next++
		if a.next >= len(a.queues) {
			a.next = 0
		}
		if l.serveFirst(a.queues[a.next], now) {
			missed = -1
		}
	}
	for last != nil && len(last.queue) > 0 && l.serveFirst(last, now) {
	}
}

// serveFirst gives the endpoint's first waiting delivery a place if there is one.
func (l *limiters) serveFirst(lim *limiter, now time.Time) bool {
	w := lim.queue[0]
	if !l.take(lim, w.weight, now) {
		return false
	}
	lim.dequeue(0)
	w.begin(true)
	return true
}

// dequeue takes the i-th delivery off the endpoint's queue.
func (l *limiter) dequeue(i int) {
	if i == 0 {
		l.queue[0] = nil
		l.queue = l.queue[1:]
	} else {
		l.queue = slices.Delete(l.queue, i, i+1)
	}
	a := l.host.app
	a.waiting--
	if len(l.queue) == 0 {
		l.queue = nil
		k, last := slices.Index(a.queues, l), len(a.queues)-1
		a.queues[k], a.queues[last] = a.queues[last], nil
		a.queues = a.queues[:last]
	}
}

// refuse takes the waiting deliveries for which drop returns true off the endpoint's queue, to be parked.
func (l *limiters) refuse(lim *limiter, drop func(*waiter) bool) {
	for i, w := range slices.Backward(lim.queue) {
		if drop(w) {
			lim.dequeue(i)
			lim.fullUntil, l.backlog = time.Now().Add(parkAtOnce), true
			w.begin(false)
		}
	}
}

// refuseLate parks the deliveries of an app that have waited too long.
func (l *limiters) refuseLate(a *appLimiter, now time.Time) {
	for _, lim := range slices.Clone(a.queues) {
		most := tryFor
		if lim.host.proven {
			most = 2 * waitMost
		}
		l.refuse(lim, func(w *waiter) bool { return now.Sub(w.since) > most })
	}
}

// leave takes deliveries that still wait off their queues, since their job is being stopped.
func (l *limiters) leave(waiters []*waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range waiters {
		if i := slices.Index(w.lim.queue, w); i >= 0 {
			w.lim.dequeue(i)
			w.begin(false)
		}
	}
}
