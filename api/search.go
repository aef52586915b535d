package api

import (
	"context"
	"strings"

	"github.com/memhook/memhook/store"
)

// Found is what a search found.
type Found struct {
	Tasks      []Task     `json:"tasks" nullable:"false" doc:"The tasks that match."`
	Deliveries []Delivery `json:"deliveries" nullable:"false" doc:"Those that match themselves, and the newest of the tasks that match."`
	Endpoints  []Endpoint `json:"endpoints" nullable:"false" doc:"The endpoints that match."`
	Uploads    []Upload   `json:"uploads" nullable:"false" doc:"The uploads that match, without their tasks."`
}

type searchInput struct {
	Q string `query:"q" required:"true" maxLength:"500" doc:"The beginning of a task id, an id, a webhook-id, a callback URL or its host, or a metadata value. A text of one or two characters is a whole task id or metadata value. Uploads are found by their id and by the whole URL of a video."`
}

func (s *server) search(ctx context.Context, in *searchInput) (*body[Found], error) {
	text := strings.TrimSpace(in.Q)
	if text == "" {
		return nil, invalid(FieldError{"q", "must have at least 1 character"})
	}
	found, err := s.store.Search(ctx, scopeOf(ctx), text, store.SearchMost)
	if err != nil {
		return nil, err
	}
	return &body[Found]{Found{
		Tasks: wireAll(found.Tasks, wireTask), Deliveries: wireAll(found.Deliveries, wireDelivery),
		Endpoints: wireAll(found.Endpoints, s.wireEndpoint),
		Uploads:   wireAll(found.Uploads, func(u *store.Upload) Upload { return wireUpload(u, nil) }),
	}}, nil
}
