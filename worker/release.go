package worker

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// Parked deliveries are released in two ways. An endpoint that has delivered asks for its own at once, for its free places
// and for a reserve that waits in memory (queue.go): releasing takes as long as many an attempt, and only a full window
// grows. And a plan goes over all endpoints that have parked deliveries which may go: with each heartbeat that finds some, and sooner where
// an attempt has left room. It goes round by app, then by endpoint, and distributes the room that the limiters have. The
// database decides what rate limits and breakers let out.

// run releases parked deliveries until ctx is done.
func (l *limiters) run(ctx context.Context) {
	stalls := time.NewTicker(stallTick)
	defer stalls.Stop()
	next := time.Now() // when the next plan may be made
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-stalls.C:
			l.tick(now)
		case lim := <-l.requests:
			l.releaseRequested(ctx, lim)
		case <-l.due:
			next = l.releaseAll(ctx)
		case <-l.plan:
			if time.Now().After(next) {
				next = l.releaseAll(ctx)
			}
		}
	}
}

// reserve returns how many of the endpoint's deliveries may wait in memory: what it takes while others are released.
func (l *limiters) reserve(lim *limiter) int {
	if !lim.host.proven || lim.receiver == nil || lim.receiver.RateLimit != nil {
		return 0
	}
	a, size := lim.host.app, lim.window.size()
	share := l.share(a)
	if a.waiting >= waitShares*share/2 {
		return 0 // the other half is for new deliveries
	}
	n := float64(size) * max(1, releaseTakes.Seconds()/max(lim.window.mean, time.Millisecond).Seconds())
	return min(int(n), max(size, share/max(1, len(a.queues))))
}

// lacks returns how many more deliveries of the endpoint may be released.
func (l *limiters) lacks(lim *limiter) int {
	return l.room(lim) + l.reserve(lim) - len(lim.queue) - lim.coming
}

// requestMore asks for more of the endpoint's parked deliveries when half of what it may have is lacking, and for a plan.
func (l *limiters) requestMore(lim *limiter, delivered bool, now time.Time) {
	backlog := (lim.receiver != nil && lim.receiver.Backlog) || now.Before(lim.fullUntil)
	if backlog && delivered && !lim.requested && l.lacks(lim) >= max(lim.window.size(), l.reserve(lim))/2 {
		select {
		case l.requests <- lim:
			lim.requested = true
		default: // the next plan finds it
		}
	}
	if l.backlog {
		trySend(l.plan)
	}
}

// releaseRequested releases deliveries of the endpoint and of those that have asked meanwhile.
func (l *limiters) releaseRequested(ctx context.Context, lim *limiter) {
	var rooms []store.Room
	for range releaseBatch {
		l.mu.Lock()
		lim.requested = false
		if lim.host != nil {
			if n := l.lacks(lim); n > 0 {
				rooms = append(rooms, store.Room{EndpointID: lim.id, Places: n})
			}
		}
		l.mu.Unlock()
		select {
		case lim = <-l.requests:
			continue
		default:
		}
		break
	}
	l.release(ctx, rooms)
}

// releaseAll makes a plan and carries it out. It returns when the next may be made: plans take at most a twentieth of
// the time.
func (l *limiters) releaseAll(ctx context.Context) (next time.Time) {
	start := time.Now()
	backlogged, err := l.store.Backlogged(ctx)
	if warn(ctx, l.log, err, "cannot look for parked deliveries") {
		return start.Add(heartbeatInterval)
	}
	rooms := l.planFor(backlogged)
	for len(rooms) > 0 {
		n := min(len(rooms), releaseBatch)
		l.release(ctx, rooms[:n])
		rooms = rooms[n:]
	}
	return time.Now().Add(max(planInterval, 20*time.Since(start)))
}

// planFor distributes the free room to endpoints with parked deliveries, round by app and then by endpoint. The
// endpoint that begins an app's round changes with each plan.
func (l *limiters) planFor(backlogged []store.Backlogged) []store.Room {
	byApp := make(map[uuid.UUID][]*limiter)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.backlog = len(backlogged) > 0
	for _, b := range backlogged {
		lim := l.find(b.ID)
		lim.usedAt = time.Now()
		l.placeAt(lim, b.AppID, b.URL)
		byApp[b.AppID] = append(byApp[b.AppID], lim)
	}
	places := make(map[*limiter]int)
	left := l.maxInFlight
	for left > 0 && len(byApp) > 0 {
		for app, endpoints := range byApp {
			i := l.planOne(endpoints)
			if i < 0 || left == 0 {
				delete(byApp, app)
				continue
			}
			lim := endpoints[i]
			places[lim]++
			left--
			byApp[app] = append(endpoints[i+1:], lim)
		}
	}
	rooms := make([]store.Room, 0, len(places))
	for lim, n := range places {
		rooms = append(rooms, store.Room{EndpointID: lim.id, Places: n})
		l.count(lim, -lim.planned, -lim.planned)
		lim.coming -= n - lim.planned
		lim.planned = 0
	}
	return rooms
}

// planOne plans one delivery of the first endpoint that lacks some, and returns its index, or -1. For the time of the plan
// the delivery has a place or counts as coming, so that the next endpoint sees what room is left.
func (l *limiters) planOne(endpoints []*limiter) int {
	for i, lim := range endpoints {
		switch {
		case l.lacks(lim) <= 0:
		case l.room(lim) > 0:
			l.count(lim, 1, 1)
			lim.planned++
			return i
		default:
			lim.coming++
			return i
		}
	}
	return -1
}

func (l *limiters) release(ctx context.Context, rooms []store.Room) {
	if len(rooms) == 0 {
		return
	}
	released, err := l.store.Release(ctx, rooms)
	if warn(ctx, l.log, err, "cannot release parked deliveries", "endpoints", len(rooms)) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, n := range released {
		lim := l.find(id)
		lim.coming += n
		lim.releaseAt = time.Now()
	}
}
