package store

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// A bulk resend is a row of its own, which maintenance works off in batches: what matches was counted before, and its progress
// can be read while it goes on. It looks at each delivery once, in the order of their ids. Resent deliveries are parked, so
// that their endpoints are sent no more at once than they take.

// What a bulk resend does with deliveries.
const (
	ActionResend = "resend"
	ActionCancel = "cancel"
)

// resendsKept is for how long the progress of a finished bulk resend can be read.
const resendsKept = 7 * 24 * time.Hour

// resendBatch is how many deliveries a transaction resends or cancels.
const resendBatch = 1000

// ResendFilter selects deliveries; zero fields but Scope and Status do not.
type ResendFilter struct {
	Scope        Scope
	Action       string // ActionResend or ActionCancel
	EndpointID   uuid.UUID
	Status       string // DeliveryFailed, DeliveryDelivered or DeliveryPending; only the last can be cancelled
	EventType    string
	Since, Until time.Time // of their creation
}

// BulkResend is the progress of one.
type BulkResend struct {
	ID         uuid.UUID
	Action     string
	Matched    int64 // when it was asked for
	Done       int64
	Skipped    int64 // what has changed since, or whose endpoint was deleted
	CreatedAt  time.Time
	FinishedAt *time.Time
}

const bulkColumns = `id, action, matched, done, skipped, created_at, finished_at`

// statusRetrying selects the deliveries of an endpoint that wait for their next attempt, to make them due: see [Store.makeDue].
const statusRetrying = "retrying"

// matches is the condition under which a delivery belongs to a bulk resend with the columns of r. It says app and endpoint without
// an "or", so that their indexes serve it.
func (f ResendFilter) matches() string {
	condition := map[string]string{
		DeliveryFailed:    `d.failed`,
		DeliveryPending:   `(d.retrying or d.parked) and d.status = 'pending'`,
		DeliveryDelivered: `d.status = 'delivered'`,
		statusRetrying:    retriesLater,
	}[f.Status]
	if condition == "" {
		condition = `false`
	}
	app, endpoint := `d.app_id = $1`, `d.endpoint_id = $2`
	if f.Scope.arg() == nil {
		app = `$1::uuid is null`
	}
	if f.EndpointID == uuid.Nil {
		endpoint = `$2::uuid is null`
	}
	return condition + ` and ` + app + ` and ` + endpoint + `
		and d.id > r.after and ($3 = '' or d.event_type = $3) and d.created_at >= $4 and d.created_at < $5`
}

// CountResend counts the deliveries that a filter selects, and stops at most.
func (s *Store) CountResend(ctx context.Context, f ResendFilter, most int) (n int64, err error) {
	return s.count(ctx, s.resendCounts, `
		select count(*) from (
			select from (select $7::uuid as after) r, deliveries d
			where `+f.matches()+`
			limit $6
		) d`, append(f.args(s.now()), most, idBefore(f.Since))...)
}

// maxCounts is how many bulk resends are counted at a time, and how many recoveries. A count may take longTimeout, and all else
// that an instance does needs its connections, too.
const maxCounts = 2

