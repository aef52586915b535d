package api

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

// Bounds of an endpoint's settings.
const (
	maxHeaders     = 20
	maxHeaderValue = 1024
	maxOverlap     = 30 * 24 * time.Hour
	masked         = "***" // stands for a header's value in answers
	// standardOverlap is how long a replaced secret signs too where nothing is said.
	standardOverlap = 24 * time.Hour
	settingsFresh   = 1200 * time.Millisecond
)

// Endpoint is a callback URL with its settings.
type Endpoint struct {
	ID             uuid.UUID         `json:"id"`
	URL            string            `json:"url"`
	Description    string            `json:"description"`
	Enabled        bool              `json:"enabled"`
	DisabledReason *string           `json:"disabled_reason"`
	EventTypes     []string          `json:"event_types" doc:"null: all events of its tasks. endpoint.* only where they are named."`
	Headers        map[string]string `json:"headers" doc:"Sent with every webhook. The values are masked."`
	RateLimit      *float64          `json:"rate_limit" doc:"Deliveries a second; null for none."`
	Breaker        string            `json:"breaker" enum:"closed,open,half-open"`
	Queued         *int              `json:"queued,omitempty" doc:"Deliveries that wait for the endpoint to take them; not in lists."`
	CreatedAt      time.Time         `json:"created_at"`
}

// NewEndpoint is an endpoint to be made.
type NewEndpoint struct {
	URL         string            `json:"url" example:"https://customer.example/hooks"`
	Description string            `json:"description,omitempty" maxLength:"500"`
	Enabled     *bool             `json:"enabled,omitempty" default:"true"`
	EventTypes  []string          `json:"event_types,omitempty" nullable:"true" maxItems:"20" doc:"Empty or absent: all events of its tasks."`
	Headers     map[string]string `json:"headers,omitempty" maxProperties:"20"`
	RateLimit   *float64          `json:"rate_limit,omitempty" minimum:"0" maximum:"10000" doc:"Deliveries a second; 0 for none."`
	Secret      string            `json:"secret,omitempty" maxLength:"120" doc:"A signing secret of your own: whsec_ and base64 of 24 to 64 bytes."`
}

// EndpointPatch changes what it has.
type EndpointPatch struct {
	URL         *string            `json:"url,omitempty"`
	Description *string            `json:"description,omitempty" maxLength:"500"`
	Enabled     *bool              `json:"enabled,omitempty"`
	EventTypes  *[]string          `json:"event_types,omitempty" maxItems:"20" doc:"Empty: all events of its tasks."`
	Headers     *map[string]string `json:"headers,omitempty" maxProperties:"20" doc:"Replaces all headers."`
	RateLimit   *float64           `json:"rate_limit,omitempty" minimum:"0" maximum:"10000" doc:"0 for none."`
}

type (
	createEndpointInput struct{ Body NewEndpoint }
	patchEndpointInput  struct {
		IDInput
		Body EndpointPatch
	}
	endpointOutput struct{ Body Endpoint }
	secretOutput   struct {
		Body struct {
			Secret string `json:"secret" example:"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" doc:"The newest signing secret."`
		}
	}
	rotateInput struct {
		IDInput
		Body *struct {
			Overlap string `json:"overlap,omitempty" example:"24h" doc:"How long the old secret signs too, 24h where nothing is said; 0s for not at all, at most 720h."`
		} `required:"false"`
	}
	recoverInput struct {
		IDInput
		Body struct {
			Since time.Time `json:"since" doc:"Deliveries that failed at or after this time are sent again."`
		}
	}
	recoverOutput struct {
		Body struct {
			Recovered int `json:"recovered" doc:"Deliveries that are taken up again. The endpoint's queued tells how many of them still wait."`
		}
	}
	publicKeyOutput struct {
		Body struct {
			PublicKey string `json:"public_key" example:"whpk_…" doc:"Verifies the v1a signatures of the app's webhooks."`
		}
	}
	hintURLOutput struct {
		Body struct {
			URL string `json:"url" doc:"Give it to memories.ai as callback_url at upload."`
		}
	}
)

