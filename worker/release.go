package worker

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// Parked deliveries are released in two ways. An endpoint that has delivered and has half of its window free asks for its
// own at once. And a plan goes over all endpoints that have parked deliveries which may go: every releaseInterval, and
// sooner where an attempt has left room. It goes round by app, then by endpoint, and distributes the room that the
// limiters have. The database decides what rate limits and breakers let out.

// run releases parked deliveries until ctx is done.
func (l *limiters) run(ctx context.Context) {
	release, stalls := time.NewTicker(releaseInterval), time.NewTicker(stallTick)
	defer release.Stop()
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
		case <-release.C:
			next = l.releaseAll(ctx)
		case <-l.plan:
			if time.Now().After(next) {
				next = l.releaseAll(ctx)
			}
		}
	}
}

// releaseRequested releases deliveries of the endpoint and of those that have asked meanwhile.
func (l *limiters) releaseRequested(ctx context.Context, lim *limiter) {
	var rooms []store.Room
	for range releaseBatch {
		l.mu.Lock()
		lim.requested = false
		if lim.host != nil {
			if n := l.room(lim); n > 0 {
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
	if err != nil {
		if ctx.Err() == nil {
			l.log.Warn("cannot look for parked deliveries", "error", err)
		}
		return start.Add(releaseInterval)
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
		lim := l.byID[b.ID]
		if lim == nil {
			lim = &limiter{all: l, id: b.ID, usedAt: time.Now()}
			l.byID[b.ID] = lim
		}
		l.placeAt(lim, b.AppID, b.URL)
		byApp[b.AppID] = append(byApp[b.AppID], lim)
	}
	places := make(map[*limiter]int)
	left := l.maxInFlight
	for left > 0 && len(byApp) > 0 {
		for app, endpoints := range byApp {
			// One place is taken for the time of the plan, so that the next endpoint sees what room is left.
			i := l.nextWithRoom(endpoints)
			if i < 0 || left == 0 {
				delete(byApp, app)
				continue
			}
			lim := endpoints[i]
			l.take(lim, time.Now())
			places[lim]++
			left--
			byApp[app] = append(endpoints[i+1:], lim)
		}
	}
	rooms := make([]store.Room, 0, len(places))
	for lim, n := range places {
		rooms = append(rooms, store.Room{EndpointID: lim.id, Places: n})
		l.giveBack(lim, n)
	}
	return rooms
}

// nextWithRoom returns the index of the first endpoint that has room, or -1.
func (l *limiters) nextWithRoom(endpoints []*limiter) int {
	for i, lim := range endpoints {
		if l.room(lim) > 0 {
			return i
		}
	}
	return -1
}

// giveBack undoes n calls of take.
func (l *limiters) giveBack(lim *limiter, n int) {
	h, a := lim.host, lim.host.app
	lim.window.inFlight -= n
	h.window.inFlight -= n
	a.inFlight -= n
	l.inFlight -= n
	if !h.proven {
		a.unproven -= n
	}
}

func (l *limiters) release(ctx context.Context, rooms []store.Room) {
	if len(rooms) == 0 {
		return
	}
	if _, err := l.store.Release(ctx, rooms); err != nil && ctx.Err() == nil {
		l.log.Warn("cannot release parked deliveries", "endpoints", len(rooms), "error", err)
	}
}
