package store

import (
	"context"
	"fmt"
	"time"
)

// purgeBatch is how many rows a statement deletes at most.
const purgeBatch = 5000

// Purge deletes what was made before a time and is finished: attempts, deliveries, events, tasks with
// their subscriptions, and idempotency keys older than a day. It returns the number of rows.
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
			select e.id from events e where e.id < $1 and not exists (select 1 from deliveries d where d.event_id = e.id and d.status = 'pending'
				and d.task is not distinct from e.task)
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
		`delete from audit where at < $1`:                    auditKept,
		`delete from resends where finished_at < $1`:         resendsKept,
	} {
		tag, err := s.pool.Exec(ctx, sql, s.now().Add(-kept))
		if err != nil {
			return total, fmt.Errorf("purge: %w", err)
		}
		total += tag.RowsAffected()
	}
	return total, nil
}
