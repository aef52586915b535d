package api

import (
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"
	"golang.org/x/time/rate"
)

const (
	// maxHint is the most of a hint's body that is read, in bytes.
	maxHint = 64 << 10
	// What one hint URL may cause: look-ups a second, and at once.
	hintRate, hintBurst = 50, 100
	hintTokenLength     = 32 // characters
	hintURLsKept        = 10_000
)

// hintLimits bounds what each hint URL may cause.
type hintLimits struct {
	mu      sync.Mutex
	byToken map[string]*rate.Limiter
}

func (h *hintLimits) allow(token string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byToken == nil || len(h.byToken) >= hintURLsKept {
		h.byToken = make(map[string]*rate.Limiter)
	}
	l := h.byToken[token]
	if l == nil {
		l = rate.NewLimiter(hintRate, hintBurst)
		h.byToken[token] = l
	}
	return l.AllowN(time.Now(), 1)
}

// hint takes memories.ai's own callback. Nothing in it is believed: it moves the poll of the task that
// it names to the front, and only what the poll says counts. Anyone may post anything here, so the
// answer is always the same and the cost is at most one look-up.
func (s *server) hint(w http.ResponseWriter, r *http.Request) {
	token := chi.URLParam(r, "token")
	if len(token) != hintTokenLength {
		writeProblem(w, r, problemFor(http.StatusNotFound, codeNotFound, "this is not a hint URL"))
		return
	}
	body, err := io.ReadAll(r.Body)
	if err == nil && s.hints.allow(token) {
		if id := hintedTask(body); id != "" && printable(id) && len(id) <= maxTaskID*4 {
			if err := s.store.HintTask(r.Context(), token, id); err != nil {
				s.log.Warn("a hint could not be taken", "error", err, "request_id", requestIDOf(r.Context()))
			}
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// documentHints puts the hint's path into the document; it is served outside of huma, whatever its body.
func documentHints(api huma.API) {
	text := &huma.Schema{Type: huma.TypeString}
	api.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "hint", Method: http.MethodPost, Path: "/v1/hints/{token}", Summary: "memories.ai's own callback", Tags: []string{"tasks"},
		Description: "Give the URL of GET /v1/hint-url to memories.ai as callback_url. Nothing in the body is believed: it moves the poll of the task that it names to the front. The answer is always the same.",
		Parameters:  []*huma.Param{{Name: "token", In: "path", Required: true, Schema: text}},
		RequestBody: &huma.RequestBody{Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{}}}},
		Responses: map[string]*huma.Response{
			"204": {Description: "Taken, or ignored."},
			"404": {Description: "Not a hint URL", Content: map[string]*huma.MediaType{"application/problem+json": {Schema: &huma.Schema{Ref: "#/components/schemas/Problem"}}}},
		},
	})
}

// hintedTask reads the task of both shapes of callback; "" where there is none.
func hintedTask(body []byte) string {
	var shape struct {
		V1   string `json:"taskId"`
		V2   string `json:"task_id"`
		Data struct {
			V1 string `json:"taskId"`
			V2 string `json:"task_id"`
		} `json:"data"`
	}
	_ = json.Unmarshal(body, &shape) // what could be read is enough
	for _, id := range []string{shape.V1, shape.V2, shape.Data.V1, shape.Data.V2} {
		if id != "" {
			return id
		}
	}
	return ""
}
