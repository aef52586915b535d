package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// The outbox: an event, its deliveries and their jobs are inserted in the transaction that caused them. So an event exists
// exactly if its deliveries do, and a transaction that is rolled back sends nothing.

// recipient is an endpoint that may get an event.
type recipient struct {
	TaskID     uuid.UUID `db:"task"`
	EndpointID uuid.UUID
	Suffix     string
	EventTypes []string
	Parked     bool // its deliveries are parked for now
	Gone       bool // the endpoint was deleted while the caller waited for its lock
}

func (r recipient) wants(eventType string) bool {
	return r.EventTypes == nil || slices.Contains(r.EventTypes, eventType)
}

// emission is an event and who gets it.
type emission struct {
	event Event
	to    []recipient
}

// emitForTasks emits each task's events to the task's subscribers.
func (s *Store) emitForTasks(ctx context.Context, tx pgx.Tx, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	recipients, err := s.recipientsOf(ctx, tx, distinct(events, func(ev Event) uuid.UUID { return ev.Task.ID }))
	if err != nil {
		return err
	}
	emissions := make([]emission, len(events))
	for i, ev := range events {
		emissions[i].event = ev
		for _, r := range recipients[ev.Task.ID] {
			if r.wants(ev.Type) {
				emissions[i].to = append(emissions[i].to, r)
			}
		}
	}
	return s.emit(ctx, tx, emissions)
}

// emitForEndpoint emits an event about an endpoint to the app's other endpoints that ask for its type.
func (s *Store) emitForEndpoint(ctx context.Context, tx pgx.Tx, ep *Endpoint, eventType string, at time.Time) error {
	return s.emitToApp(ctx, tx, Event{AppID: ep.AppID, Type: eventType, CreatedAt: at, Endpoint: ep}, ep.ID, destination{})
}

// emitToApp emits an event to own, if that takes it, and to the app's endpoints that ask for its type, but for one.
func (s *Store) emitToApp(ctx context.Context, tx pgx.Tx, ev Event, except uuid.UUID, own destination) error {
	found, err := many[recipient](ctx, tx, `
		select e.id as endpoint_id, e.event_types, `+parksNow("e")+` as parked, case when e.id = $3 then $4 else '' end as suffix
		from endpoints e
		where e.app_id = $1 and e.id <> $2 and e.deleted_at is null and (e.id = $3 or e.event_types @> array[$5::text])
		order by e.id
		for key share`, ev.AppID, except, own.endpoint, own.suffix, ev.Type)
	if err != nil {
		return fmt.Errorf("read endpoints that ask for %s: %w", ev.Type, err)
	}
	found = slices.DeleteFunc(found, func(r recipient) bool { return !r.wants(ev.Type) })
	if err := lockBacklogOf(ctx, tx, found); err != nil {
		return err
	}
	return s.emit(ctx, tx, []emission{{event: ev, to: found}})
}

// recipientsOf reads the tasks' subscribers, by task. Until the transaction ends, their endpoints cannot be deleted, and
// endpoints that park now keep their backlog.
func (s *Store) recipientsOf(ctx context.Context, tx pgx.Tx, tasks []uuid.UUID) (map[uuid.UUID][]recipient, error) {
	var found []recipient
	var err error
	// Once more where an endpoint is gone: it may have been merged into another one, which has its subscriptions now.
	for range 2 {
		found, err = many[recipient](ctx, tx, `
			select s.task, s.endpoint_id, s.suffix, e.event_types, `+parksNow("e")+` as parked, e.deleted_at is not null as gone
			from `+subscriptionsOf+`
			join endpoints e on e.id = s.endpoint_id
			order by s.created_at, s.id
			for key share of e`, tasks)
		if err != nil {
			return nil, fmt.Errorf("read subscribers: %w", err)
		}
		all := len(found)
		if found = slices.DeleteFunc(found, func(r recipient) bool { return r.Gone }); len(found) == all {
			break
		}
	}
	byTask := make(map[uuid.UUID][]recipient, len(tasks))
	for _, r := range found {
		byTask[r.TaskID] = append(byTask[r.TaskID], r)
	}
	return byTask, lockBacklogOf(ctx, tx, found)
}

