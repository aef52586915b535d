package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// The event types.
const (
	EventReady             = "task.ready"
	EventUpdated           = "task.updated"
	EventIndexed           = "task.indexed"
	EventFailed            = "task.failed"
	EventExpired           = "task.expired"
	EventEndpointDisabled  = "endpoint.disabled"
	EventEndpointRecovered = "endpoint.recovered"
	EventTest              = "webhook.test"
)

// EventTypes lists them all.
var EventTypes = []string{EventReady, EventUpdated, EventIndexed, EventFailed, EventExpired, EventEndpointDisabled, EventEndpointRecovered, EventTest}

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

// target is an endpoint that gets an event.
type target struct {
	EndpointID uuid.UUID
	Parked     bool
}

// emission is an event and who gets it.
type emission struct {
	event   Event
	targets []target
}

// emit stores events with a delivery for each target and the deliveries' jobs. This is the outbox: all
// of it or nothing is in the caller's transaction.
func (s *Store) emit(ctx context.Context, tx pgx.Tx, emissions []emission) error {
	if len(emissions) == 0 {
		return nil
	}
	var (
		n                = len(emissions)
		ids, apps        = make([]uuid.UUID, n), make([]uuid.UUID, n)
		tasks, endpoints = make([]uuid.NullUUID, n), make([]uuid.NullUUID, n)
		types, payloads  = make([]string, n), make([]string, n)
		times            = make([]time.Time, n)
		traces           = make([]*string, n)
	)
	for i := range emissions {
		ev := &emissions[i].event
		ev.ID = newID()
		if ev.Task != nil {
			ev.TaskID = &ev.Task.ID
			if ev.Traceparent == nil {
				ev.Traceparent = ev.Task.Traceparent
			}
		}
		if ev.Endpoint != nil {
			ev.EndpointID = &ev.Endpoint.ID
		}
		payload, err := s.encode(*ev)
		if err != nil {
			return fmt.Errorf("encode %s: %w", ev.Type, err)
		}
		ev.Payload = string(payload)
		ids[i], apps[i], types[i], payloads[i], times[i] = ev.ID, ev.AppID, ev.Type, ev.Payload, ev.CreatedAt
		tasks[i], endpoints[i], traces[i] = nullable(ev.TaskID), nullable(ev.EndpointID), ev.Traceparent
	}
	_, err := tx.Exec(ctx, `
		insert into events (id, app_id, task, endpoint_id, type, payload, created_at, traceparent)
		select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::timestamptz[], $8::text[])`,
		ids, apps, tasks, endpoints, types, payloads, times, traces)
	if err != nil {
		return fmt.Errorf("insert events: %w", err)
	}
	return s.deliver(ctx, tx, emissions)
}

// deliver inserts the deliveries of stored events and, for those that are not parked, their jobs.
func (s *Store) deliver(ctx context.Context, tx pgx.Tx, emissions []emission) error {
	var (
		ids, apps, events, endpoints []uuid.UUID
		tasks                        []uuid.NullUUID
		types                        []string
		parked                       []bool
		untried                      []uuid.UUID
	)
	for _, e := range emissions {
		for _, to := range e.targets {
			id := newID()
			ids, apps, events = append(ids, id), append(apps, e.event.AppID), append(events, e.event.ID)
			types, tasks = append(types, e.event.Type), append(tasks, nullable(e.event.TaskID))
			endpoints, parked = append(endpoints, to.EndpointID), append(parked, to.Parked)
			if !to.Parked {
				untried = append(untried, id)
			}
		}
	}
	if len(ids) == 0 {
		return nil
	}
	now := s.now()
	_, err := tx.Exec(ctx, `
		insert into deliveries (id, app_id, event_id, event_type, task, endpoint_id, parked, next_attempt_at, created_at)
		select *, $8::timestamptz, $8::timestamptz
		from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::uuid[], $6::uuid[], $7::boolean[])`,
		ids, apps, events, types, tasks, endpoints, parked, now)
	if err != nil {
		return fmt.Errorf("insert deliveries: %w", err)
	}
	return s.insertFirstJobs(ctx, tx, untried)
}

// nullable gives an id as the driver writes it at once; a pointer it would first write as text.
func nullable(id *uuid.UUID) (out uuid.NullUUID) {
	if id != nil {
		out = uuid.NullUUID{UUID: *id, Valid: true}
	}
	return out
}

// candidate is an endpoint as far as an event's routing needs it.
type candidate struct {
	TaskID     uuid.UUID `db:"task"`
	EndpointID uuid.UUID
	EventTypes []string
	Parks      bool // its deliveries wait in the table for now
}

func (c candidate) wants(eventType string) bool {
	return c.EventTypes == nil || slices.Contains(c.EventTypes, eventType)
}

// parks is the SQL condition under which an endpoint's new deliveries are parked instead of queued.
const parks = `(not e.enabled or e.breaker <> 'closed' or e.backlog or e.rate_limit is not null or coalesce(e.hold_until > now(), false))`

