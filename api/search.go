package api

import (
	"context"
	"strings"
)

const (
	// searchMost is how many of each kind a search returns at most.
	searchMost = 20
	// searchLeast is the least length of a search in characters.
	searchLeast = 3
)

// Found is what a search found.
type Found struct {
	Tasks      []Task     `json:"tasks" nullable:"false" doc:"The tasks that match."`
	Deliveries []Delivery `json:"deliveries" nullable:"false" doc:"Those that match themselves, and the newest of the tasks that match."`
	Endpoints  []Endpoint `json:"endpoints" nullable:"false" doc:"The endpoints that match."`
	Uploads    []Upload   `json:"uploads" nullable:"false" doc:"The uploads that match, without their tasks."`
}

type (
	searchInput struct {
		Q string `query:"q" required:"true" maxLength:"500" doc:"The beginning of a task id, an id, a webhook-id, a URL or host of an endpoint, or a metadata value; at least 3 characters. Uploads are found by their id and by the whole URL of a video."`
	}
	searchOutput struct{ Body Found }
)

func (s *server) search(ctx context.Context, in *searchInput) (*searchOutput, error) {
	text := strings.TrimSpace(in.Q)
	if len([]rune(text)) < searchLeast {
		return nil, invalid(FieldError{"q", "must have at least 3 characters"})
	}
	found, err := s.store.Search(ctx, scopeOf(ctx), text, searchMost)
	if err != nil {
		return nil, err
	}
	out := Found{
		Tasks: make([]Task, len(found.Tasks)), Deliveries: make([]Delivery, len(found.Deliveries)),
		Endpoints: make([]Endpoint, len(found.Endpoints)), Uploads: make([]Upload, len(found.Uploads)),
	}
	for i := range found.Tasks {
		out.Tasks[i] = wireTask(&found.Tasks[i])
	}
	for i := range found.Deliveries {
		out.Deliveries[i] = wireDelivery(&found.Deliveries[i])
	}
	for i := range found.Endpoints {
		out.Endpoints[i] = s.wireEndpoint(&found.Endpoints[i])
	}
	for i := range found.Uploads {
		out.Uploads[i] = wireUpload(&found.Uploads[i], nil)
	}
	return &searchOutput{out}, nil
}
