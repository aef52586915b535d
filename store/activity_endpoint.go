package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

// endpointStep is how long the times are for which attempts are counted by endpoint.
const endpointStep = 5 * time.Minute

// flushMost is how many endpoints a statement adds to at most.
const flushMost = 2000

// EndpointAttempts is how many attempts at an endpoint have succeeded and failed in a time, on all instances together.
type EndpointAttempts struct {
	EndpointID uuid.UUID
	At         time.Time // when the time began
	Delivered  int64
	Failed     int64
}

// endpointSlot is an endpoint in one time.
type endpointSlot struct {
	endpoint uuid.UUID
	at       int64 // in steps since 1970
}

// countEndpoints counts attempts by endpoint.
func (a *activity) countEndpoints(at time.Time, attempts []AttemptResult) {
	step := at.Unix() / int64(endpointStep/time.Second)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.endpoints == nil {
		a.endpoints = make(map[endpointSlot]*EndpointAttempts)
	}
	for _, r := range attempts {
		slot := endpointSlot{r.EndpointID, step}
		c := a.endpoints[slot]
		if c == nil {
			c = &EndpointAttempts{EndpointID: r.EndpointID, At: at.UTC().Truncate(endpointStep)}
			a.endpoints[slot] = c
		}
		if r.Delivered {
			c.Delivered++
		} else {
			c.Failed++
		}
	}
}

// takeEndpoints returns what was counted, in the order in which all instances lock the rows.
func (a *activity) takeEndpoints() []EndpointAttempts {
	a.mu.Lock()
	taken := a.endpoints
	a.endpoints = nil
	a.mu.Unlock()
	list := make([]EndpointAttempts, 0, len(taken))
	for _, c := range taken {
		list = append(list, *c)
	}
	slices.SortFunc(list, func(x, y EndpointAttempts) int {
		return cmp.Or(slices.Compare(x.EndpointID[:], y.EndpointID[:]), x.At.Compare(y.At))
	})
	return list
}

var endpointAttemptColumns = []column[EndpointAttempts]{
	col("endpoint_id", "uuid", func(c EndpointAttempts) uuid.UUID { return c.EndpointID }),
	col("at", "timestamptz", func(c EndpointAttempts) time.Time { return c.At }),
	col("delivered", "int", func(c EndpointAttempts) int64 { return c.Delivered }),
	col("failed", "int", func(c EndpointAttempts) int64 { return c.Failed }),
}

func (s *Store) flushEndpoints(ctx context.Context) error {
	for some := range slices.Chunk(s.activity.takeEndpoints(), flushMost) {
		sql, args := insertInto("endpoint_activity as a", some, endpointAttemptColumns)
		_, err := s.pool.Exec(ctx, sql+`
			on conflict (endpoint_id, at) do update
			set delivered = a.delivered + excluded.delivered, failed = a.failed + excluded.failed`, args...)
		if err != nil {
			return fmt.Errorf("keep attempts by endpoint: %w", err)
		}
	}
	return nil
}

// EndpointActivity counts the attempts at endpoints since a time, in steps of 5 minutes or more, oldest first. It is
// up to 15 seconds behind, and knows the last 8 days.
func (s *Store) EndpointActivity(ctx context.Context, endpoints []uuid.UUID, since time.Time, step time.Duration) (
	map[uuid.UUID][]EndpointAttempts, error,
) {
	list, err := many[EndpointAttempts](ctx, s.pool, `
		select endpoint_id, date_bin($3, at, '2000-01-01 00:00+00') as at, sum(delivered)::bigint as delivered, sum(failed)::bigint as failed
		from endpoint_activity
		where endpoint_id = any($1) and at >= $2
		group by 1, 2
		order by 1, 2`, endpoints, since, step)
	if err != nil {
		return nil, fmt.Errorf("read attempts by endpoint: %w", err)
	}
	found := make(map[uuid.UUID][]EndpointAttempts, len(endpoints))
	for _, c := range list {
		found[c.EndpointID] = append(found[c.EndpointID], c)
	}
	return found, nil
}
