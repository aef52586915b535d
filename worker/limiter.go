package worker

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// The limiters bound the attempts that this instance has in flight, so that no receiver and no app can take what
// others need. An attempt needs a place at all of these:
//
//   - its endpoint and its host (scheme, host and port, of one app). Both have a window that adapts (window.go).
//   - its app, which has a quarter of maxInFlight while other apps have work, and all of it when it is alone. Hosts that
//     have not answered lately share one half of it. The other half is for hosts that do, so that an app's hanging
//     hosts leave room for its others. An app is never refused its first appFloor attempts.
//
// A delivery that finds no place waits for one, up to patience, if its endpoint answers quickly and none has lately waited
// in vain. Otherwise it is parked in the table, where it costs neither a worker nor a query. It is parked, too, while its
// endpoint is disabled, is held by its breaker or by Retry-After, or has a rate limit. release.go brings parked deliveries
// back.

// limiters holds the limiters of all endpoints, hosts and apps in use.
type limiters struct {
	store       *store.Store
	log         *slog.Logger
	maxInFlight int
	receivers   *store.Batcher[uuid.UUID, *store.Receiver]
	requests    chan *limiter // endpoints with room for their parked deliveries
	plan        chan struct{} // asks for a release across all endpoints

	mu       sync.Mutex // guards what follows and all fields of limiter, hostLimiter and appLimiter
	byID     map[uuid.UUID]*limiter
	apps     map[uuid.UUID]*appLimiter
	inFlight int
	waiting  int
	busyApps int  // apps that had an attempt within the last tick
	backlog  bool // there are parked deliveries, as far as this instance knows
}

// limiter bounds the attempts to one endpoint, and keeps what was last read of it.
type limiter struct {
	all  *limiters
	id   uuid.UUID
	host *hostLimiter // nil until the endpoint was read

	receiver  *store.Receiver // nil if the endpoint was deleted
	readAt    time.Time
	usedAt    time.Time
	window    window
	fullUntil time.Time // until then, deliveries without a place are parked at once
	requested bool      // limiters.requests has this limiter
}

// hostLimiter bounds the attempts of one app to one host.
type hostLimiter struct {
	app    *appLimiter
	window window

	proven     bool      // it has answered lately, and quickly
	answeredAt time.Time // or since when it has attempts in flight
}

// appLimiter bounds the attempts of one app.
type appLimiter struct {
	hosts    map[string]*hostLimiter
	inFlight int
	unproven int       // of them, to hosts that are not proven
	waiting  []*waiter // in the order in which they came
	usedAt   time.Time
}

// waiter is a delivery that waits for a place.
type waiter struct {
	lim   *limiter
	place chan struct{} // closed when it has one
}

