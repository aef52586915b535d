package worker

import (
	"context"
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
//   - its app, which has a quarter of maxInFlight while other apps have work, and all of it when it is alone. In either
//     case hosts that answer have half of it beside what hanging hosts take. An app is never refused its first appFloor
//     attempts.
//
// Apps and the instance count an attempt by the memory that it takes: a large payload counts as many.
//
// A delivery that finds no place waits for one (queue.go) or is parked in the table, where it costs neither a worker nor a
// query. It is parked, too, while its endpoint is disabled, is held by its breaker or by Retry-After, or has a rate limit.
// release.go brings parked deliveries back.

// limiters holds the limiters of all endpoints, hosts and apps in use.
type limiters struct {
	store       *store.Store
	log         *slog.Logger
	maxInFlight int
	requests    chan *limiter // endpoints with room for their parked deliveries
	plan        chan struct{} // asks for a release across all endpoints
	due         chan struct{} // says that there are parked deliveries to release

	mu       sync.Mutex // guards what follows and all fields of limiter, hostLimiter and appLimiter
	byID     map[uuid.UUID]*limiter
	apps     map[uuid.UUID]*appLimiter
	inFlight int  // the weight of all attempts
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
	queue     []*waiter // deliveries that wait for a place, the oldest first
	fullUntil time.Time // until then, deliveries without a place are parked at once
	requested bool      // limiters.requests has this limiter
	coming    int       // deliveries that were released and have not come yet
	planned   int       // places that a plan has taken while it is made
	releaseAt time.Time // when the last of them were released
}

// hostLimiter bounds the attempts of one app to one host.
type hostLimiter struct {
	app    *appLimiter
	window window
	weight int // of the attempts in flight

	proven     bool      // it has answered lately, and quickly
	answeredAt time.Time // or since when it has attempts in flight
	usedAt     time.Time // a limiter was last placed at it, or an attempt ended
}

// appLimiter bounds the attempts of one app.
type appLimiter struct {
	hosts    map[string]*hostLimiter
	attempts int        // in flight
	inFlight int        // their weight
	unproven int        // of it, of attempts to hosts that are not proven
	mayHang  int        // how much unproven may be until the next tick
	queues   []*limiter // endpoints with deliveries that wait, in no order
	next     int        // the index in queues whose turn it is
	waiting  int        // deliveries in queues
	usedAt   time.Time
}

func newLimiters(s *store.Store, maxInFlight int, log *slog.Logger) *limiters {
	return &limiters{
		store: s, log: log, maxInFlight: maxInFlight, requests: make(chan *limiter, 1024), plan: make(chan struct{}, 1),
		due:  make(chan struct{}, 1),
		byID: make(map[uuid.UUID]*limiter), apps: make(map[uuid.UUID]*appLimiter),
	}
}

// find returns the endpoint's limiter, under the mutex.
func (l *limiters) find(endpoint uuid.UUID) *limiter {
	lim := l.byID[endpoint]
	if lim == nil {
		lim = &limiter{all: l, id: endpoint}
		l.byID[endpoint] = lim
	}
	return lim
}

// read returns the limiters of endpoints, and the endpoints as they were at most receiverFresh ago; nil for a deleted one.
func (l *limiters) read(ctx context.Context, endpoints ...uuid.UUID) ([]*limiter, []*store.Receiver, error) {
	lims, recs := make([]*limiter, len(endpoints)), make([]*store.Receiver, len(endpoints))
	var stale []uuid.UUID
	l.mu.Lock()
	now := time.Now()
	for i, id := range endpoints {
		lim := l.find(id)
		lim.usedAt = now
		lims[i], recs[i] = lim, lim.receiver
		if now.Sub(lim.readAt) >= receiverFresh && !slices.Contains(stale, id) {
			stale = append(stale, id)
		}
	}
	l.mu.Unlock()
	if len(stale) == 0 {
		return lims, recs, nil
	}
	found, err := l.store.Receivers(ctx, stale...)
	if err != nil {
		return nil, nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, rec := range found {
		l.find(stale[i]).update(rec)
	}
	for i, lim := range lims {
		recs[i] = lim.receiver
	}
	return lims, recs, nil
}

// update keeps the endpoint as it was just read.
func (l *limiter) update(rec *store.Receiver) {
	l.receiver, l.readAt = rec, time.Now()
	if rec != nil {
		l.all.placeAt(l, rec.AppID, rec.URL)
	}
	if rec == nil || !rec.Enabled || rec.Holds(l.readAt) {
		l.all.refuse(l, func(w *waiter) bool { return !w.held })
	}
}

// placeAt makes the limiter one of the host and the app that its endpoint's URL names, unless it has deliveries in
// flight or waiting.
func (l *limiters) placeAt(lim *limiter, app uuid.UUID, endpointURL string) {
	if lim.window.inFlight > 0 || len(lim.queue) > 0 {
		return
	}
	name := hostOf(endpointURL)
	a := l.apps[app]
	if a == nil {
		a = &appLimiter{hosts: make(map[string]*hostLimiter)}
		a.mayHang = hangStep(l.share(a))
		l.apps[app] = a
	}
	h := a.hosts[name]
	if h == nil {
		h = &hostLimiter{app: a}
		a.hosts[name] = h
	}
	lim.host, h.usedAt = h, time.Now()
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

// hangStep returns by how much an app's attempts to hosts that are not proven may grow from one tick to the next. So hundreds
// that hang neither begin nor time out in one moment, which others would notice.
func hangStep(share int) int { return max(windowMin, share/8) }

// room returns how many more attempts of an endpoint may be in flight, if they are of weight 1.
func (l *limiters) room(lim *limiter) int {
	h, a := lim.host, lim.host.app
	share := l.share(a)
	room := min(lim.window.room(share), h.window.room(share/2))
	if a.attempts < appFloor {
		return min(room, appFloor-a.attempts)
	}
	inApp := share - a.inFlight
	if h.proven {
		inApp = max(inApp, share/2-(a.inFlight-a.unproven))
	} else {
		inApp = min(inApp, a.mayHang-a.unproven)
	}
	// An app finds its share even where others, alone before, have all of it. Twice maxInFlight is the end.
	return min(room, inApp, 2*l.maxInFlight-l.inFlight)
}

// take takes a place if there is one. An attempt that weighs more than what is left has it all the same, or it would wait
// for ever beside lighter ones.
func (l *limiters) take(lim *limiter, weight int, now time.Time) bool {
	if l.room(lim) <= 0 {
		return false
	}
	h := lim.host
	if h.window.inFlight == 0 {
		h.answeredAt = now // counts from here, see stalled
	}
	h.app.usedAt = now
	l.count(lim, 1, weight)
	return true
}

// count adds attempts of a weight to what is in flight, or takes them off it.
func (l *limiters) count(lim *limiter, attempts, weight int) {
	h, a := lim.host, lim.host.app
	lim.window.inFlight += attempts
	h.window.inFlight += attempts
	h.weight += weight
	a.attempts += attempts
	a.inFlight += weight
	l.inFlight += weight
	if !h.proven {
		a.unproven += weight
	}
}

// finish gives back the place of an attempt of this weight, to a waiting delivery or for parked ones. made is what came of
// it, nil if it was not made.
func (l *limiter) finish(weight int, made *store.AttemptResult) {
	all, now := l.all, time.Now()
	all.mu.Lock()
	defer all.mu.Unlock()
	delivered := false
	if made != nil {
		delivered = made.Delivered
		answered := made.ResponseStatus != nil
		l.host.setProven(answered && made.Duration < provenWithin)
		if answered {
			l.host.answeredAt = now
		}
		l.window.adapt(made.Duration, delivered, now)
		l.host.window.adapt(made.Duration, answered, now)
	}
	l.host.usedAt = now
	all.count(l, -1, -weight)
	all.serve(l.host.app, l, now)
	all.requestMore(l, delivered, now)
}

// setProven records whether the host answers, and counts its attempts accordingly.
func (h *hostLimiter) setProven(proven bool) {
	switch {
	case proven && !h.proven:
		h.app.unproven -= h.weight
	case !proven && h.proven:
		h.app.unproven += h.weight
	}
	h.proven = proven
}

// tick finds hosts that have stopped answering, counts the apps that have work, sees to what waits, and drops what is idle.
func (l *limiters) tick(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busyApps = 0
	for _, a := range l.apps {
		if a.inFlight > 0 || now.Sub(a.usedAt) < stallTick {
			l.busyApps++
		}
	}
	for id, a := range l.apps {
		for name, h := range a.hosts {
			if h.window.inFlight > 0 && now.Sub(h.answeredAt) > stalledAfter {
				h.setProven(false)
				h.window.reset()
			}
			// Whoever takes a place was placed within receiverFresh, or had an attempt in flight then.
			if h.window.inFlight == 0 && now.Sub(h.usedAt) > limiterIdle {
				delete(a.hosts, name)
			}
		}
		a.mayHang = a.unproven + hangStep(l.share(a))
		l.refuseLate(a, now)
		l.serve(a, nil, now)
		if len(a.hosts) == 0 && a.waiting == 0 {
			delete(l.apps, id)
		}
	}
	for id, lim := range l.byID {
		if lim.coming > 0 && now.Sub(lim.releaseAt) > releaseLate {
			lim.coming = 0
		}
		if lim.window.inFlight == 0 && len(lim.queue) == 0 && now.Sub(lim.usedAt) > limiterIdle {
			delete(l.byID, id)
		}
	}
}
