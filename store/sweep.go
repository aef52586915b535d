package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// purgeBatch is how many rows a statement deletes at most.
const purgeBatch = 5000

// Purge deletes what was made before a time and is finished: attempts, deliveries, events, tasks with
// their subscriptions, and idempotency keys older than a day. It tells how many rows that were.
func (s *Store) Purge(ctx context.Context, before time.Time) (total int64, err error) {
	// Ids begin with the time of their making, so the oldest rows are the first of the primary key.
	bound := idAt(before)
	for _, sql := range []string{
		`delete from attempts where (delivery_id, number) in (
			select a.delivery_id, a.number from attempts a where a.delivery_id < $1
				and not exists (select 1 from deliveries d where d.id = a.delivery_id and d.status = 'pending')
			order by a.delivery_id limit $2)`,
		`delete from deliveries where id in (select id from deliveries where id < $1 and status <> 'pending' order by id limit $2)`,
		`delete from events where id in (
			select e.id from events e where e.id < $1 and not exists (select 1 from deliveries d where d.event_id = e.id and d.status = 'pending' and d.task is not distinct from e.task)
			order by e.id limit $2)`,
		`with gone as (
			delete from tasks where id in (select id from tasks where id < $1 and not polling order by id limit $2) returning id
		)
		delete from subscriptions s using gone where s.task = gone.id`,
	} {
		for {
			tag, err := s.pool.Exec(ctx, sql, bound, purgeBatch)
			if err != nil {
				return total, fmt.Errorf("purge: %w", err)
			}
			total += tag.RowsAffected()
			if tag.RowsAffected() < purgeBatch {
				break
			}
		}
	}
	for sql, kept := range map[string]time.Duration{
		`delete from idempotency_keys where created_at < $1`: idempotencyKept,
		`delete from activity where minute < $1`:             activityKept,
	} {
		tag, err := s.pool.Exec(ctx, sql, s.now().Add(-kept))
		if err != nil {
			return total, fmt.Errorf("purge: %w", err)
		}
		total += tag.RowsAffected()
	}
	return total, nil
}

// idAt gives the least UUIDv7 of a time: 48 bits of Unix milliseconds, then nothing.
func idAt(t time.Time) (id uuid.UUID) {
	binary.BigEndian.PutUint64(id[:8], uint64(t.UnixMilli())<<16)
	return id
}

// AdoptOrphans gives work that has lost its job a new one and tells how many there were: jobs that were
// cancelled or discarded by hand, or completed by an instance that was believed dead and came back.
func (s *Store) AdoptOrphans(ctx context.Context) (n int, err error) {
	err = s.tx(ctx, "adopt orphans", func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			select a.id
			from accounts a
			where a.poll_job and not exists (
				select 1 from river_job j
				where j.queue = 'poll' and j.state in ('available', 'pending', 'running', 'scheduled', 'retryable') and j.args ->> 'account_id' = a.id::text
			)
			for update skip locked`)
		if err != nil {
			return err
		}
		accounts, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		if err != nil {
			return err
		}
		rows, err = tx.Query(ctx, `
			update deliveries d
			set generation = d.generation + 1
			from `+withJob+` j
			where j.state in ('cancelled', 'discarded') and j.finalized_at > now() - interval '1 hour'
				and d.id = j.delivery and d.generation = j.generation and (not j.first or d.attempt_count = 0)
				and d.status = 'pending' and not d.parked
			returning d.id, d.generation`)
		if err != nil {
			return err
		}
		jobs, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (j DeliverArgs, err error) {
			return j, row.Scan(&j.DeliveryID, &j.Generation)
		})
		if err != nil {
			return err
		}
		n = len(accounts) + len(jobs)
		if err := s.insertPollJobs(ctx, tx, accounts); err != nil {
			return err
		}
		return s.insertDeliverJobs(ctx, tx, jobs)
	})
	return n, err
}
