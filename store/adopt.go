package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Whatever is pending has a job, and the two are made and changed in one transaction. A job can be lost all the same: an
// operator deletes or cancels it, or a tool trims the queue. So a sweep looks for pending work without a live job, whatever
// the reason. Each pending delivery is in one of three sets, none of which needs an index on the status:
//
//	parked     it waits for its endpoint, without a job (parking.go)
//	retrying   it has a job of its own, and deliveries_retrying holds it
//	shared     it has had no attempt, and shares a job with others of its moment
//
// The third are the newest deliveries. sweep.settled is an id below which there is none: the sweep reads on from there by
// the primary key, and moves it to the first that it finds. A delivery that has been among them for sharedFor joins the
// second set, so only the last minute's deliveries are read repeatedly.

const (
	// orphanAfter is how long a delivery must have been due before its job is looked for. Jobs are fetched within
	// milliseconds, so that in normal running none is.
	orphanAfter = 3 * time.Second
	// sharedFor is how long a delivery can be among those with a shared job.
	sharedFor = time.Minute
	// sweepChunk and sweepChunks bound the deliveries that a sweep reads, and sweepPage those whose jobs a statement looks for.
	sweepChunk, sweepChunks, sweepPage = 20_000, 25, 20_000
)

// AdoptJobs inserts the poll and upload jobs that accounts have lost, and returns their number. Of several calls of it and of
// AdoptOrphans at the same time all but one do nothing.
func (s *Store) AdoptJobs(ctx context.Context) (int, error) {
	return s.sweep(allowing(ctx, longTimeout), func(tx pgx.Tx, _ uuid.UUID, _ bool) (int, error) {
		polled, err := withoutJob(ctx, tx, QueuePoll, "poll_job", ` or exists (select 1 from tasks t where t.account_id = a.id and t.polling)`)
		if err != nil {
			return 0, err
		}
		if err := s.insertPollJobs(ctx, tx, polled); err != nil {
			return 0, err
		}
		uploading, err := withoutJob(ctx, tx, QueueUpload, "upload_job", "")
		if err != nil {
			return 0, err
		}
		return len(polled) + len(uploading), s.insertUploadJobs(ctx, tx, uploading)
	})
}

// AdoptOrphans inserts jobs for deliveries that are due and have lost their own, and returns their number. It cancels deliveries to
// endpoints that were deleted meanwhile.
func (s *Store) AdoptOrphans(ctx context.Context) (n int, err error) {
	ctx = allowing(ctx, longTimeout)
	var page []pendingDelivery // of those with a job of their own
	n, err = s.sweep(ctx, func(tx pgx.Tx, settled uuid.UUID, deleted bool) (_ int, err error) {
		if page, err = dueRetrying(ctx, tx, pendingDelivery{}); err != nil {
			return 0, err
		}
		shared, err := dueShared(ctx, tx, settled)
		due := append(slices.Clone(page), shared...)
		if err != nil || len(due) == 0 && !deleted {
			return 0, err // nearly always
		}
		return s.adoptDeliveries(ctx, tx, due)
	})
	for err == nil && len(page) == sweepPage {
		var adopted int
		last := page[sweepPage-1]
		page = nil
		adopted, err = s.sweep(ctx, func(tx pgx.Tx, _ uuid.UUID, _ bool) (_ int, err error) {
			if page, err = dueRetrying(ctx, tx, last); err != nil {
				return 0, err
			}
			return s.adoptDeliveries(ctx, tx, page)
		})
		n += adopted
	}
	return n, err
}

