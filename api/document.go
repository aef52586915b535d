package api

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"
	swgui "github.com/swaggest/swgui/v5emb"

	"github.com/memhook/memhook/webhook"
)

// maxDepth is how deep the JSON of a request may be nested: a registration needs three.
const maxDepth = 20

// OpenAPI gives the document of the whole API, as JSON.
func OpenAPI(version string) ([]byte, error) {
	s := &server{log: slog.New(slog.DiscardHandler)}
	setProblems()
	api := humachi.New(chi.NewRouter(), openAPI(version))
	s.operations(api)
	return json.MarshalIndent(api.OpenAPI(), "", "  ")
}

// openAPI is the document's frame.
func openAPI(version string) huma.Config {
	cfg := huma.DefaultConfig("memhook", version)
	cfg.Info.Description = "Registers memories.ai tasks and delivers signed webhooks when their videos are there.\n\n" +
		"Errors are `application/problem+json` (RFC 9457) with a stable `code`. Lists are newest first and go on with `cursor`. Times are UTC."
	cfg.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	cfg.Tags = []*huma.Tag{
		{Name: "tasks", Description: "Tasks of memories.ai, and who hears of them."},
		{Name: "events", Description: "What happened. The feed lets a customer catch up by pulling."},
		{Name: "endpoints", Description: "Callback URLs with their settings, secrets and health."},
		{Name: "deliveries", Description: "Events on their way to endpoints, with every attempt."},
		{Name: "admin", Description: "For the operator, with the admin token."},
	}
	cfg.CreateHooks = nil // they put a $schema member into every answer
	cfg.DocsPath, cfg.SchemasPath = "", ""
	format := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: unmarshal}
	cfg.Formats = map[string]huma.Format{"application/json": format, "json": format}
	cfg.NoFormatFallback = false
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"apiKey":     {Type: "http", Scheme: "bearer", Description: "An app's API key."},
		"adminToken": {Type: "http", Scheme: "bearer", Description: "The operator's token, MEMHOOK_ADMIN_TOKEN."},
	}
	cfg.Webhooks = webhooks(cfg.Components.Schemas)
	return cfg
}

var errDepth = errors.New("the JSON is nested too deep")

// unmarshal reads a request's JSON, which must not be nested deeper than any request needs.
func unmarshal(data []byte, v any) error {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return errDepth
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return json.Unmarshal(data, v)
}

// docs serves a readable form of the document, with nothing from other hosts.
func docs() http.Handler {
	ui := swgui.New("memhook", "/openapi.json", "/docs")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		ui.ServeHTTP(w, r)
	})
}

// webhookTask and webhookEndpoint are the events as the document shows them.
type (
	webhookTask struct {
		ID           uuid.UUID         `json:"id" doc:"memhook's id of the task."`
		TaskID       string            `json:"task_id" doc:"memories.ai's."`
		UniqueID     string            `json:"unique_id"`
		VideoIDs     []string          `json:"video_ids" nullable:"false" doc:"In the order in which they were first seen."`
		Videos       []Video           `json:"videos" nullable:"false"`
		Metadata     map[string]string `json:"metadata"`
		RegisteredAt webhook.Time      `json:"registered_at"`
		DetectedAt   webhook.Time      `json:"detected_at"`
		Added        []string          `json:"added,omitempty" doc:"Of task.updated: what is new in video_ids."`
		Error        *TaskError        `json:"error,omitempty" doc:"Of task.failed."`
	}
	webhookEndpoint struct {
		ID     uuid.UUID `json:"id"`
		URL    string    `json:"url"`
		Reason string    `json:"reason,omitempty" doc:"Of endpoint.disabled."`
	}
)

// webhooks is what memhook sends, an entry an event type.
func webhooks(r huma.Registry) map[string]*huma.PathItem {
	all := make(map[string]*huma.PathItem)
	add := func(eventType, summary string, data reflect.Type) {
		header := func(name, doc string) *huma.Param {
			return &huma.Param{Name: name, In: "header", Required: true, Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}
		}
		all[eventType] = &huma.PathItem{Post: &huma.Operation{
			OperationID: eventType, Summary: summary, Tags: []string{"webhooks"},
			Description: "Signed by the Standard Webhooks specification. Delivered at least once: deduplicate by webhook-id.",
			Parameters: []*huma.Param{
				header(webhook.HeaderID, "The event's id, the same for every attempt and every resend."),
				header(webhook.HeaderTimestamp, "Of this attempt, in Unix seconds."),
				header(webhook.HeaderSignature, "v1,<base64 HMAC-SHA256> for each secret in force and v1a,<base64 ed25519>, separated by spaces, of {id}.{timestamp}.{body}."),
			},
			RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{
				Type: huma.TypeObject, Required: []string{"type", "timestamp", "data"},
				Properties: map[string]*huma.Schema{
					"type":      {Type: huma.TypeString, Enum: []any{eventType}},
					"timestamp": {Type: huma.TypeString, Format: "date-time"},
					"data":      huma.SchemaFromType(r, data), // not by reference: generators of clients prune what only webhooks use
				},
			}}}},
			Responses: map[string]*huma.Response{"2XX": {Description: "Accepted. Anything else, a redirect included, is a failure and is retried; 410 disables the endpoint."}},
		}}
	}
	task, endpoint := reflect.TypeFor[webhookTask](), reflect.TypeFor[webhookEndpoint]()
	add(webhook.TaskReady, "The list of videos is there", task)
	add(webhook.TaskUpdated, "More videos joined the list within the settle window", task)
	add(webhook.TaskIndexed, "Every video is indexed", task)
	add(webhook.TaskFailed, "memories.ai keeps refusing the task", task)
	add(webhook.TaskExpired, "The task's time is up", task)
	add(webhook.EndpointDisabled, "Another endpoint of the app was disabled", endpoint)
	add(webhook.EndpointRecovered, "Another endpoint of the app works again", endpoint)
	add(webhook.Test, "Sent on request", endpoint)
	return all
}
