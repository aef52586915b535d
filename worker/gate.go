package worker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

const (
	// receiverFresh is how long what was read of an endpoint is used.
	receiverFresh = time.Second
	// patience is how long a delivery waits for room at an endpoint that answers quickly.
	patience = 250 * time.Millisecond
	// quick is the mean duration of attempts up to which an endpoint counts as answering quickly.
	quick = 100 * time.Millisecond
	// releaseInterval is how often parked deliveries are looked for.
	releaseInterval = time.Second
	// gateForgotten is after how long without a delivery an endpoint's gate is dropped.
	gateForgotten = 10 * time.Minute
)

// gates hold one gate an endpoint.
type gates struct {
	store *store.Store
	log   *slog.Logger
	cap   int
	reads *store.Batcher[uuid.UUID, *store.Receiver]

	mu      sync.Mutex
	byID    map[uuid.UUID]*gate
	wake    chan uuid.UUID // endpoints with room for parked deliveries
	pending map[uuid.UUID]bool
}

// gate bounds what one endpoint takes of this instance: at most cap attempts in flight. A delivery that
// finds no room waits only where it will not be long; otherwise it is parked in the table, where it
// costs neither a worker nor a query, until there is room.
type gate struct {
	all *gates
	id  uuid.UUID

	mu       sync.Mutex
	receiver *store.Receiver
	readAt   time.Time
	inFlight int
	waiting  []chan struct{}
	mean     time.Duration // of the attempts, exponentially weighted
	full     time.Time     // until then, deliveries without room are parked at once
	usedAt   time.Time
}

func newGates(s *store.Store, most int, log *slog.Logger) *gates {
	g := &gates{store: s, log: log, cap: most, byID: make(map[uuid.UUID]*gate), wake: make(chan uuid.UUID, 1024), pending: make(map[uuid.UUID]bool)}
	g.reads = store.NewBatcher(200, 2*time.Millisecond, func(ctx context.Context, ids []uuid.UUID) ([]*store.Receiver, error) {
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
	return g
}

func (g *gates) of(id uuid.UUID) *gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	gt := g.byID[id]
	if gt == nil {
		gt = &gate{all: g, id: id}
		g.byID[id] = gt
	}
	return gt
}

// enter takes a place at the endpoint for one attempt; the caller leaves it with leave. A nil gate
// without error means that the delivery must be parked. released says that the delivery was released
// from the table for this attempt, so that neither rate limit nor open breaker holds it.
func (g *gates) enter(ctx context.Context, endpoint uuid.UUID, released bool) (*gate, *store.Receiver, error) {
	gt := g.of(endpoint)
	rec, err := gt.read(ctx)
	if err != nil || rec == nil || !admits(rec, released, time.Now()) {
		return nil, nil, err
	}
	if !gt.acquire(ctx) {
		return nil, nil, ctx.Err()
	}
	return gt, rec, nil
}

// admits tells whether the endpoint's settings and health let an attempt through.
func admits(rec *store.Receiver, released bool, now time.Time) bool {
	if !rec.Enabled {
		return false
	}
	if released {
		return true // Release has looked at the rest
	}
	return !rec.Holds(now) && rec.RateLimit == nil
}

// read gives the endpoint as it was at most a second ago; nil if it was deleted.
func (gt *gate) read(ctx context.Context) (*store.Receiver, error) {
	gt.mu.Lock()
	rec, fresh := gt.receiver, time.Since(gt.readAt) < receiverFresh
	gt.usedAt = time.Now()
	gt.mu.Unlock()
	if fresh {
		return rec, nil
	}
	rec, err := gt.all.reads.Do(ctx, gt.id)
	if err != nil {
		return nil, err
	}
	gt.mu.Lock()
	gt.receiver, gt.readAt = rec, time.Now()
	gt.mu.Unlock()
	return rec, nil
}

// acquire takes a place, waiting for one a little where the endpoint answers quickly.
func (gt *gate) acquire(ctx context.Context) bool {
	gt.mu.Lock()
	if gt.inFlight < gt.all.cap {
		gt.inFlight++
		gt.mu.Unlock()
		return true
	}
	now := time.Now()
	if gt.mean > quick || now.Before(gt.full) {
		gt.full = now.Add(receiverFresh)
		gt.mu.Unlock()
		return false
	}
	place := make(chan struct{})
	gt.waiting = append(gt.waiting, place)
	gt.mu.Unlock()

	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-place:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	gt.mu.Lock()
	defer gt.mu.Unlock()
	for i, other := range gt.waiting {
		if other == place {
			gt.waiting = append(gt.waiting[:i], gt.waiting[i+1:]...)
			gt.full = time.Now().Add(receiverFresh)
			return false
		}
	}
	return true // the place came at the last moment
}

// leave gives the place to the next.
func (gt *gate) leave(r store.AttemptResult) {
	gt.mu.Lock()
	gt.mean += (r.Duration - gt.mean) / 8
	if len(gt.waiting) > 0 {
		close(gt.waiting[0])
		gt.waiting = gt.waiting[1:]
	} else {
		gt.inFlight--
	}
	room := gt.inFlight <= gt.all.cap/2
	backlog := (gt.receiver != nil && gt.receiver.Backlog) || time.Now().Before(gt.full)
	gt.mu.Unlock()
	if room && backlog && r.Delivered {
		gt.all.ask(gt.id)
	}
}

// changed lets the endpoint be read anew.
func (gt *gate) changed() {
	gt.mu.Lock()
	gt.readAt = time.Time{}
	gt.mu.Unlock()
}

// ask asks for parked deliveries of an endpoint.
func (g *gates) ask(endpoint uuid.UUID) {
	g.mu.Lock()
	asked := g.pending[endpoint]
	g.pending[endpoint] = true
	g.mu.Unlock()
	if asked {
		return
	}
	select {
	case g.wake <- endpoint:
	default: // the next round of run finds it
		g.mu.Lock()
		delete(g.pending, endpoint)
		g.mu.Unlock()
	}
}

// run releases parked deliveries: at once where an attempt has left room, and every second for all
// endpoints whose time has come.
func (g *gates) run(ctx context.Context) {
	ticker := time.NewTicker(releaseInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case id := <-g.wake:
			g.mu.Lock()
			delete(g.pending, id)
			g.mu.Unlock()
			g.release(ctx, id)
		case <-ticker.C:
			ids, err := g.store.Releasable(ctx)
			if err != nil {
				if ctx.Err() == nil {
					g.log.Warn("parked deliveries could not be looked for", "error", err)
				}
				continue
			}
			for _, id := range ids {
				g.release(ctx, id)
			}
			g.forget()
		}
	}
}

func (g *gates) release(ctx context.Context, endpoint uuid.UUID) {
	gt := g.of(endpoint)
	gt.mu.Lock()
	room := g.cap - gt.inFlight - len(gt.waiting)
	gt.mu.Unlock()
	if room <= 0 {
		return
	}
	if _, err := g.store.Release(ctx, endpoint, room); err != nil && ctx.Err() == nil {
		g.log.Warn("parked deliveries could not be released", "endpoint", endpoint, "error", err)
	}
}

// forget drops gates that nobody has used for a while.
func (g *gates) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, gt := range g.byID {
		gt.mu.Lock()
		idle := gt.inFlight == 0 && len(gt.waiting) == 0 && time.Since(gt.usedAt) > gateForgotten
		gt.mu.Unlock()
		if idle {
			delete(g.byID, id)
		}
	}
}
