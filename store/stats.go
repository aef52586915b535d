package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Stats is the state of the whole service.
type Stats struct {
	Tasks      map[string]int64 // by status
	Deliveries map[string]int64 // by status
	Jobs       []QueueDepth
	Accounts   []Account           // by name
	Backlogs   map[uuid.UUID]int64 // tasks that are polled, by account
	Instances  []Instance
	Minutes    []Minute        // of the last hour
	Paused     map[string]bool // queues
}

// QueueDepth is how many jobs of a queue are in a state.
type QueueDepth struct {
	Queue, State string
	Count        int64
	OldestSecs   float64 // since the oldest was due
}

// Stats reads the state of the whole service. Counts that cost much can be some seconds old.
func (s *Store) Stats(ctx context.Context) (st Stats, err error) {
	if st.Tasks, err = s.tasks.get(ctx); err != nil {
		return st, fmt.Errorf("count tasks: %w", err)
	}
	if st.Deliveries, err = s.sent.get(ctx); err != nil {
		return st, fmt.Errorf("count deliveries: %w", err)
	}
	if st.Backlogs, err = s.Backlogs(ctx); err != nil {
		return st, err
	}
	if st.Jobs, err = s.QueueDepths(ctx); err != nil {
		return st, err
	}
	if st.Accounts, err = s.AllAccounts(ctx); err != nil {
		return st, fmt.Errorf("read accounts: %w", err)
	}
	if st.Minutes, err = s.Activity(ctx, s.now().Add(-time.Hour).Truncate(time.Minute)); err != nil {
		return st, err
	}
	if st.Paused, err = s.PausedQueues(ctx); err != nil {
		return st, err
	}
	st.Instances, err = s.Instances(ctx)
	return st, err
}

// Backlogs tells how many tasks of each account are polled; it can be some seconds old.
func (s *Store) Backlogs(ctx context.Context) (map[uuid.UUID]int64, error) {
	found, err := s.backlog.get(ctx)
	if err != nil {
		return nil, fmt.Errorf("count backlogs: %w", err)
	}
	return found, nil
}

// QueueDepths counts the jobs that are under way or to come.
func (s *Store) QueueDepths(ctx context.Context) ([]QueueDepth, error) {
	rows, err := s.pool.Query(ctx, `
		select queue, state::text as state, count(*) as count, greatest(0, extract(epoch from now() - min(scheduled_at)))::float8 as oldest_secs
		from river_job
		where state in ('available', 'running', 'scheduled', 'retryable')
		group by queue, state
		order by queue, state`)
	list, err := many[QueueDepth](rows, err)
	if err != nil {
		return nil, fmt.Errorf("count jobs: %w", err)
	}
	return list, nil
}

// PausedQueues tells which queues an operator has paused.
func (s *Store) PausedQueues(ctx context.Context) (map[string]bool, error) {
	rows, err := s.pool.Query(ctx, `select name from river_queue where paused_at is not null`)
	if err != nil {
		return nil, fmt.Errorf("read queues: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	paused := make(map[string]bool, len(names))
	for _, name := range names {
		paused[name] = true
	}
	return paused, err
}

// Totals sums up minutes.
func Totals(minutes []Minute) Minute {
	sum := Minute{DetectionLag: newHistogram(), Latency: newHistogram()}
	for _, m := range minutes {
		sum.Registrations += m.Registrations
		sum.Polls += m.Polls
		sum.Deliveries += m.Deliveries
		sum.FailedAttempts += m.FailedAttempts
		sum.DetectionLag.Add(m.DetectionLag)
		sum.Latency.Add(m.Latency)
	}
	return sum
}

func (s *Store) countTasks(ctx context.Context) (map[string]int64, error) {
	rows, err := s.pool.Query(ctx, `select status, count(*) from tasks group by status`)
	return counts[string](rows, err)
}

func (s *Store) countDeliveries(ctx context.Context) (map[string]int64, error) {
	rows, err := s.pool.Query(ctx, `select status, count(*) from deliveries group by status`)
	return counts[string](rows, err)
}

func (s *Store) countBacklogs(ctx context.Context) (map[uuid.UUID]int64, error) {
	rows, err := s.pool.Query(ctx, `select account_id, count(*) from tasks where polling group by account_id`)
	return counts[uuid.UUID](rows, err)
}

func counts[K comparable](rows pgx.Rows, err error) (map[K]int64, error) {
	if err != nil {
		return nil, err
	}
	found := make(map[K]int64)
	var key K
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&key, &n}, func() error {
		found[key] = n
		return nil
	})
	return found, err
}

// slow keeps the answer of a query that may read millions of rows for four hundred times as long as the query
// took: so it never costs more than a quarter of a percent of a core, and is fresh where it is cheap.
type slow[T any] struct {
	read func(context.Context) (T, error)

	mu    sync.Mutex
	value T
	until time.Time
}

func (c *slow[T]) get(ctx context.Context) (T, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Now().Before(c.until) {
		return c.value, nil
	}
	start := time.Now()
	value, err := c.read(ctx)
	if err != nil {
		return value, err
	}
	c.value, c.until = value, time.Now().Add(400*time.Since(start))
	return value, nil
}
