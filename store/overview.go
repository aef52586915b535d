package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Overview is what an operator looks at first. It reads no more than a page shows, however much there is.
type Overview struct {
	Tasks      map[string]int64 // by status; can be some seconds old
	Deliveries map[string]int64
	Backlogs   map[uuid.UUID]int64
	Jobs       []QueueDepth
	Accounts   []Account  // those in trouble, then the busiest
	Endpoints  []Endpoint // in trouble
	Instances  []Instance
	Minutes    []Minute
	Paused     map[string]bool
}

// ReadOverview reads the overview with no more than most accounts and endpoints.
func (s *Store) ReadOverview(ctx context.Context, most int) (o Overview, err error) {
	if o.Tasks, err = s.tasks.get(ctx); err != nil {
		return o, fmt.Errorf("count tasks: %w", err)
	}
	if o.Deliveries, err = s.sent.get(ctx); err != nil {
		return o, fmt.Errorf("count deliveries: %w", err)
	}
	if o.Backlogs, err = s.Backlogs(ctx); err != nil {
		return o, err
	}
	if o.Jobs, err = s.QueueDepths(ctx); err != nil {
		return o, err
	}
	rows, err := s.pool.Query(ctx, `
		select `+accountColumns+` from accounts a order by a.state <> 'active' desc, a.usage desc, a.name limit $1`, most)
	if o.Accounts, err = many[Account](rows, err); err != nil {
		return o, fmt.Errorf("read accounts: %w", err)
	}
	rows, err = s.pool.Query(ctx, `
		select `+endpointColumns+`
		from endpoints e
		where e.deleted_at is null and (not e.enabled or e.breaker <> 'closed' or e.backlog)
		order by e.id desc
		limit $1`, most)
	if o.Endpoints, err = many[Endpoint](rows, err); err != nil {
		return o, fmt.Errorf("read endpoints in trouble: %w", err)
	}
	if o.Minutes, err = s.Activity(ctx, s.now().Add(-time.Hour).Truncate(time.Minute)); err != nil {
		return o, err
	}
	if o.Paused, err = s.PausedQueues(ctx); err != nil {
		return o, err
	}
	o.Instances, err = s.Instances(ctx)
	return o, err
}

// Health is how an endpoint does.
type Health struct {
	InFlight       int
	Queued         int        // parked
	OldSecretUntil *time.Time // until then the replaced secret signs too
	Recent         []Attempt  // the last attempts, the newest first
}

// EndpointHealth reads how an endpoint does, with its last attempts.
func (s *Store) EndpointHealth(ctx context.Context, id uuid.UUID, attempts int) (h Health, err error) {
	err = s.pool.QueryRow(ctx, `
		select
			(select count(*) from deliveries where endpoint_id = $1 and parked),
			(select count(*) from `+withJob+` j join deliveries d on d.id = j.delivery
				where j.state = 'running' and d.endpoint_id = $1 and d.status = 'pending' and (not j.first or d.attempt_count = 0)),
			(select old_secret_expires_at from endpoints where id = $1 and old_secret_expires_at > $2)`, id, s.now()).Scan(&h.Queued, &h.InFlight, &h.OldSecretUntil)
	if err != nil {
		return h, fmt.Errorf("read endpoint health: %w", err)
	}
	rows, err := s.pool.Query(ctx, `
		select a.delivery_id, a.number, a.at, a.duration_ms, a.outcome, a.response_status, a.error
		from (select id from deliveries where endpoint_id = $1 and attempt_count > 0 order by id desc limit $2) d
		join attempts a on a.delivery_id = d.id
		order by a.at desc
		limit $2`, id, attempts)
	if h.Recent, err = many[Attempt](rows, err); err != nil {
		return h, fmt.Errorf("read attempts: %w", err)
	}
	return h, nil
}

// TaskDeliveries reads all deliveries of a task with their attempts, oldest first.
func (s *Store) TaskDeliveries(ctx context.Context, task uuid.UUID) ([]Delivery, error) {
	rows, err := s.pool.Query(ctx, `
		select `+deliveryColumns+`, e.url as callback_url
		from deliveries d
		join endpoints e on e.id = d.endpoint_id
		where d.task = $1
		order by d.id`, task)
	list, err := many[Delivery](rows, err)
	if err != nil {
		return nil, fmt.Errorf("read deliveries: %w", err)
	}
	ids, byID := make([]uuid.UUID, len(list)), make(map[uuid.UUID]*Delivery, len(list))
	for i := range list {
		ids[i], byID[list[i].ID] = list[i].ID, &list[i]
	}
	rows, err = s.pool.Query(ctx, `
		select delivery_id, number, at, duration_ms, outcome, response_status, error, response_headers, response_body
		from attempts where delivery_id = any($1) order by delivery_id, number`, ids)
	attempts, err := many[Attempt](rows, err)
	if err != nil {
		return nil, fmt.Errorf("read attempts: %w", err)
	}
	for _, a := range attempts {
		d := byID[a.DeliveryID]
		d.Attempts = append(d.Attempts, a)
	}
	return list, nil
}

// EndpointCounts tells how many endpoints are in which state, for metrics.
func (s *Store) EndpointCounts(ctx context.Context) (byBreaker map[string]int64, disabled, parked int64, err error) {
	rows, err := s.pool.Query(ctx, `select breaker, count(*) from endpoints where deleted_at is null group by breaker`)
	if byBreaker, err = counts[string](rows, err); err != nil {
		return nil, 0, 0, fmt.Errorf("count breakers: %w", err)
	}
	err = s.pool.QueryRow(ctx, `
		select (select count(*) from endpoints where deleted_at is null and not enabled), (select count(*) from deliveries where parked)`).Scan(&disabled, &parked)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("count disabled endpoints: %w", err)
	}
	return byBreaker, disabled, parked, nil
}
