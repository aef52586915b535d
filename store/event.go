package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// The event types.
const (
	EventReady             = "task.ready"
	EventUpdated           = "task.updated"
	EventIndexed           = "task.indexed"
	EventFailed            = "task.failed"
	EventExpired           = "task.expired"
	EventEndpointFailing   = "endpoint.failing"
	EventEndpointDisabled  = "endpoint.disabled"
	EventEndpointRecovered = "endpoint.recovered"
	EventTest              = "webhook.test"
)

// EventTypes lists them all.
var EventTypes = []string{
	EventReady, EventUpdated, EventIndexed, EventFailed, EventExpired,
	EventEndpointFailing, EventEndpointDisabled, EventEndpointRecovered, EventTest,
}

// Event is something that happened and that subscribers hear of. When it is made, Task or Endpoint
// says what it happened to; when it is read back, Payload holds the bytes.
type Event struct {
	ID        uuid.UUID
	AppID     uuid.UUID
	Type      string
	CreatedAt time.Time

	Task     *Task      `db:"-"`
	Added    []string   `db:"-"` // of EventUpdated: the new video ids
	Error    *TaskError `db:"-"` // of EventFailed
	Endpoint *Endpoint  `db:"-"`

	TaskID     *uuid.UUID `db:"task"`
	EndpointID *uuid.UUID
	Payload    string

	Traceparent *string
}

// Encode writes an event as the body of its webhooks: the exact bytes that are signed and sent.
type Encode func(Event) ([]byte, error)

const eventColumns = `id, app_id, type, created_at, task, endpoint_id, payload`

// Event reads one event.
func (s *Store) Event(ctx context.Context, scope Scope, id uuid.UUID) (Event, error) {
	rows, err := s.pool.Query(ctx, `
			select `+eventColumns+`
			from events
			where id = $1 and ($2::uuid is null or app_id = $2)`, id, scope.arg())
	return one[Event](rows, err)
}

// feedDelay is how long an event is kept out of the feed: ids are made before their transactions commit,
// and one that commits late must not appear behind a reader's back.
const feedDelay = 2 * time.Second

// Events lists events after one, oldest first, of one type unless that is empty. cut reports whether the page was cut at
// pageBytes, so that there are more than it has.
func (s *Store) Events(ctx context.Context, scope Scope, eventType string, after uuid.UUID, limit int) (list []Event, cut bool, err error) {
	type row struct {
		Event
		Cut bool
	}
	rows, err := s.pool.Query(ctx, `
		with page as (
			select `+eventColumns+`
			from events
			where ($1::uuid is null or app_id = $1) and id > $2 and ($3 = '' or type = $3) and created_at < $4
			order by id
			limit $5
		), sized as (
			select *, sum(octet_length(payload)) over (order by id) as bytes, row_number() over (order by id) as n from page
		)
		select `+eventColumns+`, (select count(*) from page) > count(*) over () as cut
		from sized
		where n = 1 or bytes <= $6
		order by id`, scope.arg(), after, eventType, s.now().Add(-feedDelay), limit, pageBytes)
	found, err := many[row](rows, err)
	if err != nil {
		return nil, false, fmt.Errorf("list events: %w", err)
	}
	list = make([]Event, len(found))
	for i, r := range found {
		list[i], cut = r.Event, r.Cut
	}
	return list, cut, nil
}

// TaskEvents lists what happened to a task, oldest first.
func (s *Store) TaskEvents(ctx context.Context, task uuid.UUID) ([]Event, error) {
	rows, err := s.pool.Query(ctx, `select `+eventColumns+` from events where task = $1 order by id`, task)
	return many[Event](rows, err)
}