// sweep calls fn in a transaction that holds the sweep, unless another instance has it, and returns what fn returns. deleted
// reports whether endpoints were deleted within the last day.
func (s *Store) sweep(ctx context.Context, fn func(tx pgx.Tx, settled uuid.UUID, deleted bool) (int, error)) (n int, err error) {
	err = s.tx(ctx, "adopt orphans", func(tx pgx.Tx) error {
		// Where the tables' statistics are old the planner would read all of a table for a handful of its rows, and all of an index
		// for a page of it.
		var settled uuid.UUID
		var deleted bool
		n = 0
		err := tx.QueryRow(ctx, `
			select settled, exists (select from endpoints where deleted_at > now() - interval '1 day')
			from sweep
			where set_config('enable_seqscan', 'off', true) = 'off' and set_config('enable_bitmapscan', 'off', true) = 'off'
			for update skip locked`).Scan(&settled, &deleted)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		n, err = fn(tx, settled, deleted)
		return err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// withoutJob returns the accounts that have no job in a queue, though their flag says so or they need one, and sets the flag.
func withoutJob(ctx context.Context, tx pgx.Tx, queue, flag, orNeeded string) ([]uuid.UUID, error) {
	accounts, err := scalars[uuid.UUID](ctx, tx, `
		select a.id
		from accounts a
		where (a.`+flag+orNeeded+`) and not exists (
			select 1 from river_job j
			where j.queue = $1 and j.state in ('available', 'pending', 'running', 'scheduled', 'retryable')
				and j.args ->> 'account_id' = a.id::text
		)
		for no key update skip locked`, queue)
	if err == nil && len(accounts) > 0 {
		_, err = tx.Exec(ctx, `update accounts set `+flag+` = true where id = any($1) and not `+flag, accounts)
	}
	return accounts, wrapped("look for accounts without a job in the queue "+queue, err)
}

// pendingDelivery is a delivery as the sweep has read it. Whatever happens to it changes one of the two numbers or its status.
type pendingDelivery struct {
	ID           uuid.UUID
	EndpointID   uuid.UUID // where it has a job of its own
	Generation   int
	AttemptCount int
}

var pendingColumns = []column[pendingDelivery]{
	col("id", "uuid", func(d pendingDelivery) uuid.UUID { return d.ID }),
	col("generation", "int", func(d pendingDelivery) int { return d.Generation }),
	col("attempt_count", "int", func(d pendingDelivery) int { return d.AttemptCount }),
}

// dueRetrying returns the next page of the deliveries that have, or had, a job of their own and have been due for orphanAfter, in the
// order of their index, so that a page reads no further than it must.
func dueRetrying(ctx context.Context, tx pgx.Tx, after pendingDelivery) ([]pendingDelivery, error) {
	due, err := many[pendingDelivery](ctx, tx, `
		select id, endpoint_id, generation, attempt_count
		from deliveries
		where retrying and not parked and status = 'pending' and coalesce(next_attempt_at, created_at) < now() - $1::interval
			and (endpoint_id, id) > ($2, $3)
		order by endpoint_id, id
		limit $4`, orphanAfter, after.EndpointID, after.ID, sweepPage)
	return due, wrapped("look for deliveries with a job", err)
}

// dueShared returns deliveries that have, or had, a shared job and have been due for orphanAfter. None before settled has one.
func dueShared(ctx context.Context, tx pgx.Tx, settled uuid.UUID) ([]pendingDelivery, error) {
	now, err := databaseTime(ctx, tx)
	if err != nil {
		return nil, err
	}
	shared, end, err := sharedDeliveries(ctx, tx, settled, now.Add(-orphanAfter))
	if err != nil {
		return nil, err
	}
	if len(shared) == 0 && end == settled {
		return nil, nil // nothing has changed since the last sweep
	}
	// Those that have waited for long are among the retrying from now on. Their shared job may still make the attempt.
	old := idAt(now.Add(-sharedFor))
	for _, d := range shared {
		if bytes.Compare(d.ID[:], old[:]) >= 0 {
			end = d.ID
			break
		}
	}
	_, err = tx.Exec(ctx, `
		update deliveries
		set retrying = true
		where id in (
			select id from deliveries
			where id = any($1) and id < $2 and status = 'pending' and not parked and not retrying
			for update
		)`, distinct(shared, func(d pendingDelivery) uuid.UUID { return d.ID }), old)
	if err != nil {
		return nil, fmt.Errorf("mark deliveries that wait for their first attempt: %w", err)
	}
	if _, err := tx.Exec(ctx, `update sweep set settled = $1 where settled <> $1`, end); err != nil {
		return nil, fmt.Errorf("move the sweep on: %w", err)
	}
	return shared, nil
}

// sharedDeliveries reads the deliveries between an id and a time, and returns those that wait for their first attempt, in
// order and about as many as sweepPage at most, and the id up to which it has read. One at the border of two chunks comes twice.
func sharedDeliveries(ctx context.Context, tx pgx.Tx, from uuid.UUID, until time.Time) (
	shared []pendingDelivery, end uuid.UUID, err error,
) {
	for range sweepChunks {
		var read int
		var open []uuid.UUID
		err := tx.QueryRow(ctx, `
			with chunk as materialized (
				select id, status = 'pending' and not parked and not retrying and generation = 0 and attempt_count = 0 as open
				from deliveries
				where id >= $1 and id < $2
				order by id
				limit $3
			)
			select count(*), coalesce((select id from chunk order by id desc limit 1), $1),
				coalesce(array_agg(id order by id) filter (where open), '{}')
			from chunk`, from, idAt(until), sweepChunk).Scan(&read, &from, &open)
		if err != nil {
			return nil, from, fmt.Errorf("look for deliveries without an attempt: %w", err)
		}
		for _, id := range open {
			shared = append(shared, pendingDelivery{ID: id})
		}
		if read < sweepChunk || len(shared) >= sweepPage {
			break
		}
	}
	return shared, from, nil
}

// liveJobs is the SQL set of the deliveries whose job runs, or will within seconds.
const liveJobs = `(
	select (j.args ->> 'delivery_id')::uuid as delivery, coalesce((j.args ->> 'generation')::int, 0) as generation
	from river_job j
	where j.kind = 'deliver' and ` + liveJob + `
	union all
	select i.id::uuid, 0
	from river_job j
	cross join lateral jsonb_array_elements_text(j.args -> 'deliveries') as i (id)
	where j.kind = 'deliver_first' and ` + liveJob + `
)`

const liveJob = `(j.state in ('available', 'running', 'retryable', 'pending')
	or (j.state = 'scheduled' and j.scheduled_at < now() + interval '10 s'))`

// adoptDeliveries inserts jobs for the deliveries that have none, and cancels those whose endpoint was deleted.
func (s *Store) adoptDeliveries(ctx context.Context, tx pgx.Tx, due []pendingDelivery) (int, error) {
	if err := cancelStragglers(ctx, tx, due); err != nil || len(due) == 0 {
		return 0, err
	}
	// Whatever the planner expects, the two sets are hashed, not compared with each other one by one.
	if _, err := tx.Exec(ctx, `set local enable_nestloop = off`); err != nil {
		return 0, err
	}
	from, args := unnest("d", due, pendingColumns)
	// A statement of its own: a job that it does not see has ended, and what it has done to its delivery is seen below.
	orphans, err := many[pendingDelivery](ctx, tx, `
		select d.id, d.generation, d.attempt_count
		from `+from+`
		where not exists (select 1 from `+liveJobs+` j where j.delivery = d.id and j.generation = d.generation)`, args...)
	if err != nil {
		return 0, fmt.Errorf("look for the jobs of deliveries: %w", err)
	}
	if len(orphans) == 0 {
		return 0, nil
	}
	if _, err := tx.Exec(ctx, `set local enable_nestloop = on`); err != nil {
		return 0, err
	}
	from, args = unnest("o", orphans, pendingColumns)
	jobs, err := many[DeliverArgs](ctx, tx, `
		update deliveries d
		set generation = d.generation + 1, retrying = true
		where d.id in (
			select d.id
			from deliveries d
			join `+from+` on o.id = d.id
			where d.generation = o.generation and d.attempt_count = o.attempt_count and d.status = 'pending' and not d.parked
			for update of d skip locked
		)
		returning d.id as delivery_id, d.generation`, args...)
	if err != nil {
		return 0, fmt.Errorf("adopt deliveries: %w", err)
	}
	return len(jobs), s.insertDeliverJobs(ctx, tx, jobs)
}

// cancelStragglers cancels what is still to be delivered to endpoints that were deleted within the last day: it was made or
// sent again while the endpoint was being deleted, or was too much for its transaction. (Where no instance runs for a day, purging
// does it.) It cancels those of due whose event is gone, too.
func cancelStragglers(ctx context.Context, tx pgx.Tx, due []pendingDelivery) error {
	if _, err := cancelWaiting(ctx, tx, `e.deleted_at > now() - $1::interval`, 24*time.Hour); err != nil {
		return err
	}
	stragglers, err := scalars[uuid.UUID](ctx, tx, `
		select o.id
		from deliveries o
		left join endpoints e on e.id = o.endpoint_id
		where o.id = any($1) and o.status = 'pending'
			and (e.deleted_at is not null or not exists (select 1 from events v where v.id = o.event_id))
		for update of o skip locked`, distinct(due, func(d pendingDelivery) uuid.UUID { return d.ID }))
	if err != nil {
		return fmt.Errorf("find deliveries of which nothing can come: %w", err)
	}
	_, err = cancelDeliveries(ctx, tx, stragglers)
	return err
}