func newLimiters(s *store.Store, maxInFlight int, log *slog.Logger) *limiters {
	l := &limiters{
		store: s, log: log, maxInFlight: maxInFlight, requests: make(chan *limiter, 1024), plan: make(chan struct{}, 1),
		byID: make(map[uuid.UUID]*limiter), apps: make(map[uuid.UUID]*appLimiter),
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
// limiter and no error if the delivery must be parked. released means that the delivery was released from parking for this
// attempt, which has passed the rate limit and the breaker already.
func (l *limiters) acquire(ctx context.Context, endpoint uuid.UUID, released bool) (*limiter, *store.Receiver, error) {
	lim := l.of(endpoint)
	rec, err := lim.read(ctx)
	if err != nil || rec == nil || !rec.Enabled {
		return nil, nil, err
	}
	if rec.Broken != nil {
		return nil, nil, fmt.Errorf("endpoint %s: %w", endpoint, rec.Broken)
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
	l.all.mu.Lock()
	l.usedAt = time.Now()
	rec, fresh := l.receiver, l.usedAt.Sub(l.readAt) < receiverFresh
	l.all.mu.Unlock()
	if fresh {
		return rec, nil
	}
	rec, err := l.all.receivers.Do(ctx, l.id)
	if err != nil {
		return nil, err
	}
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	l.receiver, l.readAt = rec, time.Now()
	if rec != nil {
		l.all.placeAt(l, rec.AppID, rec.URL)
	}
	return rec, nil
}

// placeAt makes the limiter one of the host and the app that its endpoint's URL names, unless it has attempts in flight.
func (l *limiters) placeAt(lim *limiter, app uuid.UUID, endpointURL string) {
	if lim.window.inFlight > 0 {
		return
	}
	name := hostOf(endpointURL)
	a := l.apps[app]
	if a == nil {
		a = &appLimiter{hosts: make(map[string]*hostLimiter)}
		l.apps[app] = a
	}
	h := a.hosts[name]
	if h == nil {
		h = &hostLimiter{app: a}
		a.hosts[name] = h
	}
	lim.host = h
}

// hostOf returns what a URL's host is told apart by: scheme, host and port.
func hostOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return rawURL
	}
	return u.Scheme + "://" + u.Host
}

// expire makes the next attempt read the endpoint again.
func (l *limiter) expire() {
	l.all.mu.Lock()
	l.readAt = time.Time{}
	l.all.mu.Unlock()
}

// share returns how many attempts an app may have in flight.
func (l *limiters) share(a *appLimiter) int {
	others := l.busyApps
	if a.inFlight > 0 || time.Since(a.usedAt) < stallTick {
		others--
	}
	if others > 0 || l.inFlight-a.inFlight > 0 {
		return l.maxInFlight / appShare
	}
	return l.maxInFlight
}

// room returns how many more attempts the endpoint may have in flight.
func (l *limiters) room(lim *limiter) int {
	h, a := lim.host, lim.host.app
	share := l.share(a)
	room := min(lim.window.room(share), h.window.room(share/2))
	if a.inFlight < appFloor {
		return min(room, appFloor-a.inFlight)
	}
	inApp := share - a.inFlight
	if h.proven {
		inApp = max(inApp, share/2-(a.inFlight-a.unproven))
	} else {
		inApp = min(inApp, share/2-a.unproven)
	}
	// An app finds its share even where others, alone before, have all of it. Twice maxInFlight is the end.
	return min(room, inApp, 2*l.maxInFlight-l.inFlight)
}

// take takes a place if there is one.
func (l *limiters) take(lim *limiter, now time.Time) bool {
	if l.room(lim) <= 0 {
		return false
	}
	h, a := lim.host, lim.host.app
	if h.window.inFlight == 0 {
		h.answeredAt = now // counts from here, see stalled
	}
	lim.window.inFlight++
	h.window.inFlight++
	a.inFlight++
	l.inFlight++
	if !h.proven {
		a.unproven++
	}
	a.usedAt = now
	return true
}

// takePlace takes a place, if necessary after a wait, and reports whether it got one.
func (l *limiter) takePlace(ctx context.Context) bool {
	all, now := l.all, time.Now()
	all.mu.Lock()
	if all.take(l, now) {
		all.mu.Unlock()
		return true
	}
	if l.window.mean > quickMean || now.Before(l.fullUntil) || all.waiting >= all.maxInFlight {
		l.fullUntil, all.backlog = now.Add(parkAtOnce), true
		all.mu.Unlock()
		return false
	}
	w := &waiter{l, make(chan struct{})}
	app := l.host.app
	app.waiting = append(app.waiting, w)
	all.waiting++
	all.mu.Unlock()

	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-w.place:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	i := slices.Index(app.waiting, w)
	if i < 0 {
		return true // the place came at the last moment
	}
	app.waiting = slices.Delete(app.waiting, i, i+1)
	all.waiting--
	l.fullUntil, all.backlog = time.Now().Add(parkAtOnce), true
	return false
}

// serve assigns free places to an app's waiting deliveries.
func (l *limiters) serve(a *appLimiter, now time.Time) {
	looked := 0
	a.waiting = slices.DeleteFunc(a.waiting, func(w *waiter) bool {
		if looked++; looked > serveMost || !l.take(w.lim, now) {
			return false
		}
		close(w.place)
		l.waiting--
		return true
	})
}

// finish gives back the place of an attempt with this result, to a waiting delivery or for parked ones.
func (l *limiter) finish(r store.AttemptResult) {
	all, now := l.all, time.Now()
	all.mu.Lock()
	defer all.mu.Unlock()
	h, a := l.host, l.host.app
	answered := r.ResponseStatus != nil
	h.setProven(answered && r.Duration < provenWithin)
	if answered {
		h.answeredAt = now
	}
	if !h.proven {
		a.unproven--
	}
	l.window.finish(r.Duration, r.Delivered, now)
	h.window.finish(r.Duration, answered, now)
	a.inFlight--
	all.inFlight--
	all.serve(a, now)

	backlog := (l.receiver != nil && l.receiver.Backlog) || now.Before(l.fullUntil)
	if backlog && r.Delivered && !l.requested && l.window.inFlight <= l.window.size()/2 {
		select {
		case all.requests <- l:
			l.requested = true
		default: // the next plan finds it
		}
	}
	if all.backlog {
		select {
		case all.plan <- struct{}{}:
		default:
		}
	}
}

// setProven records whether the host answers, and counts its attempts accordingly.
func (h *hostLimiter) setProven(proven bool) {
	switch {
	case proven && !h.proven:
		h.app.unproven -= h.window.inFlight
	case !proven && h.proven:
		h.app.unproven += h.window.inFlight
	}
	h.proven = proven
}

// tick finds hosts that have stopped answering, counts the apps that have work, and drops what is idle.
func (l *limiters) tick(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busyApps = 0
	for id, a := range l.apps {
		if a.inFlight > 0 || now.Sub(a.usedAt) < stallTick {
			l.busyApps++
		}
		for name, h := range a.hosts {
			if h.window.inFlight > 0 && now.Sub(h.answeredAt) > stalledAfter {
				h.setProven(false)
				h.window.reset()
			}
			if h.window.inFlight == 0 && now.Sub(h.answeredAt) > limiterIdle {
				delete(a.hosts, name)
			}
		}
		if len(a.hosts) == 0 && len(a.waiting) == 0 {
			delete(l.apps, id)
		}
	}
	for id, lim := range l.byID {
		if lim.window.inFlight == 0 && now.Sub(lim.usedAt) > limiterIdle {
			delete(l.byID, id)
		}
	}
}
