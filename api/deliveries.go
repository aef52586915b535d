package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

// Delivery is one event on its way to one endpoint.
type Delivery struct {
	ID            uuid.UUID  `json:"id"`
	EventID       string     `json:"event_id" example:"evt_01993c1e-6f3a-7cc0-9d4e-0a4ab7f3c1d2" doc:"The webhook-id, the same for every attempt."`
	EventType     string     `json:"event_type" example:"task.ready"`
	Task          *uuid.UUID `json:"task" nullable:"true" doc:"memhook's id of the task; null for events about endpoints."`
	EndpointID    uuid.UUID  `json:"endpoint_id"`
	CallbackURL   string     `json:"callback_url"`
	Status        string     `json:"status" enum:"pending,delivered,failed,cancelled"`
	AttemptCount  int        `json:"attempt_count"`
	NextAttemptAt *time.Time `json:"next_attempt_at"`
	CreatedAt     time.Time  `json:"created_at"`
	DeliveredAt   *time.Time `json:"delivered_at"`
	Attempts      []Attempt  `json:"attempts,omitempty" nullable:"false" doc:"Not in lists."`
}

// Attempt is one POST of a delivery.
type Attempt struct {
	Number          int               `json:"number" minimum:"1"`
	At              time.Time         `json:"at"`
	DurationMS      int               `json:"duration_ms"`
	Outcome         string            `json:"outcome" enum:"delivered,failed"`
	ResponseStatus  *int              `json:"response_status" doc:"null where there was no response."`
	Error           *string           `json:"error" doc:"Why there was no complete response."`
	ResponseHeaders map[string]string `json:"response_headers"`
	ResponseBody    *string           `json:"response_body" doc:"The first 4 KiB."`
}

type (
	deliveryOutput struct{ Body Delivery }
	// DeliveriesFilter are the query parameters of lists of deliveries.
	DeliveriesFilter struct {
		PageInput
		Status     string `query:"status" enum:"pending,delivered,failed,cancelled"`
		EndpointID string `query:"endpoint_id"`
		Task       string `query:"task" doc:"memhook's id of the task."`
	}
)

func (s *server) deliveryOperations(api huma.API) {
	tag := func(o *huma.Operation) { o.Tags = []string{"deliveries"} }
	huma.Get(api, "/deliveries", s.listDeliveries, tag, describe("list-deliveries", "List deliveries", "Newest first, without their attempts."))
	huma.Get(api, "/deliveries/{id}", s.getDelivery, tag, describe("get-delivery", "Read a delivery with its attempts", "", http.StatusNotFound))
	huma.Post(api, "/deliveries/{id}/resend", s.resend, tag, describe("resend-delivery", "Send a delivery again", "Under the same webhook-id, with the retry schedule from its beginning.", http.StatusNotFound, http.StatusConflict), func(o *huma.Operation) {
		o.DefaultStatus = http.StatusAccepted
	})
}

func (s *server) listDeliveries(ctx context.Context, in *DeliveriesFilter) (*listOutput[Delivery], error) {
	return s.deliveriesOf(ctx, scopeOf(ctx), in)
}

func (s *server) deliveriesOf(ctx context.Context, scope store.Scope, in *DeliveriesFilter) (*listOutput[Delivery], error) {
	f, page, err := in.filter(scope)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	list, err := s.store.Deliveries(ctx, f, page)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return listOf(list, page.Limit, func(d *store.Delivery) uuid.UUID { return d.ID }, wireDelivery), nil
}

func (in *DeliveriesFilter) filter(scope store.Scope) (f store.DeliveryFilter, page store.Page, err error) {
	f = store.DeliveryFilter{Scope: scope, Status: in.Status}
	if f.EndpointID, err = optionalID("endpoint_id", in.EndpointID); err != nil {
		return f, page, err
	}
	if f.TaskID, err = optionalID("task", in.Task); err != nil {
		return f, page, err
	}
	page, err = in.page()
	return f, page, err
}

func (s *server) getDelivery(ctx context.Context, in *IDInput) (*deliveryOutput, error) {
	return s.deliveryOf(ctx, scopeOf(ctx), in)
}

func (s *server) deliveryOf(ctx context.Context, scope store.Scope, in *IDInput) (*deliveryOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return s.readDelivery(ctx, scope, id)
}

func (s *server) readDelivery(ctx context.Context, scope store.Scope, id uuid.UUID) (*deliveryOutput, error) {
	d, err := s.store.Delivery(ctx, scope, id)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	out := wireDelivery(&d)
	out.Attempts = make([]Attempt, len(d.Attempts))
	for i, a := range d.Attempts {
		out.Attempts[i] = Attempt{a.Number, a.At.UTC(), a.DurationMS, a.Outcome, a.ResponseStatus, a.Error, a.ResponseHeaders, a.ResponseBody}
		if a.ResponseHeaders == nil {
			out.Attempts[i].ResponseHeaders = map[string]string{}
		}
	}
	return &deliveryOutput{out}, nil
}

func (s *server) resend(ctx context.Context, in *IDInput) (*deliveryOutput, error) {
	return s.resendOf(ctx, scopeOf(ctx), in)
}

func (s *server) resendOf(ctx context.Context, scope store.Scope, in *IDInput) (*deliveryOutput, error) {
	id, err := in.id()
	if err == nil {
		err = s.store.Resend(ctx, scope, id)
	}
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return s.readDelivery(ctx, scope, id)
}

func wireDelivery(d *store.Delivery) Delivery {
	return Delivery{
		ID: d.ID, EventID: webhook.EventID(d.EventID.String()), EventType: d.EventType, Task: d.TaskID, EndpointID: d.EndpointID, CallbackURL: d.CallbackURL, Status: d.Status,
		AttemptCount: d.AttemptCount, NextAttemptAt: utc(d.NextAttemptAt), CreatedAt: d.CreatedAt.UTC(), DeliveredAt: utc(d.DeliveredAt),
	}
}
