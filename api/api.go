package api

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

// maxBody is the most of a request's body that is read, in bytes.
const maxBody = 1 << 20

// Config is what the API needs.
type Config struct {
	Store      *store.Store
	Guard      *webhook.Guard // judges callback URLs
	AdminToken string         // empty: the admin API answers 503
	PublicURL  string         // of this service, for hint URLs
	ExpiresIn  time.Duration  // of tasks that say nothing
	Version    string
	Ready      func(context.Context) error // nil while requests can be served
	Metrics    http.Handler                // at /metrics; nil where it has its own address
	Logger     *slog.Logger
}

// server holds what the handlers share.
type server struct {
	cfg   Config
	store *store.Store
	log   *slog.Logger
	keys  *keyCache
	hints hintLimits
}

var problems sync.Once

// New makes the handler of the whole API.
func New(cfg Config) http.Handler {
	problems.Do(func() { huma.NewErrorWithContext = newProblem }) // huma has no other place for it
	s := &server{cfg: cfg, store: cfg.Store, log: cfg.Logger, keys: newKeyCache(cfg.Store)}

	r := chi.NewRouter()
	r.Use(requestID, s.logged, s.recovered)
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, r, problemFor(http.StatusNotFound, codeNotFound, "there is nothing at this path"))
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, r, problemFor(http.StatusMethodNotAllowed, "method-not-allowed", "this path does not take "+r.Method))
	})
	r.Get("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	r.Get("/readyz", s.ready)
	if cfg.Metrics != nil {
		r.Handle("/metrics", cfg.Metrics)
	}
	r.With(middleware.RequestSize(maxHint)).Post("/v1/hints/{token}", s.hint)

	s.operations(humachi.New(r, openAPI(cfg.Version)))
	return r
}

// operations registers everything that stands in the OpenAPI document.
func (s *server) operations(api huma.API) {
	v1 := huma.NewGroup(api, "/v1")
	v1.UseMiddleware(s.authenticated)
	v1.UseSimpleModifier(func(op *huma.Operation) {
		op.Security = []map[string][]string{{"apiKey": {}}}
		op.Errors = append(op.Errors, http.StatusUnauthorized)
	})
	s.taskOperations(v1)
	s.endpointOperations(v1)
	s.deliveryOperations(v1)
	s.eventOperations(v1)

	admin := huma.NewGroup(api, "/admin/v1")
	admin.UseMiddleware(s.administrator)
	admin.UseSimpleModifier(func(op *huma.Operation) {
		op.Security = []map[string][]string{{"adminToken": {}}}
		op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusServiceUnavailable)
	})
	s.adminOperations(admin)
}

// openAPI is the document's frame.
func openAPI(version string) huma.Config {
	cfg := huma.DefaultConfig("memhook", version)
	cfg.Info.Description = "Registers memories.ai tasks and delivers signed webhooks when their videos are there."
	cfg.CreateHooks = nil // they put a $schema member into every answer
	cfg.DocsPath, cfg.SchemasPath = "", ""
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"apiKey":     {Type: "http", Scheme: "bearer", Description: "An app's API key."},
		"adminToken": {Type: "http", Scheme: "bearer", Description: "The operator's token, MEMHOOK_ADMIN_TOKEN."},
	}
	return cfg
}

func (s *server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	if err := s.cfg.Ready(ctx); err != nil {
		s.log.Warn("not ready", "error", err)
		writeProblem(w, r, problemFor(http.StatusServiceUnavailable, "not-ready", "the database is not reachable or not migrated"))
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
}