func (s *server) endpointOperations(api huma.API) {
	tag := func(o *huma.Operation) { o.Tags = []string{"endpoints"} }
	status := func(code int) func(*huma.Operation) { return func(o *huma.Operation) { o.DefaultStatus = code } }
	const nf, conflict = http.StatusNotFound, http.StatusConflict
	huma.Post(api, "/endpoints", s.createEndpoint, tag, describe("create-endpoint", "Make an endpoint", "A registration with an unknown callback URL makes one too.", conflict), status(http.StatusCreated))
	huma.Get(api, "/endpoints", s.listEndpoints, tag, describe("list-endpoints", "List endpoints", "Newest first."))
	huma.Get(api, "/endpoints/{id}", s.getEndpoint, tag, describe("get-endpoint", "Read an endpoint", "", nf))
	huma.Patch(api, "/endpoints/{id}", s.patchEndpoint, tag, describe("update-endpoint", "Change an endpoint", "", nf, conflict))
	huma.Delete(api, "/endpoints/{id}", s.deleteEndpoint, tag, describe("delete-endpoint", "Delete an endpoint", "With its subscriptions; what it had still to get is cancelled.", nf))
	huma.Get(api, "/endpoints/{id}/secret", s.endpointSecret, tag, describe("get-endpoint-secret", "Read an endpoint's signing secret", "The receiver verifies the v1 signatures with it.", nf))
	huma.Post(api, "/endpoints/{id}/secret/rotate", s.rotateSecret, tag, describe("rotate-endpoint-secret", "Replace the signing secret", "During the overlap both secrets sign. The answer comes after a second, when every instance signs with the new secret.", nf))
	huma.Post(api, "/endpoints/{id}/test", s.testEndpoint, tag, describe("test-endpoint", "Send webhook.test now", "Answers the delivery; read it again for its attempts.", nf, conflict), status(http.StatusAccepted))
	huma.Post(api, "/endpoints/{id}/enable", s.enableEndpoint, tag, describe("enable-endpoint", "Enable an endpoint again", "What has waited for it is sent.", nf))
	huma.Post(api, "/endpoints/{id}/recover", s.recoverEndpoint, tag, describe("recover-endpoint", "Send again what has failed since", "", nf), status(http.StatusAccepted))
	huma.Get(api, "/public-key", s.publicKey, tag, describe("read-public-key", "Read the app's public key", ""))
	huma.Get(api, "/hint-url", s.hintURL, func(o *huma.Operation) { o.Tags = []string{"tasks"} }, describe("read-hint-url", "Read the URL for memories.ai's own callback", "Needs MEMHOOK_PUBLIC_URL.", conflict))
}

// settings checks what is chosen of an endpoint.
func (s *server) settings(url, description *string, enabled *bool, types *[]string, headers *map[string]string, rate *float64, secret string) (store.EndpointSettings, error) {
	var wrong []FieldError
	if url != nil {
		target, err := s.cfg.Guard.Target(*url)
		if err != nil {
			wrong = append(wrong, FieldError{"url", err.Error()})
		}
		url = new(target.String())
	}
	if types != nil {
		for i, t := range *types {
			if !slices.Contains(store.EventTypes, t) {
				wrong = append(wrong, FieldError{fmt.Sprintf("event_types[%d]", i), "must be one of " + strings.Join(store.EventTypes, ", ")})
			}
		}
	}
	if headers != nil {
		wrong = append(wrong, checkHeaders(*headers)...)
	}
	set := store.EndpointSettings{URL: url, Description: description, Enabled: enabled, EventTypes: types, Headers: headers, RateLimit: rate}
	if secret != "" {
		var err error
		if set.Secret, err = webhook.ParseSecret(secret); err != nil || !strings.HasPrefix(secret, webhook.SecretPrefix) {
			wrong = append(wrong, FieldError{"secret", "must be " + webhook.SecretPrefix + " and base64 of 24 to 64 bytes"})
		}
	}
	if description != nil && strings.ContainsRune(*description, 0) {
		wrong = append(wrong, FieldError{"description", "must not contain NUL"})
	}
	if wrong != nil {
		return set, invalid(wrong...)
	}
	return set, nil
}

var headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$") // a token of RFC 9110

// reservedHeaders are memhook's own, those of the connection (RFC 9110, 7.6.1), and those that would
// change where or how the request goes.
var reservedHeaders = []string{
	"content-type", "content-length", "content-encoding", "user-agent", "host", "connection", "keep-alive", "proxy-connection", "proxy-authenticate",
	"proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "expect", "http2-settings", "traceparent", "tracestate",
}

func checkHeaders(headers map[string]string) (wrong []FieldError) {
	if len(headers) > maxHeaders {
		wrong = append(wrong, FieldError{"headers", fmt.Sprintf("must be at most %d", maxHeaders)})
	}
	for name, value := range headers {
		lower := strings.ToLower(name)
		switch {
		case !headerName.MatchString(name):
			wrong = append(wrong, FieldError{"headers." + name, "is not a header's name"})
		case slices.Contains(reservedHeaders, lower) || strings.HasPrefix(lower, "webhook-"):
			wrong = append(wrong, FieldError{"headers." + name, "is reserved"})
		case len(value) > maxHeaderValue || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r >= 0x7f }):
			wrong = append(wrong, FieldError{"headers." + name, fmt.Sprintf("must be at most %d printable ASCII characters", maxHeaderValue)})
		}
	}
	return wrong
}

func (s *server) createEndpoint(ctx context.Context, in *createEndpointInput) (*endpointOutput, error) {
	b := in.Body
	set, err := s.settings(&b.URL, &b.Description, b.Enabled, &b.EventTypes, &b.Headers, b.RateLimit, b.Secret)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	ep, err := s.store.CreateEndpoint(ctx, identityOf(ctx).AppID, set)
	return s.answerEndpoint(ctx, ep, err)
}

func (s *server) patchEndpoint(ctx context.Context, in *patchEndpointInput) (*endpointOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	b := in.Body
	set, err := s.settings(b.URL, b.Description, b.Enabled, b.EventTypes, b.Headers, b.RateLimit, "")
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	ep, err := s.store.UpdateEndpoint(ctx, scopeOf(ctx), id, set)
	return s.answerEndpoint(ctx, ep, err)
}

func (s *server) getEndpoint(ctx context.Context, in *IDInput) (*endpointOutput, error) {
	return s.endpointOf(ctx, scopeOf(ctx), in)
}

func (s *server) endpointOf(ctx context.Context, scope store.Scope, in *IDInput) (*endpointOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	ep, err := s.store.Endpoint(ctx, scope, id)
	return s.answerEndpoint(ctx, ep, err)
}

func (s *server) enableEndpoint(ctx context.Context, in *IDInput) (*endpointOutput, error) {
	return s.turn(ctx, scopeOf(ctx), in, true)
}

func (s *server) turn(ctx context.Context, scope store.Scope, in *IDInput, on bool) (*endpointOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	ep, err := s.store.EnableEndpoint(ctx, scope, id, on)
	return s.answerEndpoint(ctx, ep, err)
}

// answerEndpoint answers with one endpoint, or with why there is none.
func (s *server) answerEndpoint(ctx context.Context, ep store.Endpoint, err error) (*endpointOutput, error) {
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	queued, err := s.store.Queued(ctx, ep.ID)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	out := s.wireEndpoint(&ep)
	out.Queued = &queued
	return &endpointOutput{out}, nil
}

func (s *server) listEndpoints(ctx context.Context, in *PageInput) (*listOutput[Endpoint], error) {
	return s.endpointsOf(ctx, scopeOf(ctx), *in)
}

