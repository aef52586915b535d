package api

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
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

// maxDepth is the maximum depth of a request's JSON. A batch needs five levels.
const maxDepth = 20

// OpenAPI returns the OpenAPI document of the whole API as JSON.
func OpenAPI(version string) ([]byte, error) {
	s := newServer(Config{Logger: slog.New(slog.DiscardHandler)})
	setProblems()
	api := humachi.New(chi.NewRouter(), openAPI(version))
	s.operations(api)
	return json.MarshalIndent(api.OpenAPI(), "", "  ")
}

// openAPI is the document without its operations.
func openAPI(version string) huma.Config {
	cfg := huma.DefaultConfig("memhook", version)
	cfg.Info.Description = "Registers tasks of memories.ai and sends signed webhooks when their videos are available.\n\n" +
		"Errors are `application/problem+json` (RFC 9457) with a stable `code`. Lists are newest first; `cursor` continues them. " +
		"Times are UTC with six digits of a second. An unknown field or query parameter is an error."
	cfg.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	cfg.Tags = []*huma.Tag{
		{Name: "tasks", Description: "Tasks of memories.ai and their subscriptions."},
		{Name: "events", Description: "What happened to tasks and endpoints. The feed lets a customer catch up by pulling."},
		{Name: "endpoints", Description: "Callback URLs with their settings, secrets and health."},
		{Name: "deliveries", Description: "One event for one endpoint, with every attempt."},
		{Name: "search", Description: "Tasks, deliveries and endpoints by what is known of them."},
		{Name: "admin", Description: "For the operator. Requires the admin token."},
	}
	cfg.CreateHooks = nil // they add a $schema member to every answer
	cfg.DocsPath, cfg.SchemasPath = "", ""
	format := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: unmarshal}
	cfg.Formats = map[string]huma.Format{"application/json": format, "json": format}
	cfg.NoFormatFallback = false
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"apiKey":     {Type: "http", Scheme: "bearer", Description: "An app's API key."},
		"adminToken": {Type: "http", Scheme: "bearer", Description: "The operator's token: the setting MEMHOOK_ADMIN_TOKEN."},
	}
	cfg.Webhooks = webhooks(cfg.Components.Schemas)
	return cfg
}

var (
	errDepth = fmt.Errorf("is nested deeper than %d levels", maxDepth)
	errBOM   = errors.New("begins with a byte order mark (BOM); send UTF-8 without one")
)

// unmarshal reads a request's JSON. Its errors say what is wrong with the body in terms of JSON.
func unmarshal(data []byte, v any) error {
	if bytes.HasPrefix(data, []byte("\uFEFF")) {
		return errBOM
	}
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
	if err := json.Unmarshal(data, v); err != nil {
		return jsonFault(err)
	}
	return nil
}

// jsonFault words an error of encoding/json, which speaks of Go types, for clients.
func jsonFault(err error) error {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("is not valid JSON: %w at byte %d", err, syntax.Offset)
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("has a value of the wrong type or out of range at %s: %s", cmp.Or(wrong.Field, "its top"), wrong.Value)
	}
	return errors.New("is not valid JSON")
}

// docs serves a readable form of the document. It loads nothing from other hosts.
func docs() http.Handler {
	ui := swgui.New("memhook", "/openapi.json", "/docs")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy",
			"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "+
				"frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		ui.ServeHTTP(w, r)
	})
}

// webhookTask and webhookEndpoint are the events as the document shows them.
type (
	webhookTask struct {
		ID           uuid.UUID         `json:"id" doc:"The id of the task in memhook."`
		TaskID       string            `json:"task_id" doc:"The task id of memories.ai."`
		UniqueID     string            `json:"unique_id"`
		VideoIDs     []string          `json:"video_ids" nullable:"false" doc:"In the order in which they were first seen."`
		Videos       []Video           `json:"videos" nullable:"false"`
		Metadata     map[string]string `json:"metadata"`
		RegisteredAt webhook.Time      `json:"registered_at"`
		DetectedAt   webhook.Time      `json:"detected_at"`
		Added        []string          `json:"added,omitempty" doc:"Only in task.updated: the new elements of video_ids."`
		Error        *TaskError        `json:"error,omitempty" doc:"Only in task.failed."`
	}
	webhookEndpoint struct {
		ID     uuid.UUID `json:"id"`
		URL    string    `json:"url"`
		Reason string    `json:"reason,omitempty" doc:"Only in endpoint.disabled."`
	}
)

// webhooks documents what memhook sends, one entry for each event type.
func webhooks(r huma.Registry) map[string]*huma.PathItem {
	all := make(map[string]*huma.PathItem)
	add := func(eventType, summary string, data reflect.Type) {
		header := func(name, doc string) *huma.Param {
			return &huma.Param{Name: name, In: "header", Required: true, Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}
		}
		all[eventType] = &huma.PathItem{Post: &huma.Operation{
			OperationID: eventType, Summary: summary, Tags: []string{"webhooks"},
			Description: "Signed as the Standard Webhooks specification says. Delivered at least once: deduplicate by webhook-id.",
			Parameters: []*huma.Param{
				header(webhook.HeaderID, "The id of the event. It is the same for every attempt and every resend."),
				header(webhook.HeaderTimestamp, "The time of this attempt in Unix seconds."),
				header(webhook.HeaderSignature,
					"Signatures of {id}.{timestamp}.{body}, separated by spaces: v1,<base64 HMAC-SHA256> for each active secret, "+
						"and v1a,<base64 ed25519>."),
			},
			RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{
				Type: huma.TypeObject, Required: []string{"type", "timestamp", "data"},
				Properties: map[string]*huma.Schema{
					"type":      {Type: huma.TypeString, Enum: []any{eventType}},
					"timestamp": {Type: huma.TypeString, Format: "date-time"},
					"data":      huma.SchemaFromType(r, data), // not by reference: generators of clients prune what only webhooks use
				},
			}}}},
			Responses: map[string]*huma.Response{"2XX": {
				Description: "Accepted. Any other status, including redirects, is a failure and is retried; 410 disables the endpoint.",
			}},
		}}
	}
	task, endpoint := reflect.TypeFor[webhookTask](), reflect.TypeFor[webhookEndpoint]()
	add(webhook.TaskReady, "The task's videos are available", task)
	add(webhook.TaskUpdated, "More videos were added within the settle window", task)
	add(webhook.TaskIndexed, "Every video of the task is indexed", task)
	add(webhook.TaskFailed, "memories.ai keeps refusing the task", task)
	add(webhook.TaskExpired, "The task expired before its videos were available", task)
	add(webhook.EndpointDisabled, "Another endpoint of the app was disabled", endpoint)
	add(webhook.EndpointRecovered, "Another endpoint of the app works again", endpoint)
	add(webhook.Test, "Sent on request", endpoint)
	return all
}
