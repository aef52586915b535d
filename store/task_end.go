package store

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// CancelTask stops polling a task; its memories.ai id can be registered again. A task that has ended
// already is ErrConflict.
func (s *Store) CancelTask(ctx context.Context, scope Scope, id uuid.UUID) error {
	return s.tx(ctx, "cancel task", func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
				select `+taskColumns+`
				from tasks
				where id = $1 and ($2::uuid is null or app_id = $2) for update`, id, scope.arg())
		t, err := one[Task](rows, err)
		if err != nil {
			return err
		}
		if !t.Polling {
			return conflict("the task has ended: it is %s", t.Status)
		}
		if t.Status == TaskReady && t.Until != UntilIndexed {
			return conflict("the task has ended: it is %s", t.Status)
		}
		t.Status, t.Polling = TaskCancelled, false
		return s.saveTasks(ctx, tx, []taskChange{{Task: &t}})
	})
}

// settleGrace is how long a task that has what it waited for may go on settling beyond its expiry, until a poll has
// seen its list whole: an account may have been busy or away.
const settleGrace = 24 * time.Hour

// ExpireTasks ends up to limit tasks that have expired and returns their number. Tasks that only settle end by themselves,
// or here after settleGrace.
func (s *Store) ExpireTasks(ctx context.Context, limit int) (n int, err error) {
	err = s.tx(ctx, "expire tasks", func(tx pgx.Tx) error {
		now := s.now()
		// This runs every second: where the table's statistics are old the condition on what only settles would let the
		// planner read all of it.
		if _, err := tx.Exec(ctx, `set local enable_seqscan = off`); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			select `+taskColumns+`
			from tasks
			where polling and expires_at <= $1
				and (status <> 'ready' or (until = 'indexed' and indexed_at is null) or expires_at <= $3)
			order by expires_at
			limit $2
			for update skip locked`, now, limit, now.Add(-settleGrace))
		expired, err := many[Task](rows, err)
		if err != nil {
			return err
		}
		n = len(expired)
		var events []Event
		changes := make([]taskChange, n)
		for i := range expired {
			t := &expired[i]
			changes[i].Task = t
			for _, ev := range t.expire() {
				ev.AppID, ev.CreatedAt, ev.Task = t.AppID, now, t
				events = append(events, ev)
			}
		}
		if err := s.saveTasks(ctx, tx, changes); err != nil {
			return err
		}
		return s.emitForTasks(ctx, tx, events)
	})
	return n, err
}
