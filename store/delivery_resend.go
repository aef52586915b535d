package store

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Resend sends a delivery again under its event's id, with the retry schedule from its beginning. A delivery that was
// cancelled, or whose event is no longer stored or endpoint is deleted, is ErrConflict.
func (s *Store) Resend(ctx context.Context, scope Scope, id uuid.UUID) error {
	return s.tx(ctx, "resend", func(tx pgx.Tx) error {
		// The lock keeps the endpoint from being deleted, whose pending deliveries are cancelled then.
		to, err := one[recipient](ctx, tx, `
			select d.endpoint_id, `+parksNow("e")+` as parked, e.deleted_at is not null as gone
			from deliveries d
			join endpoints e on e.id = d.endpoint_id
			where d.id = $1 and ($2::uuid is null or d.app_id = $2)
			for key share of e`, id, scope.arg())
		if err != nil {
			return err
		}
		if to.Gone {
			return conflict("the delivery's endpoint was deleted, or is being merged into another one")
		}
		if err := lockBacklogOf(ctx, tx, []recipient{to}); err != nil {
			return err
		}
		job := DeliverArgs{DeliveryID: id}
		var stored bool // read here, it is not purged before the commit
		err = tx.QueryRow(ctx, `
			select `+eventStored+` from deliveries d where d.id = $1 for update`, id).Scan(&stored)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		if !stored {
			return conflict("the delivery's event is older than the retention and no longer stored")
		}
		err = tx.QueryRow(ctx, `
			update deliveries
			set `+newRound+`, parked = $2, retrying = not $2, next_attempt_at = $3
			where id = $1 and status <> 'cancelled'
			returning generation`, id, to.Parked, s.now()).Scan(&job.Generation)
		if errors.Is(err, pgx.ErrNoRows) {
			return conflict("the delivery was cancelled and cannot be sent again")
		}
		if err == nil {
			err = s.note(ctx, tx, id, nil, nil)
		}
		if err != nil || to.Parked {
			return err
		}
		return s.insertDeliverJobs(ctx, tx, []DeliverArgs{job})
	})
}
