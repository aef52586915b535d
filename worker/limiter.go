package worker

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// An endpoint's limiter bounds the attempts that this instance has in flight to it. A delivery that wants an attempt
//
//   - gets a place while fewer than maxInFlight attempts are in flight;
//   - else waits, up to patience, if the endpoint answers quickly and no delivery has lately waited in vain;
//   - else is parked in the table, where it costs neither a worker nor a query.
//
// A delivery is parked too while its endpoint is disabled, is held by its breaker or by Retry-After, or has a rate limit.
// Parked deliveries are released by [limiters.run]: when an attempt was successful and left half of the places free, and
// every releaseInterval for each endpoint that has parked deliveries which may go. The database decides which may go.

// limiters holds one limiter for each endpoint in use.
type limiters struct {
	store       *store.Store
	log         *slog.Logger
	maxInFlight int
	receivers   *store.Batcher[uuid.UUID, *store.Receiver]
	requests    chan *limiter // those with room for parked deliveries

	mu   sync.Mutex
	byID map[uuid.UUID]*limiter
}

// limiter bounds the attempts in flight to one endpoint, and keeps what was last read of the endpoint.
type limiter struct {
	all *limiters
	id  uuid.UUID

	mu        sync.Mutex
	receiver  *store.Receiver // nil if the endpoint was deleted
	readAt    time.Time
	usedAt    time.Time
	inFlight  int
	waiting   []chan struct{} // each is closed when its delivery gets a place
	mean      time.Duration   // of the attempts' durations, exponentially weighted
	fullUntil time.Time       // until then, deliveries without a place are parked at once
	requested bool            // limiters.requests has this limiter
}

func newLimiters(s *store.Store, maxInFlight int, log *slog.Logger) *limiters {
	l := &limiters{
		store: s, log: log, maxInFlight: maxInFlight, requests: make(chan *limiter, 1024), byID: make(map[uuid.UUID]*limiter),
	}
	l.receivers = store.NewBatcher(200, 2*time.Millisecond, func(ctx context.Context, ids []uuid.UUID) ([]*store.Receiver, error) {
		found, err := s.Receivers(ctx, ids)
		if err != nil {
			return nil, err
		}
		byID := make(map[uuid.UUID]*store.Receiver, len(found))
		for i := range found {
			byID[found[i].ID] = &found[i]
		}
		out := make([]*store.Receiver, len(ids))
		for i, id := range ids {
			out[i] = byID[id]
		}
		return out, nil
	})
	return l
}

// of returns the endpoint's limiter.
func (l *limiters) of(endpoint uuid.UUID) *limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	lim := l.byID[endpoint]
	if lim == nil {
		lim = &limiter{all: l, id: endpoint}
		l.byID[endpoint] = lim
	}
	return lim
}

// acquire takes a place for one attempt at the endpoint; the caller gives it back with [limiter.finish]. It returns a nil
// limiter and no error if the delivery must be parked. released says that the delivery was released from parking for this
// attempt, which has passed the rate limit and the breaker already.
func (l *limiters) acquire(ctx context.Context, endpoint uuid.UUID, released bool) (*limiter, *store.Receiver, error) {
	lim := l.of(endpoint)
	rec, err := lim.read(ctx)
	if err != nil || rec == nil || !rec.Enabled {
		return nil, nil, err
	}
	if !released && (rec.Holds(time.Now()) || rec.RateLimit != nil) {
		return nil, nil, nil
	}
	if !lim.takePlace(ctx) {
		return nil, nil, ctx.Err()
	}
	return lim, rec, nil
}

// read returns the endpoint as it was at most receiverFresh ago; nil if it was deleted.
func (l *limiter) read(ctx context.Context) (*store.Receiver, error) {
	l.mu.Lock()
	l.usedAt = time.Now()
	rec, fresh := l.receiver, l.usedAt.Sub(l.readAt) < receiverFresh
	l.mu.Unlock()
	if fresh {
		return rec, nil
	}
	rec, err := l.all.receivers.Do(ctx, l.id)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.receiver, l.readAt = rec, time.Now()
	l.mu.Unlock()
	return rec, nil
}

// expire makes the next attempt read the endpoint again.
func (l *limiter) expire() {
	l.mu.Lock()
	l.readAt = time.Time{}
	l.mu.Unlock()
}

// takePlace takes a place, if necessary after a wait, and reports whether it got one.
func (l *limiter) takePlace(ctx context.Context) bool {
	l.mu.Lock()
	if l.inFlight < l.all.maxInFlight {
		l.inFlight++
		l.mu.Unlock()
		return true
	}
	now := time.Now()
	if l.mean > quickMean || now.Before(l.fullUntil) {
		l.fullUntil = now.Add(parkAtOnce)
		l.mu.Unlock()
		return false
	}
	place := make(chan struct{})
	l.waiting = append(l.waiting, place)
	l.mu.Unlock()

	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-place:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.waiting, place)
	if i < 0 {
		return true // the place came at the last moment
	}
	l.waiting = slices.Delete(l.waiting, i, i+1)
	l.fullUntil = time.Now().Add(parkAtOnce)
	return false
}

// finish gives the place of an attempt with this result to the next delivery, or asks for parked ones.
func (l *limiter) finish(r store.AttemptResult) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mean += (r.Duration - l.mean) / 8
	if len(l.waiting) > 0 {
		close(l.waiting[0])
		l.waiting = l.waiting[1:]
	} else {
		l.inFlight--
	}
	room := l.inFlight <= l.all.maxInFlight/2
	backlog := (l.receiver != nil && l.receiver.Backlog) || time.Now().Before(l.fullUntil)
	if room && backlog && r.Delivered && !l.requested {
		select {
		case l.all.requests <- l:
			l.requested = true
		default: // the next tick of run finds it
		}
	}
}

// run releases parked deliveries, on request and every releaseInterval, until ctx is done.
func (l *limiters) run(ctx context.Context) {
	ticker := time.NewTicker(releaseInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case lim := <-l.requests:
			l.release(ctx, lim)
		case <-ticker.C:
			ids, err := l.store.Releasable(ctx)
			if err != nil {
				if ctx.Err() == nil {
					l.log.Warn("cannot look for parked deliveries", "error", err)
				}
				continue
			}
			for _, id := range ids {
				l.release(ctx, l.of(id))
			}
			l.dropIdle()
		}
	}
}

// release releases as many of the endpoint's parked deliveries as there are free places.
func (l *limiters) release(ctx context.Context, lim *limiter) {
	lim.mu.Lock()
	lim.requested = false
	room := l.maxInFlight - lim.inFlight - len(lim.waiting)
	lim.mu.Unlock()
	if room <= 0 {
		return
	}
	if _, err := l.store.Release(ctx, lim.id, room); err != nil && ctx.Err() == nil {
		l.log.Warn("cannot release parked deliveries", "endpoint", lim.id, "error", err)
	}
}

// dropIdle drops limiters that were not used for limiterIdle.
func (l *limiters) dropIdle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, lim := range l.byID {
		lim.mu.Lock()
		idle := lim.inFlight == 0 && len(lim.waiting) == 0 && time.Since(lim.usedAt) > limiterIdle
		lim.mu.Unlock()
		if idle {
			delete(l.byID, id)
		}
	}
}
