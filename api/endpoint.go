package api

import (
	"context"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// masked stands for a header's value in answers.
const masked = "***"

// Endpoint is a receiver: all callback URLs with the same scheme, host, port and path.
type Endpoint struct {
	ID             uuid.UUID         `json:"id" doc:"The id of the endpoint."`
	URL            string            `json:"url" doc:"Scheme, host, port and path. A path that ends in /* stands for all callback URLs below it."`
	Description    string            `json:"description" doc:"A note of yours."`
	Enabled        bool              `json:"enabled" doc:"Whether webhooks are sent; while false, they wait."`
	DisabledReason *string           `json:"disabled_reason" doc:"Why it is disabled; null if it is enabled."`
	EventTypes     []string          `json:"event_types" doc:"null: all events of its tasks. Events about endpoints are sent only if they are listed."`
	Headers        map[string]string `json:"headers" doc:"Sent with every webhook. The values are masked."`
	RateLimit      *float64          `json:"rate_limit" doc:"Deliveries per second; null for no limit."`
	Signatures     []string          `json:"signatures" nullable:"false" doc:"v1: HMAC-SHA256 with the secret. v1a: ed25519 with the key that /public-key answers."`
	Breaker        string            `json:"breaker" enum:"closed,open,half-open" doc:"closed: it works; open: it is failing, and only probes are sent; half-open: a probe is on its way."`
	Queued         *int              `json:"queued,omitempty" doc:"The number of deliveries that wait for the endpoint; absent in lists."`
	CreatedAt      Time              `json:"created_at" doc:"When the endpoint was created."`
}

// NewEndpoint is an endpoint to be created.
type NewEndpoint struct {
	URL         string            `json:"url" example:"https://customer.example/hooks" doc:"Scheme, host, port and path, at most 2,048 characters, without user name, query and fragment. A path that ends in /* makes one endpoint of all callback URLs below it; the longest match counts."`
	Description string            `json:"description,omitempty" maxLength:"500" doc:"A note of yours."`
	Enabled     *bool             `json:"enabled,omitempty" default:"true" doc:"Whether webhooks are sent; while false, they wait."`
	EventTypes  []string          `json:"event_types,omitempty" nullable:"true" maxItems:"20" doc:"Empty or absent: all events of its tasks."`
	Headers     map[string]string `json:"headers,omitempty" maxProperties:"20" doc:"Sent with every webhook."`
	RateLimit   *float64          `json:"rate_limit,omitempty" minimum:"0" maximum:"10000" doc:"Deliveries per second, at least 0.01; 0 for no limit."`
	Signatures  []string          `json:"signatures,omitempty" nullable:"true" maxItems:"2" doc:"v1, and v1a beside it where it is asked for. Absent: v1."`
	Secret      string            `json:"secret,omitempty" maxLength:"120" doc:"Your own signing secret: whsec_ followed by base64 of 24 to 64 bytes. Absent: one is generated."`
}

// EndpointPatch changes the fields that it has. null clears a field that can be empty.
type EndpointPatch struct {
	URL         NotNull[string]             `json:"url,omitzero" doc:"As of a new endpoint. Its subscriptions and deliveries move with it."`
	Description Nullable[string]            `json:"description,omitzero" maxLength:"500" doc:"A note of yours."`
	Enabled     NotNull[bool]               `json:"enabled,omitzero" doc:"Whether webhooks are sent; true closes the breaker too."`
	EventTypes  Nullable[[]string]          `json:"event_types,omitzero" maxItems:"20" doc:"Empty or null: all events of its tasks."`
	Headers     Nullable[map[string]string] `json:"headers,omitzero" maxProperties:"20" doc:"Replaces all headers, as those of a new endpoint are bounded. The value *** keeps the header that is there, whatever the case of its name."`
	RateLimit   Nullable[float64]           `json:"rate_limit,omitzero" minimum:"0" maximum:"10000" doc:"Deliveries per second, at least 0.01; null or 0 for no limit."`
	Signatures  Nullable[[]string]          `json:"signatures,omitzero" maxItems:"2" doc:"v1, and v1a beside it where it is asked for; null for v1."`
}

type patchEndpointInput struct {
	IDInput
	Body EndpointPatch
}

func (s *server) createEndpoint(ctx context.Context, in *body[NewEndpoint]) (*body[Endpoint], error) {
	b := in.Body
	p := EndpointPatch{
		URL: NotNull[string]{given(b.URL)}, Description: given(b.Description), EventTypes: given(b.EventTypes), Headers: given(b.Headers),
	}
	if b.Enabled != nil {
		p.Enabled = NotNull[bool]{given(*b.Enabled)}
	}
	if b.RateLimit != nil {
		p.RateLimit = given(*b.RateLimit)
	}
	if b.Signatures != nil {
		p.Signatures = given(b.Signatures)
	}
	set, err := s.settings(p, b.Secret)
	if err != nil {
		return nil, err
	}
	ep, err := s.store.CreateEndpoint(ctx, callerOf(ctx).AppID, set)
	return s.answerEndpoint(ctx, ep, err)
}

func (s *server) patchEndpoint(ctx context.Context, in *patchEndpointInput) (*body[Endpoint], error) {
	set, err := s.settings(in.Body, "")
	if err != nil {
		return nil, err
	}
	ep, err := s.store.UpdateEndpoint(ctx, scopeOf(ctx), in.id, set)
	return s.answerEndpoint(ctx, ep, err)
}

func (s *server) getEndpoint(ctx context.Context, in *IDInput) (*body[Endpoint], error) {
	ep, err := s.store.Endpoint(ctx, scopeOf(ctx), in.id)
	return s.answerEndpoint(ctx, ep, err)
}

// answerEndpoint answers with one endpoint, unless err is not nil.
func (s *server) answerEndpoint(ctx context.Context, ep store.Endpoint, err error) (*body[Endpoint], error) {
	if err != nil {
		return nil, err
	}
	queued, err := s.store.Queued(ctx, ep.ID)
	if err != nil {
		return nil, err
	}
	out := s.wireEndpoint(&ep)
	out.Queued = &queued
	return &body[Endpoint]{out}, nil
}

func (s *server) listEndpoints(ctx context.Context, in *PageInput) (*body[List[Endpoint]], error) {
	list, err := s.store.Endpoints(ctx, store.EndpointFilter{Scope: scopeOf(ctx)}, in.page)
	if err != nil {
		return nil, err
	}
	return listOf(list, false, in.Limit, func(e *store.Endpoint) uuid.UUID { return e.ID }, s.wireEndpoint), nil
}

func (s *server) deleteEndpoint(ctx context.Context, in *IDInput) (*struct{}, error) {
	return nil, s.store.DeleteEndpoint(ctx, scopeOf(ctx), in.id)
}

func (s *server) wireEndpoint(e *store.Endpoint) Endpoint {
	out := Endpoint{
		ID: e.ID, URL: e.URL, Description: e.Description, Enabled: e.Enabled, DisabledReason: e.DisabledReason, EventTypes: e.EventTypes,
		Headers: map[string]string{}, RateLimit: e.RateLimit, Signatures: e.Signatures,
		Breaker: e.Breaker, CreatedAt: wireTime(e.CreatedAt),
	}
	names, err := s.store.HeaderNames(e)
	if err != nil {
		s.log.Error("cannot read the headers of an endpoint", "endpoint", e.ID, "error", err)
	}
	for _, name := range names {
		out.Headers[name] = masked
	}
	return out
}
