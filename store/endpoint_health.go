package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// apply changes the endpoint's health by an attempt's result and returns the events that follow.
func (e *Endpoint) apply(r AttemptResult) (events []string) {
	if r.Delivered {
		return e.succeed(r)
	}
	if r.Blameless {
		if e.Breaker == BreakerHalfOpen && r.Released {
			e.open(r.At) // the probe did not reach the receiver: another one follows
		}
		return nil
	}
	e.Failures++
	at := r.At.Add(-r.clockError)
	if e.FailingSince == nil {
		e.FailingSince = &at
	}
	switch {
	case r.Gone:
		return e.disable(DisabledGone)
	case at.Sub(*e.FailingSince) >= disableAfter:
		return e.disable(DisabledFailing)
	case e.Breaker == BreakerHalfOpen && r.Released:
		e.Probes++
		e.open(r.At)
	case e.Breaker == BreakerClosed && e.Failures >= breakerThreshold:
		e.open(r.At)
		events = []string{EventEndpointFailing}
	}
	if r.Hold > 0 {
		e.hold(r.end().Add(r.Hold))
	}
	return events
}

// succeed forgets all failures. An endpoint that is held stays so, since its receiver may have asked for it in Retry-After: this
// attempt was in flight then. Only a probe and a test are sent while the endpoint is held, and find it well again.
func (e *Endpoint) succeed(r AttemptResult) (events []string) {
	held := e.HoldUntil
	if e.Breaker == BreakerHalfOpen || r.Test {
		held = nil
	}
	if e.Breaker != BreakerClosed {
		events = []string{EventEndpointRecovered}
	}
	e.recovered()
	if held != nil && held.After(r.end()) {
		e.HoldUntil = held
	}
	return events
}

func (e *Endpoint) recovered() {
	e.Breaker, e.Failures, e.Probes, e.FailingSince, e.HoldUntil = BreakerClosed, 0, 0, nil, nil
}

// open opens the breaker until the next probe.
func (e *Endpoint) open(at time.Time) {
	if e.Breaker == BreakerHalfOpen {
		e.HoldUntil = nil // it was the probe's
	}
	e.Breaker = BreakerOpen
	e.hold(at.Add(e.probeIn()))
}

// probeIn returns how long an open breaker waits before its next probe.
func (e *Endpoint) probeIn() time.Duration { return min(probeAfter<<min(e.Probes, 10), probeMax) }

// hold keeps attempts from the endpoint until a time, or for longer if it is held for longer already.
func (e *Endpoint) hold(until time.Time) {
	if e.HoldUntil == nil || until.After(*e.HoldUntil) {
		e.HoldUntil = &until
	}
}

func (e *Endpoint) disable(reason string) []string {
	if !e.Enabled {
		return nil
	}
	e.Enabled, e.DisabledReason = false, &reason
	return []string{EventEndpointDisabled}
}

// applyHealth changes the touched endpoints by their results, and returns what operators want to know of.
func (s *Store) applyHealth(ctx context.Context, tx pgx.Tx, touched []uuid.UUID, results []AttemptResult) (changes []Change, err error) {
	endpoints, err := many[Endpoint](ctx, tx, `
		select `+endpointColumns+`
		from endpoints e
		where e.id = any($1) and e.deleted_at is null
		order by e.id
		for no key update`, touched)
	if err != nil {
		return nil, fmt.Errorf("read endpoints: %w", err)
	}
	found := byID(endpoints, func(e *Endpoint) uuid.UUID { return e.ID })
	var well []*Endpoint // again
	for _, r := range results {
		ep := found[r.EndpointID]
		if ep == nil {
			continue
		}
		r.clockError = s.ClockError()
		events := ep.apply(r)
		changes = append(changes, changesOf(ep, r, events)...)
		if r.Delivered && (r.Test || slices.Contains(events, EventEndpointRecovered)) && !slices.Contains(well, ep) {
			well = append(well, ep)
		}
		if err := s.emitAll(ctx, tx, ep, events, r.At); err != nil {
			return nil, err
		}
	}
	if err := s.makeDue(ctx, tx, well...); err != nil {
		return nil, err
	}
	if err := raise(ctx, tx, changes, s.now()); err != nil {
		return nil, err
	}
	return changes, saveHealth(ctx, tx, slices.Collect(maps.Values(found)))
}

// emitAll emits events of the given types about an endpoint.
func (s *Store) emitAll(ctx context.Context, tx pgx.Tx, ep *Endpoint, eventTypes []string, at time.Time) error {
	for _, eventType := range eventTypes {
		if err := s.emitForEndpoint(ctx, tx, ep, eventType, at); err != nil {
			return err
		}
	}
	return nil
}

// saveHealth writes what results have changed of endpoints.
func saveHealth(ctx context.Context, tx pgx.Tx, endpoints []*Endpoint) error {
	batch := &pgx.Batch{}
	for _, e := range endpoints {
		batch.Queue(`
			update endpoints
			set enabled = $2, disabled_reason = $3, breaker = $4, failures = $5, probes = $6, failing_since = $7, hold_until = $8
			where id = $1`, e.ID, e.Enabled, e.DisabledReason, e.Breaker, e.Failures, e.Probes, e.FailingSince, e.HoldUntil)
	}
	return wrapped("save endpoint health", tx.SendBatch(ctx, batch).Close())
}

// Health is how an endpoint does.
type Health struct {
	InFlight       int
	Queued         int        // parked
	OldSecretUntil *time.Time // until then the replaced secret signs too
	Recent         []Attempt  // the last attempts, the newest first
}

// EndpointHealth reads how an endpoint does, with its last attempts.
func (s *Store) EndpointHealth(ctx context.Context, id uuid.UUID, attempts int) (h Health, err error) {
	err = s.pool.QueryRow(ctx, `
		select
			(select count(*) from deliveries where endpoint_id = $1 and parked),
			(select count(*) from `+withJob+` j join deliveries d on d.id = j.delivery
				where j.state = 'running' and d.endpoint_id = $1 and d.status = 'pending' and (not j.first or d.attempt_count = 0)),
			(select old_secret_expires_at from endpoints where id = $1 and old_secret_expires_at > $2)`, id, s.now()).
		Scan(&h.Queued, &h.InFlight, &h.OldSecretUntil)
	if err != nil {
		return h, fmt.Errorf("read endpoint health: %w", err)
	}
	h.Recent, err = many[Attempt](ctx, s.pool, `
		select a.delivery_id, a.number, a.at, a.duration_ms, a.outcome, a.response_status, a.error
		from (select id from deliveries where endpoint_id = $1 and attempt_count > 0 order by id desc limit $2) d
		join attempts a on a.delivery_id = d.id
		order by a.at desc
		limit $2`, id, attempts)
	return h, wrapped("read attempts", err)
}

// EndpointCounts counts the endpoints by state, for metrics.
func (s *Store) EndpointCounts(ctx context.Context) (byBreaker map[string]int64, disabled, parked int64, err error) {
	byBreaker, err = pairs[string, int64](ctx, s.pool, `select breaker, count(*) from endpoints where deleted_at is null group by breaker`)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("count breakers: %w", err)
	}
	err = s.pool.QueryRow(ctx, `
		select (select count(*) from endpoints where deleted_at is null and not enabled), (select count(*) from deliveries where parked)`).
		Scan(&disabled, &parked)
	return byBreaker, disabled, parked, wrapped("count disabled endpoints", err)
}