// lockBacklogOf locks the backlog of those recipients whose deliveries will be parked.
func lockBacklogOf(ctx context.Context, tx pgx.Tx, recipients []recipient) error {
	parked := slices.DeleteFunc(slices.Clone(recipients), func(r recipient) bool { return !r.Parked })
	return lockBacklog(ctx, tx, distinct(parked, func(r recipient) uuid.UUID { return r.EndpointID }))
}

var eventInsertColumns = []column[emission]{
	col("id", "uuid", func(e emission) uuid.UUID { return e.event.ID }),
	col("app_id", "uuid", func(e emission) uuid.UUID { return e.event.AppID }),
	col("task", "uuid", func(e emission) uuid.NullUUID { return nullable(e.event.TaskID) }),
	col("endpoint_id", "uuid", func(e emission) uuid.NullUUID { return nullable(e.event.EndpointID) }),
	col("type", "text", func(e emission) string { return e.event.Type }),
	col("payload", "text", func(e emission) string { return e.event.Payload }),
	col("created_at", "timestamptz", func(e emission) time.Time { return e.event.CreatedAt }),
	col("traceparent", "text", func(e emission) *string { return e.event.Traceparent }),
}

// emit inserts events with their deliveries and jobs.
func (s *Store) emit(ctx context.Context, tx pgx.Tx, emissions []emission) error {
	for i := range emissions {
		if err := s.complete(&emissions[i].event); err != nil {
			return err
		}
	}
	sql, args := insertInto("events", emissions, eventInsertColumns)
	if _, err := tx.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("insert events: %w", err)
	}
	return s.insertDeliveries(ctx, tx, emissions)
}

// complete sets a new event's id, references and payload.
func (s *Store) complete(ev *Event) error {
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
	return nil
}

// newDelivery is a delivery to be inserted.
type newDelivery struct {
	id    uuid.UUID
	at    time.Time
	event *Event
	to    recipient
}

var newDeliveryColumns = []column[newDelivery]{
	col("id", "uuid", func(d newDelivery) uuid.UUID { return d.id }),
	col("app_id", "uuid", func(d newDelivery) uuid.UUID { return d.event.AppID }),
	col("event_id", "uuid", func(d newDelivery) uuid.UUID { return d.event.ID }),
	col("event_type", "text", func(d newDelivery) string { return d.event.Type }),
	col("task", "uuid", func(d newDelivery) uuid.NullUUID { return nullable(d.event.TaskID) }),
	col("endpoint_id", "uuid", func(d newDelivery) uuid.UUID { return d.to.EndpointID }),
	col("suffix", "text", func(d newDelivery) string { return d.to.Suffix }),
	col("parked", "boolean", func(d newDelivery) bool { return d.to.Parked }),
	col("next_attempt_at", "timestamptz", func(d newDelivery) time.Time { return d.at }),
	col("created_at", "timestamptz", func(d newDelivery) time.Time { return d.at }),
}

// insertDeliveries inserts the deliveries of stored events and, for those that are not parked, their jobs.
func (s *Store) insertDeliveries(ctx context.Context, tx pgx.Tx, emissions []emission) error {
	var deliveries []newDelivery
	var queued []uuid.UUID
	now := s.now()
	for i := range emissions {
		for _, to := range emissions[i].to {
			d := newDelivery{id: newID(), at: now, event: &emissions[i].event, to: to}
			deliveries = append(deliveries, d)
			if !to.Parked {
				queued = append(queued, d.id)
			}
		}
	}
	if len(deliveries) == 0 {
		return nil
	}
	sql, args := insertInto("deliveries", deliveries, newDeliveryColumns)
	if _, err := tx.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("insert deliveries: %w", err)
	}
	return s.insertFirstJobs(ctx, tx, queued)
}