// count answers a statement that counts deliveries, once it has one of the places.
func (s *Store) count(ctx context.Context, places chan struct{}, sql string, args ...any) (n int64, err error) {
	select {
	case places <- struct{}{}:
		defer func() { <-places }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	err = s.pool.QueryRow(allowing(ctx, longTimeout), sql, args...).Scan(&n)
	return n, wrapped("count deliveries", err)
}

// args are the parameters of matches. What is created after now does not match.
func (f ResendFilter) args(now time.Time) []any {
	var endpoint *uuid.UUID
	if f.EndpointID != uuid.Nil {
		endpoint = &f.EndpointID
	}
	until := f.Until
	if until.IsZero() || until.After(now) {
		until = now
	}
	return []any{f.Scope.arg(), endpoint, f.EventType, f.Since, until}
}

// StartResend begins to resend or cancel the deliveries that a filter selects.
func (s *Store) StartResend(ctx context.Context, f ResendFilter) (BulkResend, error) {
	matched, err := s.CountResend(ctx, f, math.MaxInt32)
	if err != nil {
		return BulkResend{}, err
	}
	now := s.now()
	args := f.args(now)
	var b BulkResend
	err = s.tx(ctx, "start resend", func(tx pgx.Tx) (err error) {
		b, err = one[BulkResend](ctx, tx, `
			insert into resends (id, app_id, action, endpoint_id, status, event_type, since, until, matched, after, created_at, finished_at)
			values ($6, $1, $7, $2, $8, $3, $4, $5, $9::bigint, $10, $11::timestamptz, case when $9::bigint = 0 then $11::timestamptz end)
			returning `+bulkColumns, append(args, newID(), f.Action, f.Status, matched, idBefore(f.Since), now)...)
		if err != nil {
			return err
		}
		return s.note(ctx, tx, b.ID, nil, f.fields(matched))
	})
	return b, err
}

// idBefore returns an id below those of deliveries that were created at or after a time. Ids and times of creation may differ by
// some milliseconds.
func idBefore(t time.Time) uuid.UUID {
	if t.UnixMilli() < 1000 {
		return uuid.Nil
	}
	return idAt(t.Add(-time.Second))
}

// BulkResend reads the progress of a bulk resend.
func (s *Store) BulkResend(ctx context.Context, scope Scope, id uuid.UUID) (BulkResend, error) {
	return one[BulkResend](ctx, s.pool, `
		select `+bulkColumns+` from resends where id = $1 and ($2::uuid is null or app_id = $2)`, id, scope.arg())
}

// resendLock is the advisory lock of the instance that works off a batch of a bulk resend.
const resendLock = alertLock + 1

// WorkResends works off a batch of a bulk resend unless another instance works on one, and reports whether it has.
func (s *Store) WorkResends(ctx context.Context) (found bool, err error) {
	ctx = allowing(ctx, longTimeout)
	err = s.tx(ctx, "work resends", func(tx pgx.Tx) error {
		var f ResendFilter
		var id, after uuid.UUID
		var app, endpoint *uuid.UUID
		// Until it is known what matches the transaction locks no row and has no transaction id, which would hold back the feed
		// (see feedEnd): where little matches, a batch reads for long. The lock has a statement of its own, so that the next one
		// sees what the holder before has done.
		var alone bool
		found = false
		err := tx.QueryRow(ctx, `select pg_try_advisory_xact_lock($1)`, int64(resendLock)).Scan(&alone)
		if err != nil || !alone {
			return err
		}
		err = tx.QueryRow(ctx, `
			select id, app_id, action, endpoint_id, status, event_type, since, until, after
			from resends
			where finished_at is null
			order by status <> $1, id
			limit 1`, statusRetrying).
			Scan(&id, &app, &f.Action, &endpoint, &f.Status, &f.EventType, &f.Since, &f.Until, &after)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		found = true
		f.Scope = Everything()
		if app != nil {
			f.Scope = OfApp(*app)
		}
		if endpoint != nil {
			f.EndpointID = *endpoint
		}
		matching, err := many[struct{ ID, EndpointID uuid.UUID }](ctx, tx, `
			select d.id, d.endpoint_id
			from (select $6::uuid as after) r, deliveries d
			where `+f.matches()+`
			order by d.id
			limit $7`, append(f.args(f.Until), after, resendBatch)...)
		if err != nil {
			return err
		}
		ids, endpoints := make([]uuid.UUID, len(matching)), make([]uuid.UUID, len(matching))
		for i, m := range matching {
			ids[i], endpoints[i] = m.ID, m.EndpointID
		}
		var done int64
		if len(ids) > 0 {
			if done, err = s.applyBulk(ctx, tx, f, ids, endpoints); err != nil {
				return err
			}
			after = ids[len(ids)-1]
		}
		_, err = tx.Exec(ctx, `
			update resends
			set done = done + $2, skipped = skipped + $3, after = $4, finished_at = case when $5 then $6::timestamptz end
			where id = $1`, id, done, int64(len(ids))-done, after, len(ids) < resendBatch, s.now())
		return err
	})
	return found, err
}

// applyBulk resends or cancels deliveries and returns how many.
func (s *Store) applyBulk(ctx context.Context, tx pgx.Tx, f ResendFilter, ids, endpoints []uuid.UUID) (int64, error) {
	if f.Action == ActionCancel {
		return cancelDeliveries(ctx, tx, ids)
	}
	if err := lockBacklog(ctx, tx, endpoints); err != nil {
		return 0, err
	}
	again, which, args := newRound, `d.status = $3 and `+eventStored, []any{ids, s.now(), f.Status}
	if f.Status == statusRetrying {
		again, which, args = `retrying = false`, retriesLater, args[:2]
	}
	tag, err := tx.Exec(ctx, `
		update deliveries d
		set `+again+`, parked = true, next_attempt_at = $2
		where id = any($1) and `+which+` and exists (select 1 from endpoints e where e.id = d.endpoint_id and e.deleted_at is null)`,
		args...)
	return tag.RowsAffected(), err
}
