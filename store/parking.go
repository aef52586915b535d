package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Parking holds deliveries that their endpoint does not take now: it is disabled, its breaker is open, it asked to be left
// alone, it has a rate limit, or it has all the attempts in flight that it may have. A parked delivery waits in its table
// and has no job, so it costs neither a worker nor a query however many there are.
//
//	queued (a job) ──ParkDelivery──▸ parked ──Release──▸ queued, with the next generation
//	created while the endpoint parks ──▸ parked
//	failed ──Recover──▸ parked, so that what is recovered does not hold up what is new
//
// A delivery's generation counts its jobs: a job of an older generation does nothing. So a job that was fetched before
// its delivery was parked and released again cannot send it twice.
//
// endpoints.backlog says that the endpoint may have parked deliveries: only such endpoints are looked at, and their new
// deliveries are parked behind those that wait. Whoever parks sets the mark and keeps the row FOR KEY SHARE
// until the commit (lockBacklog); clearBacklog takes it FOR UPDATE SKIP LOCKED and looks once more. So the mark is never
// cleared beside a delivery that is being parked.
//
// Lock order: endpoints by id, then deliveries. Release locks its one endpoint and skips deliveries that are locked.

// parksNow returns the SQL condition under which new deliveries of the endpoint with the given alias are parked.
func parksNow(endpoint string) string {
	return fmt.Sprintf(`(not %[1]s.enabled or %[1]s.breaker <> 'closed' or %[1]s.backlog or %[1]s.rate_limit is not null
		or coalesce(%[1]s.hold_until > now(), false))`, endpoint)
}

// Parking asks for a delivery to be parked: its endpoint takes no attempt now.
type Parking struct {
	DeliveryID uuid.UUID
	EndpointID uuid.UUID
	Generation int // of the delivery's job
}

// ParkDelivery takes a delivery out of the queue until [Store.Release] gives it a job again. Parkings that come at the
// same time share a transaction.
func (s *Store) ParkDelivery(ctx context.Context, p Parking) error {
	_, err := s.park.Do(ctx, p)
	return err
}

var parkingColumns = []column[Parking]{
	col("id", "uuid", func(p Parking) uuid.UUID { return p.DeliveryID }),
	col("generation", "int", func(p Parking) int { return p.Generation }),
}

