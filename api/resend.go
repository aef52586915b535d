package api

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// NewResend selects the deliveries to send again. Fields that are absent select all. null and the empty text, which an unset
// variable of a script leaves, are refused.
type NewResend struct {
	EndpointID NotNull[string]    `json:"endpoint_id,omitzero" doc:"Only deliveries to this endpoint."`
	Status     string             `json:"status,omitempty" enum:"failed,delivered,pending" default:"failed" doc:"pending: those that wait for their next attempt, or for their endpoint."`
	EventType  NotNull[string]    `json:"event_type,omitzero" example:"task.ready" doc:"Only events of this type."`
	Since      NotNull[time.Time] `json:"since,omitzero" doc:"Only deliveries that were created at or after this time."`
	Until      NotNull[time.Time] `json:"until,omitzero" doc:"Only deliveries that were created before this time; now by default."`
	DryRun     bool               `json:"dry_run,omitempty" doc:"Count only. The id of the answer is null then."`
}

// Resend is the progress of a bulk resend.
type Resend struct {
	ID         *uuid.UUID `json:"id" nullable:"true" doc:"null for a dry run."`
	Status     string     `json:"status" enum:"running,finished" doc:"Whether it is still going on."`
	Matched    int64      `json:"matched" doc:"How many deliveries matched when it was asked for."`
	Done       int64      `json:"done" doc:"How many of them have been given back to their endpoints' queues so far."`
	Skipped    int64      `json:"skipped" doc:"How many could not be sent again: they have changed since, or their endpoint was deleted."`
	CreatedAt  *Time      `json:"created_at" nullable:"true" doc:"When it was asked for; null for a dry run."`
	FinishedAt *Time      `json:"finished_at" nullable:"true" doc:"When it ended; null until then."`
}

func (s *server) startResend(ctx context.Context, in *body[NewResend]) (*body[Resend], error) {
	f, err := in.Body.filter(scopeOf(ctx))
	if err != nil {
		return nil, err
	}
	if f.EndpointID != uuid.Nil {
		switch _, err := s.store.Endpoint(ctx, f.Scope, f.EndpointID); {
		case errors.Is(err, store.ErrNotFound):
			return nil, missing("endpoint_id", "endpoint")
		case err != nil:
			return nil, err
		}
	}
	if in.Body.DryRun {
		n, err := s.store.CountResend(ctx, f, math.MaxInt32)
		return &body[Resend]{Resend{Status: "finished", Matched: n}}, err
	}
	b, err := s.store.StartResend(ctx, f)
	if err != nil {
		return nil, err
	}
	return &body[Resend]{wireResend(&b)}, nil
}

func (n *NewResend) filter(scope store.Scope) (f store.ResendFilter, err error) {
	f = store.ResendFilter{
		Scope: scope, Action: store.ActionResend, Status: cmp.Or(n.Status, store.DeliveryFailed), EventType: n.EventType.Value,
	}
	if n.EndpointID.Set {
		if f.EndpointID, err = requiredID("endpoint_id", n.EndpointID.Value); err != nil {
			return f, err
		}
	}
	if n.EventType.Set && !slices.Contains(store.EventTypes, f.EventType) {
		return f, invalid(FieldError{"event_type", oneOf(f.EventType, store.EventTypes)})
	}
	f.Since, f.Until = n.Since.Value, n.Until.Value
	if err := notAhead(f.Since); err != nil {
		return f, err
	}
	if n.Until.Set && !f.Since.Before(f.Until) {
		return f, invalid(FieldError{"until", "must be after since"})
	}
	return f, nil
}

func (s *server) getResend(ctx context.Context, in *IDInput) (*body[Resend], error) {
	b, err := s.store.BulkResend(ctx, scopeOf(ctx), in.id)
	if err != nil {
		return nil, err
	}
	return &body[Resend]{wireResend(&b)}, nil
}

func wireResend(b *store.BulkResend) Resend {
	out := Resend{
		ID: &b.ID, Status: "running", Matched: b.Matched, Done: b.Done, Skipped: b.Skipped,
		CreatedAt: wireTimeOf(&b.CreatedAt), FinishedAt: wireTimeOf(b.FinishedAt),
	}
	if b.FinishedAt != nil {
		out.Status = "finished"
	}
	return out
}
