package api

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

// Event is something that happened to a task or an endpoint.
type Event struct {
	ID        string          `json:"id" example:"evt_01993c1e-6f3a-7cc0-9d4e-0a4ab7f3c1d2" doc:"The webhook-id of its deliveries."`
	Type      string          `json:"type" example:"task.ready" doc:"The type of the event."`
	Timestamp Time            `json:"timestamp" doc:"When it happened."`
	Task      *uuid.UUID      `json:"task" nullable:"true" doc:"The id of the task in memhook; null for events about endpoints and uploads."`
	Payload   json.RawMessage `json:"payload" doc:"The body of its webhooks."`
}

type (
	// EventsFilter are the query parameters of the feed.
	EventsFilter struct {
		Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"The maximum number of entries."`
		Cursor string `query:"cursor" doc:"The next_cursor of the previous page. It counts in place of after."`
		After  string `query:"after" doc:"The id of the last event that you have; absent: start with the oldest event that is kept."`
		Type   string `query:"type" doc:"Return only events of this type."`
	}
	taskEventsInput struct {
		IDInput
		PageInput
	}
	eventInput struct {
		ID string `path:"id" doc:"The id of the entity: a UUID, or evt_ and a UUID for an event. Any other text is the id of nothing (404)."`
	}
)

func (s *server) listTaskEvents(ctx context.Context, in *taskEventsInput) (*body[List[Event]], error) {
	if _, err := s.store.Task(ctx, scopeOf(ctx), in.id); err != nil {
		return nil, err
	}
	// This list is oldest first, so what follows the cursor is newer.
	events, cut, err := s.store.TaskEvents(ctx, in.id, in.page.Before, in.page.Limit)
	if err != nil {
		return nil, err
	}
	return listOf(events, cut, in.Limit, func(ev *store.Event) uuid.UUID { return ev.ID }, wireEvent), nil
}

func (s *server) listEvents(ctx context.Context, in *EventsFilter) (*body[List[Event]], error) {
	if in.Type != "" && !slices.Contains(store.EventTypes, in.Type) {
		return nil, invalid(FieldError{"type", oneOf(in.Type, store.EventTypes)})
	}
	after, err := in.from()
	if err != nil {
		return nil, err
	}
	events, cut, err := s.store.Events(ctx, scopeOf(ctx), in.Type, after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	return pageOf(events, cut, in.Limit, func(ev *store.Event) string { return webhook.EventID(ev.ID.String()) }, wireEvent), nil
}

// from returns the id of the event that the page begins after.
func (in *EventsFilter) from() (id uuid.UUID, err error) {
	switch {
	case in.Cursor != "":
		if id, err = parseEventID(in.Cursor); err != nil {
			err = invalid(FieldError{"cursor", "must be the next_cursor of a page of this list"})
		}
	case in.After != "":
		if id, err = parseEventID(in.After); err != nil {
			err = invalid(FieldError{"after", "must be the id of an event, such as evt_01993c1e-6f3a-7cc0-9d4e-0a4ab7f3c1d2"})
		}
	}
	return id, err
}

func (s *server) getEvent(ctx context.Context, in *eventInput) (*body[Event], error) {
	id, err := parseEventID(in.ID)
	if err != nil {
		return nil, noID(in.ID)
	}
	ev, err := s.store.Event(ctx, scopeOf(ctx), id)
	if err != nil {
		return nil, err
	}
	return &body[Event]{wireEvent(&ev)}, nil
}

func parseEventID(s string) (uuid.UUID, error) {
	return uuid.Parse(strings.TrimPrefix(s, webhook.EventID("")))
}

func wireEvent(ev *store.Event) Event {
	return Event{
		ID: webhook.EventID(ev.ID.String()), Type: ev.Type, Timestamp: wireTime(ev.CreatedAt),
		Task: ev.TaskID, Payload: json.RawMessage(ev.Payload),
	}
}
