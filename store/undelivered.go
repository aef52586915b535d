package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Undelivered is what of an endpoint's webhooks waits after a failed attempt, or for the endpoint to take it. First attempts
// that wait for a worker are in the queue's depth instead.
type Undelivered struct {
	EndpointID   uuid.UUID
	URL          string
	Enabled      bool
	Breaker      string
	Failures     int // in a row
	FailingSince *time.Time
	Retrying     int64     // an attempt has failed and the next is due later
	Parked       int64     // the endpoint takes none now
	Oldest       uuid.UUID // the delivery that was created first
}

// Age returns how long the oldest webhook has waited.
func (u Undelivered) Age(now time.Time) time.Duration { return max(0, now.Sub(createdAt(u.Oldest))) }

// createdAt returns when a UUIDv7 was made, in milliseconds.
func createdAt(id uuid.UUID) time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16))
}

// Undelivered returns what waits, by endpoint, the oldest webhook first. It can be some seconds old.
func (s *Store) Undelivered(ctx context.Context) ([]Undelivered, error) {
	list, err := s.waiting.get(ctx)
	return list, wrapped("read undelivered", err)
}

func (s *Store) readUndelivered(ctx context.Context) ([]Undelivered, error) {
	// Both arms have an index of their own, which holds few of the deliveries.
	return many[Undelivered](ctx, s.pool, `
		select e.id as endpoint_id, e.url, e.enabled, e.breaker, e.failures, e.failing_since,
			w.retrying, w.parked, w.oldest
		from (
			select endpoint_id, count(*) filter (where not parked) as retrying, count(*) filter (where parked) as parked,
				min(id::text)::uuid as oldest
			from (
				select endpoint_id, id, false as parked from deliveries where retrying and not parked and status = 'pending'
				union all
				select endpoint_id, id, true from deliveries where parked
			) d
			group by endpoint_id
		) w
		join endpoints e on e.id = w.endpoint_id
		where e.deleted_at is null
		order by w.oldest`)
}

// failingEndpoints counts the endpoints that are enabled and whose last attempts have failed.
func (s *Store) failingEndpoints(ctx context.Context) (n int64, err error) {
	err = s.pool.QueryRow(ctx, `select count(*) from endpoints where deleted_at is null and enabled and failing_since is not null`).Scan(&n)
	return n, wrapped("count failing endpoints", err)
}

// LastAttempt is what lists show of a delivery beside itself.
type LastAttempt struct {
	ID             uuid.UUID // of the delivery
	UpstreamID     *string   // of its task; nil where it has none
	ResponseStatus *int      // of the last attempt
	Error          *string
}

// LastAttempts reads the last attempts of deliveries, by the delivery's id.
func (s *Store) LastAttempts(ctx context.Context, deliveries []Delivery) (map[uuid.UUID]LastAttempt, error) {
	ids := distinct(deliveries, func(d Delivery) uuid.UUID { return d.ID })
	list, err := many[LastAttempt](ctx, s.pool, `
		select d.id, t.task_id as upstream_id, a.response_status, a.error
		from deliveries d
		left join tasks t on t.id = d.task
		left join attempts a on a.delivery_id = d.id and a.number = d.attempt_count
		where d.id = any($1)`, ids)
	if err != nil {
		return nil, fmt.Errorf("read last attempts: %w", err)
	}
	byID := make(map[uuid.UUID]LastAttempt, len(list))
	for _, a := range list {
		byID[a.ID] = a
	}
	return byID, nil
}
