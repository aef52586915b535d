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
		{Name: "uploads", Description: "Submissions to memories.ai that become tasks."},
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
	cfg.Servers = []*huma.Server{{URL: "/", Description: "The memhook that serves this document."}}
	cfg.Components.Schemas = huma.NewMapRegistry(schemaPrefix, schemaName)
	cfg.Components.Schemas.RegisterTypeAlias(reflect.TypeFor[uuid.UUID](), reflect.TypeFor[documentedUUID]())
	cfg.Webhooks = documentWebhooks(cfg.Components.Schemas)
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