func (s *Store) parkBatch(ctx context.Context, parkings []Parking) ([]struct{}, error) {
	endpoints := distinct(parkings, func(p Parking) uuid.UUID { return p.EndpointID })
	return make([]struct{}, len(parkings)), s.tx(ctx, "park deliveries", func(tx pgx.Tx) error {
		if err := lockBacklog(ctx, tx, endpoints); err != nil {
			return err
		}
		from, args := unnest("p", parkings, parkingColumns)
		_, err := tx.Exec(ctx, `
			update deliveries d
			set parked = true
			from `+from+`
			where d.id = p.id and d.generation = p.generation and d.status = 'pending'`, args...)
		return err
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
	if err != nil {
		return fmt.Errorf("mark backlog: %w", err)
	}
	return nil
}

// clearBacklog takes the mark off an endpoint that has no parked deliveries left, unless somebody is parking one.
func clearBacklog(ctx context.Context, tx pgx.Tx, endpoint uuid.UUID) error {
	rows, err := tx.Query(ctx, `select id from endpoints where id = $1 for update skip locked`, endpoint)
	if err != nil {
		return fmt.Errorf("clear backlog: %w", err)
	}
	locked, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil || len(locked) == 0 {
		return err
	}
	_, err = tx.Exec(ctx, `
		update endpoints set backlog = false
		where id = $1 and not exists (select 1 from deliveries where endpoint_id = $1 and parked)`, endpoint)
	if err != nil {
		return fmt.Errorf("clear backlog: %w", err)
	}
	return nil
}

// Releasable returns the endpoints that have parked deliveries and may be sent some of them now.
func (s *Store) Releasable(ctx context.Context) ([]uuid.UUID, error) {
	rows, err := s.pool.Query(ctx, `
		select id from endpoints
		where backlog and enabled and deleted_at is null and (hold_until is null or hold_until <= $1)`, s.now())
	if err != nil {
		return nil, fmt.Errorf("find endpoints with a backlog: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
}

// Release gives up to room of an endpoint's parked deliveries a job, the oldest first, and returns their number. A rate
// limit grants no more than it allows; an open breaker whose time has come grants one, the probe.
func (s *Store) Release(ctx context.Context, endpoint uuid.UUID, room int) (released int, err error) {
	err = s.tx(ctx, "release deliveries", func(tx pgx.Tx) error {
		now := s.now()
		rows, err := tx.Query(ctx, `
			select `+endpointColumns+` from endpoints e
			where e.id = $1 and e.backlog and e.enabled and e.deleted_at is null for no key update`, endpoint)
		ep, err := one[Endpoint](rows, err)
		if err != nil {
			return ignoring(err, ErrNotFound)
		}
		if ep.HoldUntil != nil && ep.HoldUntil.After(now) {
			return nil
		}
		probe := ep.Breaker != BreakerClosed
		if probe {
			room = 1
		}
		if room, err = takeRate(ctx, tx, ep, room, now); err != nil || room == 0 {
			return err
		}
		jobs, err := unpark(ctx, tx, endpoint, room)
		if err != nil {
			return err
		}
		released = len(jobs)
		if err := s.insertDeliverJobs(ctx, tx, jobs); err != nil {
			return err
		}
		if probe && released == 1 {
			_, err := tx.Exec(ctx, `
				update endpoints set breaker = $2, hold_until = $3 where id = $1`, endpoint, BreakerHalfOpen, now.Add(probeTimeout))
			return err
		}
		if released < room {
			return clearBacklog(ctx, tx, endpoint)
		}
		return nil
	})
	return released, err
}

// takeRate reserves up to room deliveries of the endpoint's rate limit. At most a second's worth, or one delivery,
// accumulates.
func takeRate(ctx context.Context, tx pgx.Tx, ep Endpoint, room int, now time.Time) (int, error) {
	if ep.RateLimit == nil {
		return room, nil
	}
	var granted int
	err := tx.QueryRow(ctx, `
		with s as (
			select greatest(next_slot_at, $3::timestamptz - make_interval(secs => greatest(1, 1 / rate_limit))) as since, rate_limit
			from endpoints where id = $1
		), g as (
			select since, least($2, floor(extract(epoch from $3::timestamptz - since) * rate_limit + 0.001))::int as n from s
		)
		update endpoints e set next_slot_at = g.since + make_interval(secs => g.n / e.rate_limit)
		from g
		where e.id = $1
		returning g.n`, ep.ID, room, now).Scan(&granted)
	if err != nil {
		return 0, fmt.Errorf("take rate: %w", err)
	}
	return max(granted, 0), nil
}

func unpark(ctx context.Context, tx pgx.Tx, endpoint uuid.UUID, n int) ([]DeliverArgs, error) {
	rows, err := tx.Query(ctx, `
		update deliveries
		set parked = false, generation = generation + 1
		where id in (select id from deliveries where endpoint_id = $1 and parked order by id limit $2 for update skip locked)
		returning id, generation, attempt_count + 1`, endpoint, n)
	if err != nil {
		return nil, fmt.Errorf("unpark: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (j DeliverArgs, err error) {
		return j, row.Scan(&j.DeliveryID, &j.Generation, &j.Released)
	})
}

// recoverBatch is how many failed deliveries a transaction parks.
const recoverBatch = 2000

// Recover parks all deliveries of an endpoint that have failed since a time, so that they are sent again as the endpoint
// takes them, and returns their number.
func (s *Store) Recover(ctx context.Context, scope Scope, endpoint uuid.UUID, since time.Time) (n int, err error) {
	if _, err := s.Endpoint(ctx, scope, endpoint); err != nil {
		return 0, err
	}
	for {
		var batch int64
		err := s.tx(ctx, "recover", func(tx pgx.Tx) error {
			if err := lockBacklog(ctx, tx, []uuid.UUID{endpoint}); err != nil {
				return err
			}
			// A delivery may have been created long before it failed. The failed ones are few and have an index, so the
			// time of their last attempt decides.
			tag, err := tx.Exec(ctx, `
				update deliveries
				set status = 'pending', failed = false, parked = true, round_start = attempt_count, next_attempt_at = $3
				where id in (
					select d.id
					from deliveries d
					where d.endpoint_id = $1 and d.failed
						and exists (select 1 from attempts a where a.delivery_id = d.id and a.number = d.attempt_count and a.at >= $2)
					order by d.id
					limit $4
					for update skip locked
				)`, endpoint, since, s.now(), recoverBatch)
			batch = tag.RowsAffected()
			return err
		})
		n += int(batch)
		if err != nil || batch < recoverBatch {
			return n, err
		}
	}
}
