package api

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"
	swgui "github.com/swaggest/swgui/v5emb"
)

// OpenAPI returns the OpenAPI document of the whole API as JSON.
func OpenAPI(version string) ([]byte, error) {
	s := newServer(Config{Logger: slog.New(slog.DiscardHandler)})
	setHuma()
	api := humachi.New(chi.NewRouter(), openAPI(version))
	s.operations(api)
	return json.MarshalIndent(api.OpenAPI(), "", "  ")
}

// openAPI is the document without its operations.
func openAPI(version string) huma.Config {
	cfg := huma.DefaultConfig("memhook", version)
	cfg.Info.Description = "Registers tasks of memories.ai and sends signed webhooks when their videos are available.\n\n" +
		"Errors are `application/problem+json` (RFC 9457) with a stable `code`. " +
		"Lists are newest first, those of events oldest first; `cursor` continues them, `after` the feed. " +
		"Times are UTC with six digits of a second, in webhooks with three. An unknown field or query parameter is an error. A body has at most 1 MiB and 20 levels " +
		"of JSON and arrives within 5 s; a URL has at most 8 KiB."
	cfg.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	cfg.Tags = []*huma.Tag{
		{Name: "tasks", Description: "Tasks of memories.ai and their subscriptions."},
		{Name: "uploads", Description: "Submissions to memories.ai that become tasks."},
		{Name: "events", Description: "What happened to tasks and endpoints. The feed lets a customer catch up by pulling."},
		{Name: "endpoints", Description: "Callback URLs with their settings, secrets and health."},
		{Name: "deliveries", Description: "One event for one endpoint, with every attempt."},
		{Name: "search", Description: "Finds tasks, deliveries, endpoints and uploads."},
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
