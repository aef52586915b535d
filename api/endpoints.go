package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/memhook/memhook/webhook"
)

type secretOutput struct {
	Body struct {
		Secret string `json:"secret" example:"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" doc:"The newest signing secret."`
	}
}

func (s *server) endpointOperations(api huma.API) {
	tag := func(o *huma.Operation) { o.Tags = []string{"endpoints"} }
	huma.Get(api, "/endpoints/{id}/secret", s.endpointSecret, tag, describe("get-endpoint-secret", "Read an endpoint's signing secret", "The receiver verifies the v1 signatures with it.", http.StatusNotFound))
}

func (s *server) endpointSecret(ctx context.Context, in *IDInput) (*secretOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	secrets, err := s.store.Secrets(ctx, identityOf(ctx).AppID, id)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	out := &secretOutput{}
	out.Body.Secret = webhook.FormatSecret(secrets[0])
	return out, nil
}
