package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Parking holds deliveries that their endpoint does not take now: it is disabled, its breaker is open, it asked to be left
// alone, it has a rate limit, or it has all the attempts in flight that it may have. A parked delivery waits in its table
// and has no job, so it costs neither a worker nor a query however many there are.
//
//	queued (a job) ──ParkDelivery──▸ parked ──Release──▸ queued, with the next generation
//	created while the endpoint parks ──▸ parked
//	failed ──Recover──▸ parked, with the next generation, so that recovered deliveries do not hold up new ones
//
// A delivery's generation counts its jobs: a job of an older generation does nothing. So a job that was fetched before
// its delivery was parked and released again cannot send it twice.
//
// endpoints.backlog says that the endpoint may have parked deliveries: only such endpoints are looked at, and their new
// deliveries are parked behind the waiting ones. Whoever parks sets the mark and locks the row FOR KEY SHARE
// until the commit (lockBacklog); clearBacklog takes it FOR UPDATE SKIP LOCKED and looks once more. So the mark is never
// cleared beside a delivery that is being parked.
//
// Lock order: endpoints by id, then deliveries. Release locks its one endpoint and skips deliveries that are locked.

// parksNow returns the SQL condition under which new deliveries of the endpoint with the given alias are parked.
func parksNow(endpoint string) string {
	return fmt.Sprintf(`(not %[1]s.enabled or %[1]s.breaker <> 'closed' or %[1]s.backlog or %[1]s.rate_limit is not null
		or coalesce(%[1]s.hold_until > now(), false))`, endpoint)
}

// ParkDelivery takes a delivery that its endpoint does not take now out of the queue, until [Store.Release] inserts a job for it.
// It does nothing if the delivery has another generation by now. Deliveries that come at the same time share a transaction.
func (s *Store) ParkDelivery(ctx context.Context, d *Delivery) error {
	_, err := s.park.Do(ctx, d)
	return err
}

var parkingColumns = []column[*Delivery]{
	col("id", "uuid", func(d *Delivery) uuid.UUID { return d.ID }),
	col("generation", "int", func(d *Delivery) int { return d.Generation }),
}

func (s *Store) parkBatch(ctx context.Context, deliveries []*Delivery) ([]struct{}, error) {
	endpoints := distinct(deliveries, func(d *Delivery) uuid.UUID { return d.EndpointID })
	return make([]struct{}, len(deliveries)), s.tx(ctx, "park deliveries", func(tx pgx.Tx) error {
		if err := lockBacklog(ctx, tx, endpoints); err != nil {
			return err
		}
		from, args := unnest("p", deliveries, parkingColumns)
		parked, err := scalars[uuid.UUID](ctx, tx, `
			update deliveries d
			set parked = true, retrying = false
			from `+from+`
			where d.id = p.id and d.generation = p.generation and d.status = 'pending'
			returning d.endpoint_id`, args...)
		if err != nil {
			return err
		}
		// A delivery whose endpoint was merged into another since it was loaded waits for that one.
		moved := slices.DeleteFunc(parked, func(id uuid.UUID) bool { return slices.Contains(endpoints, id) })
		return lockBacklog(ctx, tx, distinct(moved, func(id uuid.UUID) uuid.UUID { return id }))
	})
}

// lockBacklog marks endpoints as having parked deliveries and keeps the mark until the transaction ends.
func lockBacklog(ctx context.Context, tx pgx.Tx, endpoints []uuid.UUID) error {
	if len(endpoints) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `select 1 from endpoints where id = any($1) order by id for key share`, endpoints)
	if err == nil {
		// A second statement, so that it sees what the lock waited for.
		_, err = tx.Exec(ctx, `
			update endpoints set backlog = true
			where id in (select id from endpoints where id = any($1) and not backlog order by id for no key update)`, endpoints)
	}
	return wrapped("mark backlog", err)
}

// clearBacklog takes the mark off endpoints that have no parked deliveries left, unless somebody is parking one.
func clearBacklog(ctx context.Context, tx pgx.Tx, endpoints []uuid.UUID) error {
	if len(endpoints) == 0 {
		return nil
	}
	locked, err := scalars[uuid.UUID](ctx, tx, `select id from endpoints where id = any($1) order by id for update skip locked`, endpoints)
	if err != nil || len(locked) == 0 {
		return wrapped("clear backlog", err)
	}
	_, err = tx.Exec(ctx, `
		update endpoints e set backlog = false
		where id = any($1) and not exists (select 1 from deliveries where endpoint_id = e.id and parked)`, locked)
	return wrapped("clear backlog", err)
}

// Backlogged is an endpoint that has parked deliveries and may be sent some of them now.
type Backlogged struct {
	ID, AppID uuid.UUID
	URL       string
}

// Backlogged returns the endpoints that have parked deliveries and may be sent some of them now.
func (s *Store) Backlogged(ctx context.Context) ([]Backlogged, error) {
	list, err := many[Backlogged](ctx, s.pool, `
		select id, app_id, url from endpoints
		where backlog and enabled and deleted_at is null and (hold_until is null or hold_until <= $1)
		order by id`, s.now())
	return list, wrapped("find endpoints with a backlog", err)
}

// Room is how many deliveries of an endpoint have room among the attempts in flight.
type Room struct {
	EndpointID uuid.UUID
	Places     int
}

var roomColumns = []column[Room]{
	col("endpoint_id", "uuid", func(r Room) uuid.UUID { return r.EndpointID }),
	col("places", "int", func(r Room) int { return r.Places }),
}

