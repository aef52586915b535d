package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const (
	// purgeBatch is how many rows a statement deletes at most.
	purgeBatch = 2000
	// purgeRest is for how many times as long as a full batch has taken the purge rests before the next, so that what goes on
	// beside it keeps nine tenths of the database.
	purgeRest = 9
)

// wholeDays is the least retention at which events and attempts are deleted only by whole days, up to a day late. With a
// shorter one their rows are deleted, too.
const wholeDays = 3 * 24 * time.Hour

// Purge deletes what has been finished for longer than a retention by the database's clock: tasks with their subscriptions by
// their end, uploads by theirs, deliveries by their last attempt, events and attempts by their day once their deliveries are
// gone, and then what has no purpose any more: idle endpoints that no app has created or changed and whose secret nobody has read,
// deleted endpoints and apps, expired secrets and sessions, idempotency keys, activity and alerts. It returns the number of rows and partitions.
func (s *Store) Purge(ctx context.Context, retention time.Duration) (total int64, err error) {
	ctx = allowing(ctx, longTimeout)
	now, err := databaseTime(ctx, s.pool)
	if err != nil {
		return 0, err
	}
	before := now.Add(-retention)
	var whole []string // the old partitions that stay
	steps := []func() (int64, error){
		func() (int64, error) { return s.purgeTasks(ctx, before) },
		func() (int64, error) { return s.deleteOld(ctx, oldUploads, before) },
		func() (int64, error) { return s.deleteOld(ctx, oldDeliveries, before) },
		func() (n int64, err error) {
			n, whole, err = s.dropPartitions(ctx, before)
			return n, err
		},
		func() (int64, error) { return s.deleteRest(ctx, before, retention < wholeDays, whole) },
		func() (int64, error) { return s.purgeDeleted(ctx, now) },
		func() (int64, error) { return s.purgeIdle(ctx, before) },
		func() (int64, error) { return s.purgeByAge(ctx, now) },
	}
	for _, step := range steps {
		n, err := step()
		total += n
		if err != nil {
			return total, fmt.Errorf("purge: %w", err)
		}
	}
	return total, nil
}

// databaseTime returns what the database's clock shows.
func databaseTime(ctx context.Context, q querier) (now time.Time, err error) {
	err = q.QueryRow(ctx, `select clock_timestamp()`).Scan(&now)
	return now, wrapped("read the database's clock", err)
}

// purgeTasks deletes tasks that ended before a time.
func (s *Store) purgeTasks(ctx context.Context, before time.Time) (total int64, err error) {
	for {
		start := time.Now()
		tag, err := s.pool.Exec(ctx, `
			with gone as (
				delete from tasks
				where id in (select id from tasks where ended_at < $1 and not polling order by ended_at limit $2 for update skip locked)
				returning id
			), subscriptions as (
				delete from subscriptions s using gone where s.task = gone.id
			)
			select 1 from gone`, before, purgeBatch)
		if err != nil {
			return total, err
		}
		if total += tag.RowsAffected(); tag.RowsAffected() < purgeBatch || !rest(ctx, start) {
			break
		}
	}
	// The version before did not write when a task ended.
	n, err := s.deleteOld(ctx, `
		with old as materialized (
			select id from tasks
			where id > $1 and id < $2 and not polling and ended_at is null
				and greatest(ready_at, indexed_at, last_polled_at, to_timestamp(closed / 1000000.0)) < $3
			order by id
			limit $4
		), gone as (
			delete from tasks where id in (select id from old)
		), subscriptions as (
			delete from subscriptions s using old where s.task = old.id
		)
		select count(*), (select id from old order by id desc limit 1) from old`, before)
	return total + n, err
}

// oldDeliveries deletes a batch of deliveries for [Store.deleteOld]. The end decides, of a failed one its last attempt: it may
// have been made long ago, parked for weeks, or sent again.
const oldDeliveries = `
	with old as materialized (
		select d.id
		from deliveries d
		where d.id > $1 and d.id < $2 and d.status <> 'pending' and coalesce(d.delivered_at, d.cancelled_at, '-infinity') < $3
			and (not d.failed or not exists (select 1 from attempts a where a.delivery_id = d.id and a.at >= $3))
		order by d.id
		limit $4
	), gone as (
		delete from deliveries where id in (select id from old)
	)
	select count(*), (select id from old order by id desc limit 1) from old`

