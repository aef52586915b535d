package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// recoverBatch is how many deliveries a transaction takes up at most.
const recoverBatch = 2000

// newRound is the SQL assignment that begins a delivery's round of attempts anew. Its generation is the next one, so that what comes
// of an attempt that is still in flight ends nothing.
const newRound = `status = 'pending', failed = false, generation = generation + 1, round_start = attempt_count, delivered_at = null`

// eventStored is the SQL condition that the event of a delivery d is still stored: without it, there is nothing to send.
const eventStored = `exists (select 1 from events e where e.id = d.event_id)`

// retriesLater is the SQL condition that a delivery d waits for the time of its next attempt.
const retriesLater = `d.retrying and not d.parked and d.status = 'pending' and d.next_attempt_at > now()`

// makeDue makes due at once what waits for endpoints between two attempts: it parks the deliveries, so that they are sent as
// the endpoints take them. It parks recoverBatch of them; maintenance parks the rest (resend.go), since the caller may be recording
// hundreds of attempts. The caller has locked the endpoints.
func (s *Store) makeDue(ctx context.Context, tx pgx.Tx, endpoints ...*Endpoint) error {
	if len(endpoints) == 0 {
		return nil
	}
	ids := make([]uuid.UUID, len(endpoints))
	for i, ep := range endpoints {
		ids[i] = ep.ID
	}
	now := s.now()
	parked, err := scalars[uuid.UUID](ctx, tx, `
		update deliveries
		set parked = true, retrying = false, next_attempt_at = $2
		where id in (
			select d.id from deliveries d where d.endpoint_id = any($1) and `+retriesLater+`
			limit $3
			for update skip locked
		)
		returning endpoint_id`, ids, now, recoverBatch)
	if err != nil {
		return fmt.Errorf("make deliveries due: %w", err)
	}
	backlogged := distinct(parked, func(id uuid.UUID) uuid.UUID { return id })
	for _, ep := range endpoints {
		ep.Backlog = ep.Backlog || slices.Contains(backlogged, ep.ID)
	}
	if len(parked) == recoverBatch {
		// Nobody asks for the progress of these, so that what they match is not counted.
		_, err = tx.Exec(ctx, `
			insert into resends (id, app_id, action, endpoint_id, status, since, until, matched, after, created_at)
			select gen_random_uuid(), app_id, $2, id, $3, 'epoch', $4, 0, $5, $4 from endpoints where id = any($1)`,
			ids, ActionResend, statusRetrying, now, uuid.Nil)
		if err != nil {
			return fmt.Errorf("leave the rest to maintenance: %w", err)
		}
	}
	return lockBacklog(ctx, tx, backlogged)
}

// Recover makes due at once what waits for an endpoint and lets an open breaker be probed at once. It parks all deliveries that
// have failed since a time, none if that is nil, so that they are sent again as the endpoint takes them. It returns how many
// deliveries will be sent.
func (s *Store) Recover(ctx context.Context, scope Scope, endpoint uuid.UUID, since *time.Time) (n int, err error) {
	err = s.tx(ctx, "recover", func(tx pgx.Tx) error {
		ep, err := lockEndpoint(ctx, tx, scope, endpoint)
		if err != nil {
			return err
		}
		if err := s.makeDue(ctx, tx, &ep); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `update endpoints set hold_until = null where id = $1`, endpoint); err != nil {
			return err
		}
		return s.note(ctx, tx, endpoint, nil, nil)
	})
	if err != nil {
		return 0, err
	}
	// Outside of the transaction: whatever it takes, nobody waits for the endpoint meanwhile.
	total, err := s.count(ctx, s.recoverCounts, `
		select (select count(*) from deliveries where endpoint_id = $1 and parked)
			+ (select count(*) from deliveries d where d.endpoint_id = $1 and `+retriesLater+`)`, endpoint)
	for batch := int64(recoverBatch); since != nil && err == nil && batch == recoverBatch; total += batch {
		batch, err = s.recoverFailed(ctx, endpoint, *since)
	}
	return int(total), err
}

// recoverFailed parks up to recoverBatch failed deliveries.
func (s *Store) recoverFailed(ctx context.Context, endpoint uuid.UUID, since time.Time) (n int64, err error) {
	err = s.tx(ctx, "recover", func(tx pgx.Tx) error {
		if _, err := lockEndpoint(ctx, tx, Everything(), endpoint); err != nil {
			return err
		}
		if err := lockBacklog(ctx, tx, []uuid.UUID{endpoint}); err != nil {
			return err
		}
		// A delivery may have been created long before it failed. The failed ones are few and have an index, so the
		// time of their last attempt decides.
		tag, err := tx.Exec(ctx, `
			update deliveries d
			set `+newRound+`, parked = true, next_attempt_at = $3
			where id in (
				select d.id
				from deliveries d
				where d.endpoint_id = $1 and d.failed and `+eventStored+`
					and exists (select 1 from attempts a where a.delivery_id = d.id and a.number = d.attempt_count and a.at >= $2)
				order by d.id
				limit $4
				for update skip locked
			)`, endpoint, since, s.now(), recoverBatch)
		n = tag.RowsAffected()
		return err
	})
	return n, err
}
