package api

import (
	"context"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

// Delivery is one event on its way to one endpoint.
type Delivery struct {
	ID            uuid.UUID  `json:"id" doc:"The id of the delivery."`
	EventID       string     `json:"event_id" example:"evt_01993c1e-6f3a-7cc0-9d4e-0a4ab7f3c1d2" doc:"The webhook-id. It is the same for every attempt."`
	EventType     string     `json:"event_type" example:"task.ready" doc:"The type of the event."`
	Task          *uuid.UUID `json:"task" nullable:"true" doc:"The id of the task in memhook; null for events about endpoints and uploads."`
	EndpointID    uuid.UUID  `json:"endpoint_id" doc:"The endpoint that it goes to."`
	CallbackURL   string     `json:"callback_url" doc:"The URL that it is sent to."`
	Status        string     `json:"status" enum:"pending,delivered,failed,cancelled" doc:"pending: it is or will be attempted; failed: its retries are used up."`
	AttemptCount  int        `json:"attempt_count" doc:"The number of attempts so far."`
	NextAttemptAt *Time      `json:"next_attempt_at" nullable:"true" doc:"When it is attempted next; null if it is not."`
	CreatedAt     Time       `json:"created_at" doc:"When the delivery was created: when the event happened or, for a later subscriber, when it subscribed."`
	DeliveredAt   *Time      `json:"delivered_at" nullable:"true" doc:"When the endpoint accepted it; null if it has not."`
	Attempts      []Attempt  `json:"attempts,omitzero" nullable:"false" doc:"Absent in lists."`
}

// Attempt is one POST request of a delivery.
type Attempt struct {
	Number          int               `json:"number" minimum:"1" doc:"Counts from 1."`
	At              Time              `json:"at" doc:"When the request was sent."`
	DurationMS      int               `json:"duration_ms" doc:"The time until the answer or the failure, in milliseconds."`
	Outcome         string            `json:"outcome" enum:"delivered,failed" doc:"Whether the endpoint accepted it with a 2xx status."`
	ResponseStatus  *int              `json:"response_status" doc:"null if there was no response."`
	Error           *string           `json:"error" doc:"The reason for getting no complete response."`
	ResponseHeaders map[string]string `json:"response_headers" doc:"The headers of the response; empty if there was none."`
	ResponseBody    *string           `json:"response_body" doc:"The first 4 KiB."`
}

// DeliveriesFilter are the query parameters of lists of deliveries.
type DeliveriesFilter struct {
	PageInput
	Status     string `query:"status" enum:"pending,delivered,failed,cancelled" doc:"Return only deliveries with this status."`
	EndpointID string `query:"endpoint_id" doc:"Return only deliveries to this endpoint."`
	Task       string `query:"task" doc:"The id of the task in memhook."`
}

func (s *server) listDeliveries(ctx context.Context, in *DeliveriesFilter) (*body[List[Delivery]], error) {
	f, err := in.filter(scopeOf(ctx))
	if err != nil {
		return nil, err
	}
	list, err := s.store.Deliveries(ctx, f, in.page)
	if err != nil {
		return nil, err
	}
	return listOf(list, false, in.Limit, func(d *store.Delivery) uuid.UUID { return d.ID }, wireDelivery), nil
}

func (in *DeliveriesFilter) filter(scope store.Scope) (f store.DeliveryFilter, err error) {
	f = store.DeliveryFilter{Scope: scope, Status: in.Status}
	if f.EndpointID, err = optionalID("endpoint_id", in.EndpointID); err != nil {
		return f, err
	}
	f.TaskID, err = optionalID("task", in.Task)
	return f, err
}

func (s *server) getDelivery(ctx context.Context, in *IDInput) (*body[Delivery], error) {
	return s.answerDelivery(ctx, in.id)
}

// answerDelivery answers with one delivery and its attempts.
func (s *server) answerDelivery(ctx context.Context, id uuid.UUID) (*body[Delivery], error) {
	d, err := s.store.Delivery(ctx, scopeOf(ctx), id)
	if err != nil {
		return nil, err
	}
	out := wireDelivery(&d)
	out.Attempts = make([]Attempt, len(d.Attempts))
	for i, a := range d.Attempts {
		out.Attempts[i] = Attempt{
			Number: a.Number, At: wireTime(a.At), DurationMS: a.DurationMS, Outcome: a.Outcome, ResponseStatus: a.ResponseStatus,
			Error: a.Error, ResponseHeaders: a.ResponseHeaders, ResponseBody: a.ResponseBody,
		}
		if a.ResponseHeaders == nil {
			out.Attempts[i].ResponseHeaders = map[string]string{}
		}
	}
	return &body[Delivery]{out}, nil
}

func (s *server) resend(ctx context.Context, in *IDInput) (*body[Delivery], error) {
	if err := s.store.Resend(ctx, scopeOf(ctx), in.id); err != nil {
		return nil, err
	}
	return s.answerDelivery(ctx, in.id)
}

func wireDelivery(d *store.Delivery) Delivery {
	return Delivery{
		ID: d.ID, EventID: webhook.EventID(d.EventID.String()), EventType: d.EventType, Task: d.TaskID, EndpointID: d.EndpointID,
		CallbackURL: d.CallbackURL, Status: d.Status, AttemptCount: d.AttemptCount, NextAttemptAt: wireTimeOf(d.NextAttemptAt),
		CreatedAt: wireTime(d.CreatedAt), DeliveredAt: wireTimeOf(d.DeliveredAt),
	}
}
