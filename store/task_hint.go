package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// PollTask moves the next poll of a task to the front, for an operator. A task that is polled no more is
// ErrConflict.
func (s *Store) PollTask(ctx context.Context, scope Scope, id uuid.UUID) error {
	tag, err := s.pool.Exec(ctx, `
			update tasks
			set urgent = true, hinted_at = $2
			where id = $1 and polling and ($3::uuid is null or app_id = $3)`, id, s.now(), scope.arg())
	if err != nil {
		return fmt.Errorf("poll task: %w", err)
	}
	if tag.RowsAffected() == 0 {
		if _, err := s.Task(ctx, scope, id); err != nil {
			return err
		}
		return conflict("the task is no longer polled")
	}
	return nil
}

// hintInterval is the least time between two hints of one task that count: who forges hints for a task
// that he knows gains a poll of it every five seconds.
const hintInterval = 5 * time.Second

// hintedMost bounds how many tasks a hint about one video moves.
const hintedMost = 10

// HintTask moves the next polls of an app's tasks to the front: those with memories.ai's ids, and those that wait for one
// of the videos to be indexed. Unknown and finished tasks are ignored.
func (s *Store) HintTask(ctx context.Context, hintToken string, taskIDs, videoIDs []string) error {
	now := s.now()
	named := make([]string, len(videoIDs))
	for i, id := range videoIDs {
		named[i] = toJSON([]map[string]string{{"video_id": id}})
	}
	_, err := s.pool.Exec(ctx, `
		update tasks t
		set urgent = true, hinted_at = $3
		from apps a
		cross join lateral (
			select id from tasks where app_id = a.id and task_id = any($2) and closed = 0
			union all
			select i.id
			from unnest($5::jsonb[]) as named (videos)
			cross join lateral (
				select id from tasks where polling and until = 'indexed' and videos @> named.videos and app_id = a.id limit $6
			) as i
		) as h
		where a.hint_token = $1 and t.id = h.id and t.polling and not t.urgent
			and (t.hinted_at is null or t.hinted_at <= $4)`, hintToken, taskIDs, now, now.Add(-hintInterval), named, hintedMost)
	return wrapped("hint task", err)
}