// subscribers reads who subscribes to the tasks and readies those endpoints for parking that need it.
func (s *Store) subscribers(ctx context.Context, tx pgx.Tx, tasks []uuid.UUID) (map[uuid.UUID][]candidate, error) {
	rows, err := tx.Query(ctx, `
		select s.task, s.endpoint_id, e.event_types, `+parks+` as parks
		from subscriptions s
		join endpoints e on e.id = s.endpoint_id
		where s.task = any($1) and e.deleted_at is null
		order by s.created_at, s.id`, tasks)
	found, err := many[candidate](rows, err)
	if err != nil {
		return nil, fmt.Errorf("read subscribers: %w", err)
	}
	byTask := make(map[uuid.UUID][]candidate, len(tasks))
	for _, c := range found {
		byTask[c.TaskID] = append(byTask[c.TaskID], c)
	}
	return byTask, s.readyToPark(ctx, tx, found)
}

// readyToPark marks the endpoints that will hold parked deliveries and keeps the mark from being
// cleared until the transaction ends: clearing takes the row FOR UPDATE, which this share excludes.
func (s *Store) readyToPark(ctx context.Context, tx pgx.Tx, candidates []candidate) error {
	var ids []uuid.UUID
	for _, c := range candidates {
		if c.Parks && !slices.Contains(ids, c.EndpointID) {
			ids = append(ids, c.EndpointID)
		}
	}
	return lockBacklog(ctx, tx, ids)
}

func lockBacklog(ctx context.Context, tx pgx.Tx, endpoints []uuid.UUID) error {
	if len(endpoints) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		select 1 from endpoints where id = any($1) order by id for key share`, endpoints)
	if err == nil {
		// A second statement, so that it sees what the lock waited for.
		_, err = tx.Exec(ctx, `
			update endpoints set backlog = true
			where id in (select id from endpoints where id = any($1) and not backlog order by id for no key update)`, endpoints)
	}
	if err != nil {
		return fmt.Errorf("mark backlog: %w", err)
	}
	return nil
}

// emitForTasks emits each task's events to the task's subscribers.
func (s *Store) emitForTasks(ctx context.Context, tx pgx.Tx, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	tasks := make([]uuid.UUID, 0, len(events))
	for _, ev := range events {
		tasks = append(tasks, ev.Task.ID)
	}
	subscribers, err := s.subscribers(ctx, tx, tasks)
	if err != nil {
		return err
	}
	emissions := make([]emission, len(events))
	for i, ev := range events {
		emissions[i].event = ev
		for _, c := range subscribers[ev.Task.ID] {
			if c.wants(ev.Type) {
				emissions[i].targets = append(emissions[i].targets, target{c.EndpointID, c.Parks})
			}
		}
	}
	return s.emit(ctx, tx, emissions)
}

// emitForEndpoint emits an event about an endpoint to the app's other endpoints that ask for its type.
func (s *Store) emitForEndpoint(ctx context.Context, tx pgx.Tx, ep *Endpoint, eventType string, at time.Time) error {
	rows, err := tx.Query(ctx, `
		select e.id as endpoint_id, `+parks+` as parks
		from endpoints e
		where e.app_id = $1 and e.id <> $2 and e.deleted_at is null and e.event_types @> array[$3::text]`, ep.AppID, ep.ID, eventType)
	found, err := many[candidate](rows, err)
	if err != nil {
		return fmt.Errorf("read endpoints that ask for %s: %w", eventType, err)
	}
	if err := s.readyToPark(ctx, tx, found); err != nil {
		return err
	}
	e := emission{event: Event{AppID: ep.AppID, Type: eventType, CreatedAt: at, Endpoint: ep}}
	for _, c := range found {
		e.targets = append(e.targets, target{c.EndpointID, c.Parks})
	}
	return s.emit(ctx, tx, []emission{e})
}

const eventColumns = `id, app_id, type, created_at, task, endpoint_id, payload`

// Event reads one event.
func (s *Store) Event(ctx context.Context, scope Scope, id uuid.UUID) (Event, error) {
	rows, err := s.pool.Query(ctx, `select `+eventColumns+` from events where id = $1 and ($2::uuid is null or app_id = $2)`, id, scope.arg())
	return one[Event](rows, err)
}

// feedDelay is how long an event is kept out of the feed: ids are made before their transactions commit,
// and one that commits late must not appear behind a reader's back.
const feedDelay = 2 * time.Second

// Events lists events after one, oldest first, of one type unless that is empty.
func (s *Store) Events(ctx context.Context, scope Scope, eventType string, after uuid.UUID, limit int) ([]Event, error) {
	rows, err := s.pool.Query(ctx, `
		select `+eventColumns+`
		from events
		where ($1::uuid is null or app_id = $1) and id > $2 and ($3 = '' or type = $3) and created_at < $4
		order by id
		limit $5`, scope.arg(), after, eventType, s.now().Add(-feedDelay), limit)
	list, err := many[Event](rows, err)
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	return list, nil
}

// TaskEvents lists what happened to a task, oldest first.
func (s *Store) TaskEvents(ctx context.Context, task uuid.UUID) ([]Event, error) {
	rows, err := s.pool.Query(ctx, `select `+eventColumns+` from events where task = $1 order by id`, task)
	return many[Event](rows, err)
}
