package api

import (
	"context"
	"time"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

const (
	maxOverlap = 30 * 24 * time.Hour
	// standardOverlap is how long a replaced secret signs too by default.
	standardOverlap = 24 * time.Hour
	// settingsFresh is longer than an instance uses what it has read of an endpoint.
	settingsFresh = 1200 * time.Millisecond
)

type (
	// EndpointSecret is a signing secret.
	EndpointSecret struct {
		Secret string `json:"secret" example:"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" doc:"The newest signing secret."`
	}
	// EndpointPublicKey verifies what the endpoint's private key signs.
	EndpointPublicKey struct {
		PublicKey string `json:"public_key" example:"whpk_…" doc:"Verifies the v1a signatures of the endpoint's webhooks."`
	}
	// SecretRotation asks for a new secret.
	SecretRotation struct {
		Overlap string `json:"overlap,omitempty" example:"24h" doc:"How long the old secret signs too: 24h by default, 0s for not at all, at most 720h."`
	}
	// RecoverSince asks for failed deliveries to be sent again.
	RecoverSince struct {
		Since time.Time `json:"since" doc:"Deliveries that failed at or after this time are sent again."`
	}
	// Recovery is what a recovery took up.
	Recovery struct {
		Recovered int `json:"recovered" doc:"The number of failed deliveries that are sent again. The endpoint's queued is the number of those that still wait."`
	}
	rotateInput struct {
		IDInput
		Body *SecretRotation `required:"false"`
	}
	recoverInput struct {
		IDInput
		Body RecoverSince
	}
)

func (s *server) enableEndpoint(ctx context.Context, in *IDInput) (*body[Endpoint], error) {
	return s.setEnabled(ctx, in, true)
}

func (s *server) disableEndpoint(ctx context.Context, in *IDInput) (*body[Endpoint], error) {
	return s.setEnabled(ctx, in, false)
}

func (s *server) setEnabled(ctx context.Context, in *IDInput, enabled bool) (*body[Endpoint], error) {
	ep, err := s.store.UpdateEndpoint(ctx, scopeOf(ctx), in.id, store.EndpointSettings{Enabled: &enabled})
	return s.answerEndpoint(ctx, ep, err)
}

func (s *server) endpointSecret(ctx context.Context, in *IDInput) (*body[EndpointSecret], error) {
	secrets, err := s.store.Secrets(ctx, scopeOf(ctx), in.id)
	if err != nil {
		return nil, err
	}
	return &body[EndpointSecret]{EndpointSecret{webhook.FormatSecret(secrets[0])}}, nil
}

func (s *server) rotateSecret(ctx context.Context, in *rotateInput) (*body[EndpointSecret], error) {
	overlap, err := optionalDuration("overlap", orZero(in.Body).Overlap, standardOverlap, 0, maxOverlap)
	if err != nil {
		return nil, err
	}
	secret, err := s.store.RotateSecret(ctx, scopeOf(ctx), in.id, overlap)
	if err != nil {
		return nil, err
	}
	// Instances keep what they have read of an endpoint for a second. The caller may rely on the new secret once it has this
	// answer, so the answer waits until every instance signs with it.
	select {
	case <-ctx.Done():
	case <-time.After(settingsFresh):
	}
	return &body[EndpointSecret]{EndpointSecret{webhook.FormatSecret(secret)}}, nil
}

func (s *server) testEndpoint(ctx context.Context, in *IDInput) (*body[Delivery], error) {
	delivery, err := s.store.TestEndpoint(ctx, scopeOf(ctx), in.id)
	if err != nil {
		return nil, err
	}
	return s.answerDelivery(ctx, delivery)
}

func (s *server) recoverEndpoint(ctx context.Context, in *recoverInput) (*body[Recovery], error) {
	if err := notAhead(in.Body.Since); err != nil {
		return nil, err
	}
	recovered, err := s.store.Recover(ctx, scopeOf(ctx), in.id, &in.Body.Since)
	if err != nil {
		return nil, err
	}
	return &body[Recovery]{Recovery{recovered}}, nil
}

// notAhead refuses a time from which on nothing can have happened yet. Clocks may differ by a minute.
func notAhead(since time.Time) error {
	if since.After(time.Now().Add(time.Minute)) {
		return invalid(FieldError{"since", "must not be in the future: it is " + time.Now().UTC().Format(time.RFC3339) + " here"})
	}
	return nil
}

func (s *server) publicKey(ctx context.Context, in *IDInput) (*body[EndpointPublicKey], error) {
	key, err := s.store.PublicKey(ctx, scopeOf(ctx), in.id)
	if err != nil {
		return nil, err
	}
	return &body[EndpointPublicKey]{EndpointPublicKey{webhook.FormatPublicKey(key)}}, nil
}