const oldUploads = `
	with old as materialized (
		select id from uploads where id > $1 and id < $2 and status <> 'queued' and finished_at < $3 order by id limit $4
	), gone as (
		delete from uploads where id in (select id from old)
	)
	select count(*), (select id from old order by id desc limit 1) from old`

// deleteOld deletes rows that were made before a time, in batches by their ids. sql deletes up to $4 rows with ids between $1
// and $2, and returns their number and the greatest id.
func (s *Store) deleteOld(ctx context.Context, sql string, before time.Time) (total int64, err error) {
	after, bound := uuid.Nil, idAt(before)
	for {
		start := time.Now()
		var n int64
		var last uuid.NullUUID
		if err := s.pool.QueryRow(ctx, sql, after, bound, before, purgeBatch).Scan(&n, &last); err != nil {
			return total, err
		}
		total += n
		if n < purgeBatch || !rest(ctx, start) {
			return total, nil
		}
		after = last.UUID
	}
}

// rest waits for purgeRest times as long as a batch that began at start has taken. It returns false where ctx is done first.
func rest(ctx context.Context, start time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(purgeRest * time.Since(start)):
		return true
	}
}

// deleteRest deletes the events and attempts that do not go with their day: those of the first partition, which holds what
// was there before there were partitions, those of the default ones and of the given ones, and all where all is set. It keeps the
// events of tasks that are stored: whoever subscribes to one late is sent them.
func (s *Store) deleteRest(ctx context.Context, before time.Time, all bool, names []string) (total int64, err error) {
	// The rows of one delivery may be in two batches, so that a batch begins where the one before has ended.
	const events = `
		with old as materialized (
			select e.id from %[1]s e
			where e.id >= $1 and e.id < $2 and $3::timestamptz is not null
				and not exists (select 1 from deliveries d where d.event_id = e.id)
				and not exists (select 1 from tasks t where t.id = e.task)
			order by e.id
			limit $4
		), gone as (
			delete from %[1]s e using old where e.id = old.id
		)
		select count(*), (select id from old order by id desc limit 1) from old`
	const attempts = `
		with old as materialized (
			select a.delivery_id, a.number from %[1]s a
			where a.delivery_id >= $1 and a.delivery_id < $2 and $3::timestamptz is not null
				and not exists (select 1 from deliveries d where d.id = a.delivery_id)
			order by a.delivery_id, a.number
			limit $4
		), gone as (
			delete from %[1]s a using old where a.delivery_id = old.delivery_id and a.number = old.number
		)
		select count(*), (select delivery_id from old order by delivery_id desc limit 1) from old`
	suffixes := []string{"_before", "_default"}
	if all {
		suffixes = []string{""}
	}
	parents, err := pairs[string, string](ctx, s.pool, `
		select t.name || p.suffix, t.name
		from unnest($1::text[]) as t (name)
		cross join unnest($2::text[]) as p (suffix)
		where to_regclass(t.name || p.suffix) is not null
		union
		select name, parent from partitions where name = any($3)`, partitioned, suffixes, names)
	if err != nil {
		return 0, err
	}
	for name, parent := range parents {
		sql := events
		if parent == "attempts" {
			sql = attempts
		}
		n, err := s.deleteOld(ctx, fmt.Sprintf(sql, name), before)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// purgeByAge deletes what is kept for a time of its own.
func (s *Store) purgeByAge(ctx context.Context, now time.Time) (total int64, err error) {
	for sql, kept := range map[string]time.Duration{
		`delete from idempotency_keys where created_at < $1`:                                              idempotencyKept,
		`update uploads set idempotency_key = null where idempotency_key is not null and created_at < $1`: idempotencyKept,
		`delete from activity where minute < $1`:                                                          activityKept,
		`delete from activity_hours where minute < $1`:                                                    hoursKept,
		`delete from endpoint_activity where at < $1`:                                                     hoursKept,
		`delete from ended_sessions where expires_at < $1`:                                                0,
		`delete from endpoint_secrets where expires_at < $1`:                                              0,
		`delete from audit where at < $1`:                                                                 auditKept,
		`delete from alerts where at < $1`:                                                                auditKept,
		`delete from resends where finished_at < $1`:                                                      resendsKept,
	} {
		tag, err := s.pool.Exec(ctx, sql, now.Add(-kept))
		total += tag.RowsAffected()
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// purgeDeleted deletes the subscriptions and cancels the deliveries that the deletion of their endpoint has left.
func (s *Store) purgeDeleted(ctx context.Context, now time.Time) (total int64, err error) {
	for {
		var n, cancelled int64
		start := time.Now()
		err := s.tx(ctx, "purge what deleted endpoints have left", func(tx pgx.Tx) (err error) {
			if n, err = deleteSubscriptions(ctx, tx, `e.deleted_at <= $1`, now); err != nil {
				return err
			}
			if _, err = tx.Exec(ctx, `set local enable_seqscan = off`); err != nil {
				return err
			}
			cancelled, err = cancelWaiting(ctx, tx, `e.deleted_at <= $1`, now)
			return err
		})
		if total += n; err != nil || max(n, cancelled) < deleteBatch || !rest(ctx, start) {
			return total, err
		}
	}
}

// idleEndpoint is the SQL condition that nothing is left that needs an endpoint e.
const idleEndpoint = `not exists (select 1 from subscriptions s where s.endpoint_id = e.id)
	and not exists (select 1 from deliveries d where d.endpoint_id = e.id)`

// purgeIdle deletes the endpoints and apps that have had nothing since a time and that nobody would miss: endpoints that were
// deleted, or that registrations have made, nothing subscribes to and whose secret nobody has read, and deleted apps.
func (s *Store) purgeIdle(ctx context.Context, before time.Time) (n int64, err error) {
	err = s.tx(ctx, "purge endpoints", func(tx pgx.Tx) error {
		locked, err := scalars[uuid.UUID](ctx, tx, `
			select e.id
			from endpoints e
			where (e.deleted_at < $1 or (e.deleted_at is null and not e.manual and e.secret_read_at is null and e.created_at < $1))
				and `+idleEndpoint+`
			limit $2
			for update skip locked`, before, purgeBatch)
		if err != nil || len(locked) == 0 {
			return err
		}
		// A second statement, so that it sees what was registered before the lock was granted.
		gone, err := scalars[uuid.UUID](ctx, tx, `delete from endpoints e where id = any($1) and `+idleEndpoint+` returning id`, locked)
		n = int64(len(gone))
		if err != nil || n == 0 {
			return err
		}
		_, err = tx.Exec(ctx, `delete from endpoint_secrets where endpoint_id = any($1)`, gone)
		return err
	})
	if err != nil {
		return n, err
	}
	apps, err := s.purgeApps(ctx, before)
	return n + apps, err
}

// purgeApps deletes apps that were deleted before a time and of which nothing is stored any more.
func (s *Store) purgeApps(ctx context.Context, before time.Time) (n int64, err error) {
	var app uuid.UUID
	for {
		err := s.pool.QueryRow(ctx, `
			with gone as (
				select a.id from apps a
				where a.deleted_at < $1
					and not exists (select 1 from endpoints where app_id = a.id) and not exists (select 1 from tasks where app_id = a.id)
					and not exists (select 1 from deliveries where app_id = a.id) and not exists (select 1 from events where app_id = a.id)
				limit 1
			), keys as (
				delete from api_keys where app_id in (select id from gone)
			)
			select id from gone`, before).Scan(&app)
		if errors.Is(err, pgx.ErrNoRows) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		tag, err := s.pool.Exec(ctx, `delete from apps where id = $1`, app)
		n += tag.RowsAffected()
		if err != nil {
			return n, err
		}
	}
}
