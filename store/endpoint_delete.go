package store

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// deleteBatch is how many subscriptions, and how many pending deliveries of each kind, are deleted or cancelled with their endpoints.
// Registrations and events wait for that transaction. What is left does nothing any more: the sweep cancels the
// deliveries (adopt.go), and purging deletes the subscriptions and cancels what no sweep has cancelled within a day.
const deleteBatch = 5000

// DeleteEndpoint deletes an endpoint with its subscriptions and cancels what it had still to get.
func (s *Store) DeleteEndpoint(ctx context.Context, scope Scope, id uuid.UUID) error {
	return s.tx(ctx, "delete endpoint", func(tx pgx.Tx) error {
		// FOR UPDATE waits for registrations and events that hold the endpoint FOR KEY SHARE: what they add is seen below.
		ep, err := readEndpoint(ctx, tx, scope, id, "for update")
		if err != nil {
			return err
		}
		if err := s.note(ctx, tx, id, ep.fields(), nil); err != nil {
			return err
		}
		return deleteEndpoints(ctx, tx, []uuid.UUID{id})
	})
}

// deleteEndpoints deletes endpoints that the caller has locked FOR UPDATE.
func deleteEndpoints(ctx context.Context, tx pgx.Tx, ids []uuid.UUID) error {
	if _, err := tx.Exec(ctx, `update endpoints set deleted_at = now(), backlog = false where id = any($1)`, ids); err != nil {
		return fmt.Errorf("delete endpoints: %w", err)
	}
	if _, err := deleteSubscriptions(ctx, tx, `e.id = any($1)`, ids); err != nil {
		return err
	}
	// Where most deliveries are of one endpoint, the planner would read the whole table for the few that are pending.
	if _, err := tx.Exec(ctx, `set local enable_seqscan = off`); err != nil {
		return err
	}
	// Those that share a job (adopt.go) are found by their age: the endpoint may have had millions before.
	pending, err := scalars[uuid.UUID](ctx, tx, `
		(select id from deliveries where endpoint_id = any($1) and parked and status = 'pending' limit $2)
		union all
		(select id from deliveries where endpoint_id = any($1) and retrying and status = 'pending' limit $2)
		union all
		(select id from deliveries where endpoint_id = any($1) and id >= (select settled from sweep) and status = 'pending' limit $2)`,
		ids, deleteBatch)
	if err != nil {
		return fmt.Errorf("find deliveries to cancel: %w", err)
	}
	_, err = cancelDeliveries(ctx, tx, pending)
	return err
}

// cancelWaiting cancels up to deleteBatch deliveries that are parked or wait for another attempt, of the endpoints that a condition
// on $1 selects, and returns their number. The caller has switched sequential scans off.
func cancelWaiting(ctx context.Context, tx pgx.Tx, which string, arg any) (int64, error) {
	waiting, err := scalars[uuid.UUID](ctx, tx, `
		select p.id
		from endpoints e
		cross join lateral (
			(select id from deliveries where endpoint_id = e.id and parked and status = 'pending' limit $2)
			union all
			(select id from deliveries where endpoint_id = e.id and retrying and status = 'pending' limit $2)
		) p
		where `+which+`
		limit $2`, arg, deleteBatch)
	if err == nil && len(waiting) > 0 {
		waiting, err = scalars[uuid.UUID](ctx, tx, `select id from deliveries where id = any($1) for update skip locked`, waiting)
	}
	if err != nil {
		return 0, fmt.Errorf("find deliveries of deleted endpoints: %w", err)
	}
	return cancelDeliveries(ctx, tx, waiting)
}

// cancelDeliveries cancels those of the deliveries that are pending, and returns their number. (The ids are found by a statement
// of their own: with that as a subquery, and sequential scans switched off, the planner joined the two by a nested loop over all.)
func cancelDeliveries(ctx context.Context, tx pgx.Tx, ids []uuid.UUID) (int64, error) {
	if len(ids) == 0 {
		return 0, nil
	}
	tag, err := tx.Exec(ctx, `
		update deliveries
		set status = 'cancelled', cancelled = true, cancelled_at = now(), parked = false, retrying = false, next_attempt_at = null
		where id = any($1) and status = 'pending'`, ids)
	return tag.RowsAffected(), wrapped("cancel deliveries", err)
}

// deleteSubscriptions deletes up to deleteBatch subscriptions of the endpoints that a condition on $1 selects.
func deleteSubscriptions(ctx context.Context, tx pgx.Tx, which string, arg any) (int64, error) {
	tag, err := tx.Exec(ctx, `
		delete from subscriptions
		where (task, endpoint_id, suffix) in (
			select s.task, s.endpoint_id, s.suffix
			from endpoints e
			join subscriptions s on s.endpoint_id = e.id
			where `+which+`
			limit $2
		)`, arg, deleteBatch)
	return tag.RowsAffected(), wrapped("delete subscriptions of endpoints", err)
}
