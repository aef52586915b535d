package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Stats is the state of the whole service. Counts that cost much are some seconds old.
type Stats struct {
	Tasks      map[string]int64    // by status
	Deliveries map[string]int64    // by status
	Backlogs   map[uuid.UUID]int64 // tasks that are polled, by account
	Jobs       []QueueDepth
	Accounts   []Account  // those that are backing off, then the busiest
	Endpoints  []Endpoint // those that are disabled, have an open breaker or a backlog
	Instances  []Instance
	Minutes    []Minute             // of the last hour
	Paused     map[string]time.Time // queues, since when
	Waiting    []Undelivered        // the oldest first
	Failing    int64                // endpoints that are enabled and whose last attempts have failed
}

// Stats reads the state of the whole service, with up to most accounts and endpoints.
func (s *Store) Stats(ctx context.Context, most int) (st Stats, err error) {
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
	st.Accounts, err = many[Account](ctx, s.pool, `
		select `+accountColumns+` from accounts a order by a.state <> 'active' desc, a.usage desc, a.name limit $1`, most)
	if err != nil {
		return st, fmt.Errorf("read accounts: %w", err)
	}
	st.Endpoints, err = many[Endpoint](ctx, s.pool, `
		select `+endpointColumns+`
		from endpoints e
		where e.deleted_at is null and (not e.enabled or e.breaker <> 'closed' or e.backlog)
		order by e.id desc
		limit $1`, most)
	if err != nil {
		return st, fmt.Errorf("read failing endpoints: %w", err)
	}
	if st.Minutes, err = s.Activity(ctx, s.now().Add(-time.Hour).Truncate(time.Minute)); err != nil {
		return st, err
	}
	if st.Paused, err = s.PausedQueues(ctx); err != nil {
		return st, err
	}
	if st.Waiting, err = s.Undelivered(ctx); err != nil {
		return st, err
	}
	if st.Failing, err = s.failing.get(ctx); err != nil {
		return st, err
	}
	st.Instances, err = s.Instances(ctx)
	return st, err
}

// counts returns a function that reads a count for each key.
func counts[K comparable](q querier, sql string) func(context.Context) (map[K]int64, error) {
	return func(ctx context.Context) (map[K]int64, error) {
		return pairs[K, int64](ctx, q, sql)
	}
}

// costly caches the answer of a query that may read millions of rows, for 400 times as long as the query took. So it never
// costs more than 0.25 % of a core, and is fresh where it is cheap. An answer that has just expired is given once more while the
// next one is read, so that nobody waits for it.
type costly[T any] struct {
	read  func(context.Context) (T, error)
	fresh time.Duration // for how long an answer is cached at least

	mu      sync.Mutex
	value   T
	lasts   time.Duration
	until   time.Time
	reading bool
}

// slowRead is how long a read takes for which nobody should wait.
const slowRead = 20 * time.Millisecond

func (c *costly[T]) get(ctx context.Context) (T, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Now().Before(c.until) {
		return c.value, nil
	}
	if c.lasts > 400*slowRead && time.Since(c.until) < c.lasts {
		if !c.reading {
			c.reading = true
			go func() { _, _ = c.next(context.WithoutCancel(ctx)) }() // an error is met by whoever asks later
		}
		return c.value, nil
	}
	return c.set(c.timed(ctx))
}

// next reads the next answer beside those who get the last one.
func (c *costly[T]) next(ctx context.Context) (T, error) {
	value, took, err := c.timed(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = false
	return c.set(value, took, err)
}

func (c *costly[T]) timed(ctx context.Context) (value T, took time.Duration, err error) {
	start := time.Now()
	value, err = c.read(allowing(ctx, longTimeout))
	return value, time.Since(start), err
}

// set keeps an answer. The caller holds the lock.
func (c *costly[T]) set(value T, took time.Duration, err error) (T, error) {
	if err == nil {
		c.lasts = max(c.fresh, 400*took)
		c.value, c.until = value, time.Now().Add(c.lasts)
	}
	return value, err
}
