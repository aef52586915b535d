package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

// Event is something that happened.
type Event struct {
	ID        string          `json:"id" example:"evt_01993c1e-6f3a-7cc0-9d4e-0a4ab7f3c1d2" doc:"The webhook-id of its deliveries."`
	Type      string          `json:"type" example:"task.ready"`
	Timestamp time.Time       `json:"timestamp"`
	Task      *uuid.UUID      `json:"task" nullable:"true" doc:"memhook's id of the task; null for events about endpoints."`
	Payload   json.RawMessage `json:"payload" doc:"The body of its webhooks."`
}

type (
	eventOutput struct{ Body Event }
	// EventsFilter are the query parameters of the feed.
	EventsFilter struct {
		Limit int    `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"How many at most."`
		After string `query:"after" doc:"The id of the last event that you have; absent for the oldest that is kept."`
		Type  string `query:"type" doc:"Only events of this type."`
	}
	eventListOutput struct{ Body List[Event] }
)

func (s *server) eventOperations(api huma.API) {
	tag := func(o *huma.Operation) { o.Tags = []string{"events"} }
	huma.Get(api, "/tasks/{id}/events", s.taskEvents, tag, describe("list-task-events", "What happened to a task", "Oldest first.", http.StatusNotFound))
	huma.Get(api, "/events", s.listEvents, tag, describe("list-events", "The feed of all events", "Oldest first. To catch up by pulling, go on with after = the id of the last event that you have; next_cursor is that id while there is more. An event appears here two seconds after it happened, so that none with an older id comes later."))
	huma.Get(api, "/events/{id}", s.getEvent, tag, describe("get-event", "Read an event", "", http.StatusNotFound))
}

func (s *server) taskEvents(ctx context.Context, in *IDInput) (*eventListOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	if _, err := s.store.Task(ctx, scopeOf(ctx), id); err != nil {
		return nil, s.fail(ctx, err)
	}
	events, err := s.store.TaskEvents(ctx, id)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return &eventListOutput{List[Event]{Data: wireEvents(events)}}, nil
}

func (s *server) listEvents(ctx context.Context, in *EventsFilter) (*eventListOutput, error) {
	return s.eventsOf(ctx, scopeOf(ctx), in)
}

func (s *server) eventsOf(ctx context.Context, scope store.Scope, in *EventsFilter) (*eventListOutput, error) {
	if in.Type != "" && !slices.Contains(store.EventTypes, in.Type) {
		return nil, s.fail(ctx, invalid(FieldError{"type", "must be one of " + strings.Join(store.EventTypes, ", ")}))
	}
	after := uuid.Nil
	if in.After != "" {
		var err error
		if after, err = parseEventID(in.After); err != nil {
			return nil, s.fail(ctx, invalid(FieldError{"after", "is not an event's id"}))
		}
	}
	events, err := s.store.Events(ctx, scope, in.Type, after, in.Limit)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	out := &eventListOutput{List[Event]{Data: wireEvents(events)}}
	if len(events) == in.Limit {
		last := out.Body.Data[len(events)-1].ID
		out.Body.NextCursor = &last
	}
	return out, nil
}

func (s *server) getEvent(ctx context.Context, in *IDInput) (*eventOutput, error) {
	id, err := parseEventID(in.ID)
	if err != nil {
		return nil, s.fail(ctx, store.ErrNotFound)
	}
	ev, err := s.store.Event(ctx, scopeOf(ctx), id)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return &eventOutput{wireEvents([]store.Event{ev})[0]}, nil
}

func parseEventID(s string) (uuid.UUID, error) {
	return uuid.Parse(strings.TrimPrefix(s, webhook.EventID("")))
}

func wireEvents(events []store.Event) []Event {
	out := make([]Event, len(events))
	for i, ev := range events {
		out[i] = Event{webhook.EventID(ev.ID.String()), ev.Type, ev.CreatedAt.UTC(), ev.TaskID, json.RawMessage(ev.Payload)}
	}
	return out
}
