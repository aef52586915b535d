package store

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// ExpungeTask deletes a task of any status and all that is stored of it: its subscriptions, events with their payloads,
// deliveries and attempts, and the upload of which it came. What is in flight finds nothing to record.
func (s *Store) ExpungeTask(ctx context.Context, scope Scope, id uuid.UUID) error {
	ctx = allowing(ctx, longTimeout)
	return s.tx(ctx, "expunge task", func(tx pgx.Tx) error {
		// Whoever adds to the task locks it first: a poll, a registration, its expiry.
		t, err := one[Task](ctx, tx, `
			select `+taskWithoutVideosColumns+` from tasks where id = $1 and ($2::uuid is null or app_id = $2) for update`, id, scope.arg())
		if err != nil {
			return err
		}
		was := fields{"task_id": t.UpstreamID, "unique_id": t.UniqueID, "status": t.Status}
		if err := s.note(ctx, tx, id, was, nil); err != nil {
			return err
		}
		deliveries, err := scalars[uuid.UUID](ctx, tx, `select id from deliveries where task = $1 order by id for update`, id)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `delete from attempts where delivery_id = any($1)`, deliveries); err != nil {
			return err
		}
		for _, sql := range []string{
			`delete from deliveries where task = $1`,
			`delete from events where task = $1`,
			`delete from subscriptions where task = $1`,
			`delete from uploads where task = $1`,
			`delete from tasks where id = $1`,
		} {
			if _, err := tx.Exec(ctx, sql, id); err != nil {
				return err
			}
		}
		return nil
	})
}
