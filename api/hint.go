package api

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	"github.com/memhook/memhook/memories"
)

const (
	// maxHint is the maximum size of a hint's body in bytes.
	maxHint = 64 << 10
	// One hint URL may cause hintRate look-ups a second, and hintBurst at once.
	hintRate, hintBurst = 50, 100
	hintTokenLength     = 32 // characters
)

// HintURL is the URL at which memories.ai tells of an app's tasks.
type HintURL struct {
	URL string `json:"url" doc:"Pass it to memories.ai as callback_url at upload."`
}

func (s *server) hintURL(ctx context.Context, _ *struct{}) (*body[HintURL], error) {
	if s.cfg.PublicURL == "" {
		return nil, problemFor(http.StatusConflict, codeNoPublicURL, "the operator has not set MEMHOOK_PUBLIC_URL, so there are no hint URLs")
	}
	app, err := s.store.App(ctx, callerOf(ctx).AppID)
	if err != nil {
		return nil, err
	}
	return &body[HintURL]{HintURL{s.cfg.PublicURL + "/v1/hints/" + app.HintToken}}, nil
}

// hint receives memories.ai's own callback. The callback only schedules a poll; its contents are otherwise ignored. Anyone
// may post anything here, so the answer is always the same and the cost is at most one look-up.
func (s *server) hint(w http.ResponseWriter, r *http.Request) {
	token := chi.URLParam(r, "token")
	if len(token) != hintTokenLength {
		writeProblem(w, r, problemFor(http.StatusNotFound, codeNotFound, "this is not a hint URL; GET /v1/hint-url returns it"))
		return
	}
	body, err := io.ReadAll(r.Body)
	if err == nil && s.hints.Of(token, hintRate, hintBurst).Allow() {
		if about := memories.ParseCallback(body); len(about.TaskIDs)+len(about.VideoIDs) > 0 {
			if err := s.store.HintTask(r.Context(), token, about.TaskIDs, about.VideoIDs); err != nil {
				s.log.Warn("cannot record a hint", "error", err, "request_id", requestIDOf(r.Context()))
			}
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// documentHints adds the hint's path to the document. It is served outside of huma because it accepts any body.
func documentHints(api huma.API) {
	text := &huma.Schema{Type: huma.TypeString}
	api.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "hint", Method: http.MethodPost, Path: "/v1/hints/{token}", Summary: "memories.ai's own callback", Tags: []string{"tasks"},
		Description: "Pass the URL of GET /v1/hint-url to memories.ai as callback_url. The callback only schedules a poll of the task that it " +
			"names, or of those that wait for the video that it names; its contents are otherwise ignored. The answer is always the same, also " +
			fmt.Sprintf("where the body has more than 64 KiB or the URL was called more than %d times in a second (%d at once): then the "+
				"callback is ignored.", hintRate, hintBurst),
		Parameters:  []*huma.Param{{Name: "token", In: "path", Required: true, Schema: text, Description: "The last part of the hint URL."}},
		RequestBody: &huma.RequestBody{Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{}}}},
		Responses: map[string]*huma.Response{
			"204": {Description: "Recorded or ignored."},
			"404": {Description: "Not a hint URL", Content: problemContent()},
		},
	})
}