func (s *server) endpointsOf(ctx context.Context, scope store.Scope, in PageInput) (*listOutput[Endpoint], error) {
	page, err := in.page()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	list, err := s.store.Endpoints(ctx, scope, page)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return listOf(list, page.Limit, func(e *store.Endpoint) uuid.UUID { return e.ID }, s.wireEndpoint), nil
}

func (s *server) deleteEndpoint(ctx context.Context, in *IDInput) (*struct{}, error) {
	id, err := in.id()
	if err == nil {
		err = s.store.DeleteEndpoint(ctx, scopeOf(ctx), id)
	}
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return nil, nil
}

func (s *server) endpointSecret(ctx context.Context, in *IDInput) (*secretOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	secrets, err := s.store.Secrets(ctx, scopeOf(ctx), id)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	out := &secretOutput{}
	out.Body.Secret = webhook.FormatSecret(secrets[0])
	return out, nil
}

func (s *server) rotateSecret(ctx context.Context, in *rotateInput) (*secretOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	overlap := standardOverlap
	if in.Body != nil && in.Body.Overlap != "" {
		overlap, err = time.ParseDuration(in.Body.Overlap)
	}
	if err != nil || overlap < 0 || overlap > maxOverlap {
		return nil, s.fail(ctx, invalid(FieldError{"overlap", "must be a duration from 0s to 720h, such as 24h"}))
	}
	secret, err := s.store.RotateSecret(ctx, scopeOf(ctx), id, overlap)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	// Senders use what they have read of an endpoint for a second. Who has this answer may rely on the new
	// secret, so it comes when all of them sign with it.
	select {
	case <-ctx.Done():
	case <-time.After(settingsFresh):
	}
	out := &secretOutput{}
	out.Body.Secret = webhook.FormatSecret(secret)
	return out, nil
}

func (s *server) testEndpoint(ctx context.Context, in *IDInput) (*deliveryOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	scope := scopeOf(ctx)
	delivery, err := s.store.TestEndpoint(ctx, scope, id)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return s.readDelivery(ctx, scope, delivery)
}

func (s *server) recoverEndpoint(ctx context.Context, in *recoverInput) (*recoverOutput, error) {
	return s.recoverOf(ctx, scopeOf(ctx), in)
}

func (s *server) recoverOf(ctx context.Context, scope store.Scope, in *recoverInput) (*recoverOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	out := &recoverOutput{}
	if out.Body.Recovered, err = s.store.Recover(ctx, scope, id, in.Body.Since); err != nil {
		return nil, s.fail(ctx, err)
	}
	return out, nil
}

func (s *server) publicKey(ctx context.Context, _ *struct{}) (*publicKeyOutput, error) {
	app, err := s.store.App(ctx, identityOf(ctx).AppID)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	out := &publicKeyOutput{}
	out.Body.PublicKey = webhook.FormatPublicKey(app.PublicKey)
	return out, nil
}

func (s *server) hintURL(ctx context.Context, _ *struct{}) (*hintURLOutput, error) {
	if s.cfg.PublicURL == "" {
		return nil, s.fail(ctx, problemFor(http.StatusConflict, "no-public-url", "the operator has not set MEMHOOK_PUBLIC_URL"))
	}
	app, err := s.store.App(ctx, identityOf(ctx).AppID)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	out := &hintURLOutput{}
	out.Body.URL = s.cfg.PublicURL + "/v1/hints/" + app.HintToken
	return out, nil
}

func (s *server) wireEndpoint(e *store.Endpoint) Endpoint {
	out := Endpoint{
		ID: e.ID, URL: e.URL, Description: e.Description, Enabled: e.Enabled, DisabledReason: e.DisabledReason, EventTypes: e.EventTypes,
		Headers: map[string]string{}, RateLimit: e.RateLimit, Breaker: e.Breaker, CreatedAt: e.CreatedAt.UTC(),
	}
	names, err := s.store.HeaderNames(e)
	if err != nil {
		s.log.Error("an endpoint's headers could not be read", "endpoint", e.ID, "error", err)
	}
	for _, name := range names {
		out.Headers[name] = masked
	}
	return out
}
