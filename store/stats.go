package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Stats is the state of the whole service.
type Stats struct {
	Tasks      map[string]int64 // by status
	Deliveries map[string]int64 // by status
	Jobs       []QueueDepth
	Accounts   []Account
	Instances  []Instance
}

// QueueDepth is how many jobs of a queue are in a state.
type QueueDepth struct {
	Queue, State string
	Count        int64
	OldestSecs   float64 // since the oldest was due
}

// Stats reads the state of the whole service.
func (s *Store) Stats(ctx context.Context) (st Stats, err error) {
	if st.Tasks, err = s.counts(ctx, `select status, count(*) from tasks group by status`); err != nil {
		return st, fmt.Errorf("count tasks: %w", err)
	}
	if st.Deliveries, err = s.counts(ctx, `select status, count(*) from deliveries group by status`); err != nil {
		return st, fmt.Errorf("count deliveries: %w", err)
	}
	rows, err := s.pool.Query(ctx, `
		select queue, state::text as state, count(*) as count, greatest(0, extract(epoch from now() - min(scheduled_at)))::float8 as oldest_secs
		from river_job
		where state in ('available', 'running', 'scheduled', 'retryable')
		group by queue, state`)
	if st.Jobs, err = many[QueueDepth](rows, err); err != nil {
		return st, fmt.Errorf("count jobs: %w", err)
	}
	if st.Accounts, err = s.Accounts(ctx); err != nil {
		return st, err
	}
	st.Instances, err = s.Instances(ctx)
	return st, err
}

func (s *Store) counts(ctx context.Context, sql string) (map[string]int64, error) {
	rows, err := s.pool.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	counts := make(map[string]int64)
	var key string
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&key, &n}, func() error {
		counts[key] = n
		return nil
	})
	return counts, err
}
