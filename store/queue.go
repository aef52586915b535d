package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/riverqueue/river"
)

// PauseQueues pauses or resumes queues on all instances.
func (s *Store) PauseQueues(ctx context.Context, queues []string, pause bool) error {
	set := s.jobs.QueueResume
	if pause {
		set = s.jobs.QueuePause
	}
	for _, queue := range queues {
		if pause { // also before the first worker has come to the queue
			_, err := s.pool.Exec(ctx, `
				insert into river_queue (name, metadata, paused_at, updated_at) values ($1, '{}', now(), now())
				on conflict (name) do nothing`, queue)
			if err != nil {
				return fmt.Errorf("pause %s: %w", queue, err)
			}
		}
		err := set(ctx, queue, nil)
		if err != nil && !errors.Is(err, river.ErrNotFound) { // not found: no worker has ever run, so nothing is paused
			return fmt.Errorf("pause or resume %s: %w", queue, err)
		}
	}
	return nil
}

// PausedQueues returns the queues that an operator has paused, with the time since when.
func (s *Store) PausedQueues(ctx context.Context) (map[string]time.Time, error) {
	since, err := pairs[string, time.Time](ctx, s.pool, `select name, paused_at from river_queue where paused_at is not null`)
	return since, wrapped("read queues", err)
}

// QueueDepth is how many jobs of a queue are in a state.
type QueueDepth struct {
	Queue, State string
	Count        int64
	OldestSecs   float64 // since the oldest was due
}

// QueueDepths counts the jobs that are under way or to come.
func (s *Store) QueueDepths(ctx context.Context) ([]QueueDepth, error) {
	list, err := many[QueueDepth](ctx, s.pool, `
		select queue, state::text as state, count(*) as count, greatest(0, extract(epoch from now() - min(scheduled_at)))::float8 as oldest_secs
		from river_job
		where state in ('available', 'running', 'scheduled', 'retryable')
		group by queue, state
		order by queue, state`)
	return list, wrapped("count jobs", err)
}