// Release gives parked deliveries of endpoints a job, of each the oldest and as many as there is room for, and returns
// their number by endpoint. A rate limit grants no more than it allows; an open breaker whose time has come grants one,
// the probe.
func (s *Store) Release(ctx context.Context, rooms []Room) (released map[uuid.UUID]int, err error) {
	err = s.tx(ctx, "release deliveries", func(tx pgx.Tx) error {
		endpoints, err := many[Endpoint](ctx, tx, `
			select `+endpointColumns+`
			from endpoints e
			where e.id = any($1) and e.backlog and e.enabled and e.deleted_at is null
			order by e.id
			for no key update`, distinct(rooms, func(r Room) uuid.UUID { return r.EndpointID }))
		if err != nil {
			return err
		}
		granted, probes, err := s.grant(ctx, tx, endpoints, rooms)
		if err != nil {
			return err
		}
		jobs, counts, err := unpark(ctx, tx, granted)
		if err != nil {
			return err
		}
		released = counts
		if err := s.insertDeliverJobs(ctx, tx, jobs); err != nil {
			return err
		}
		return s.finishRelease(ctx, tx, granted, probes, released)
	})
	return released, err
}

// grant returns how many deliveries of each endpoint its health and its rate limit let out, and which of the
// endpoints are probed.
func (s *Store) grant(ctx context.Context, tx pgx.Tx, endpoints []Endpoint, rooms []Room) (granted []Room, probes []uuid.UUID, err error) {
	places := make(map[uuid.UUID]int, len(rooms))
	for _, r := range rooms {
		places[r.EndpointID] = r.Places
	}
	now := s.now()
	for _, ep := range endpoints {
		n := places[ep.ID]
		if ep.HoldUntil != nil && ep.HoldUntil.After(now) {
			continue
		}
		if ep.Breaker != BreakerClosed {
			n = min(n, 1)
		}
		if n, err = takeRate(ctx, tx, ep, n); err != nil {
			return nil, nil, err
		}
		if n == 0 {
			continue
		}
		granted = append(granted, Room{ep.ID, n})
		if ep.Breaker != BreakerClosed {
			probes = append(probes, ep.ID)
		}
	}
	return granted, probes, nil
}

// finishRelease marks the probed endpoints, and clears the backlog of endpoints with fewer parked deliveries than room.
func (s *Store) finishRelease(ctx context.Context, tx pgx.Tx, granted []Room, probes []uuid.UUID, released map[uuid.UUID]int) error {
	probes = slices.DeleteFunc(probes, func(id uuid.UUID) bool { return released[id] == 0 })
	if len(probes) > 0 {
		_, err := tx.Exec(ctx, `
			update endpoints set breaker = $2, hold_until = $3 where id = any($1)`, probes, BreakerHalfOpen, s.now().Add(probeTimeout))
		if err != nil {
			return fmt.Errorf("mark probes: %w", err)
		}
	}
	var empty []uuid.UUID
	for _, r := range granted {
		if released[r.EndpointID] < r.Places {
			empty = append(empty, r.EndpointID)
		}
	}
	return clearBacklog(ctx, tx, empty)
}

// takeRate reserves up to room deliveries of the endpoint's rate limit, by the database's clock. At most a second's worth, or one
// delivery, accumulates. A slot in the future is of an instance with a clock of its own, or of before the clock was set back.
func takeRate(ctx context.Context, tx pgx.Tx, ep Endpoint, room int) (granted int, err error) {
	if ep.RateLimit == nil {
		return room, nil
	}
	err = tx.QueryRow(ctx, `
		with s as (
			select now, rate_limit, greatest(least(next_slot_at, now), now - make_interval(secs => greatest(1, 1 / rate_limit))) as since
			from endpoints, clock_timestamp() as now
			where id = $1
		), g as (
			select since, least($2, floor(extract(epoch from now - since) * rate_limit + 0.001))::int as n from s
		)
		update endpoints e set next_slot_at = g.since + make_interval(secs => g.n / e.rate_limit)
		from g
		where e.id = $1
		returning g.n`, ep.ID, room).Scan(&granted)
	return granted, wrapped("take rate", err)
}

// unpark takes the oldest parked deliveries of endpoints out of parking, and returns the jobs that they need.
func unpark(ctx context.Context, tx pgx.Tx, granted []Room) (jobs []DeliverArgs, counts map[uuid.UUID]int, err error) {
	if len(granted) == 0 {
		return nil, nil, nil
	}
	from, args := unnest("n", granted, roomColumns)
	rows, err := tx.Query(ctx, `
		update deliveries
		set parked = false, retrying = true, generation = generation + 1
		where id in (
			select p.id
			from `+from+`
			cross join lateral (
				select id from deliveries where endpoint_id = n.endpoint_id and parked order by id limit n.places for update skip locked
			) p
		)
		returning id, generation, attempt_count + 1, endpoint_id`, args...)
	if err != nil {
		return nil, nil, fmt.Errorf("unpark: %w", err)
	}
	counts = make(map[uuid.UUID]int, len(granted))
	var j DeliverArgs
	var endpoint uuid.UUID
	_, err = pgx.ForEachRow(rows, []any{&j.DeliveryID, &j.Generation, &j.Released, &endpoint}, func() error {
		jobs = append(jobs, j)
		counts[endpoint]++
		return nil
	})
	return jobs, counts, err
}
