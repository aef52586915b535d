package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/memhook/memhook/api/dashboard"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

const (
	// maxBody is the most of a request's body that is read, in bytes, and bodyTimeout how long it may take.
	maxBody     = 1 << 20
	bodyTimeout = 5 * time.Second
	// maxURL is the most bytes of a request's target.
	maxURL = 8 << 10
)

// Config is what the API needs.
type Config struct {
	Store      *store.Store
	Guard      *webhook.Guard // judges callback URLs
	AdminToken string         // empty: the admin API answers 503
	PublicURL  string         // of this service, for hint URLs
	ExpiresIn  time.Duration  // of tasks that say nothing
	KeyLimit   float64        // requests a second of API keys without a limit of their own; 0 for none
	Proxies    []string       // networks of proxies whose X-Forwarded-For and -Proto are believed
	Version    string
	Ready      func(context.Context) error // nil while requests can be served
	Metrics    http.Handler                // at /metrics; nil where it has its own address
	Registry   prometheus.Registerer       // counts requests and refusals
	Logger     *slog.Logger
}

// server holds what the handlers share.
type server struct {
	cfg   Config
	store *store.Store
	log   *slog.Logger
	keys  *keyCache
	hints hintLimits

	counts   *requestCounts
	limits   keyLimits
	registry huma.Registry
}

var problems sync.Once

// setProblems makes huma's own errors look like ours. It has no other place for it.
func setProblems() {
	problems.Do(func() {
		huma.NewErrorWithContext = newProblem
		huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
			return newProblem(nil, status, msg, errs...)
		}
	})
}

// New makes the handler of the whole API. What runs in the background for it ends with ctx.
func New(ctx context.Context, cfg Config) (http.Handler, error) {
	setProblems()
	s := &server{counts: newRequestCounts(cfg.Registry), cfg: cfg, store: cfg.Store, log: cfg.Logger, keys: newKeyCache(cfg.Store), limits: keyLimits{standard: cfg.KeyLimit}}

	r := chi.NewRouter()
	r.Use(requestID, clientIP(cfg.Proxies), s.counts.counted, traced, s.logged, s.recovered, boundURL)
	r.NotFound(nothingHere)
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

	if err := s.dashboard(ctx, r); err != nil {
		return nil, err
	}
	r.Handle("/docs", http.RedirectHandler("/docs/", http.StatusMovedPermanently))
	r.Handle("/docs/*", docs())

	s.operations(humachi.New(r, openAPI(cfg.Version)))
	return r, nil
}

// dashboard mounts the operator's pages, or says how to have them.
func (s *server) dashboard(ctx context.Context, r chi.Router) error {
	if s.cfg.AdminToken == "" {
		off := func(w http.ResponseWriter, r *http.Request) { writeProblem(w, r, adminDisabled()) }
		r.HandleFunc("/admin", off)
		r.HandleFunc("/admin/*", off)
		return nil
	}
	pages, err := dashboard.New(ctx, dashboard.Config{
		Store: s.store, Token: s.cfg.AdminToken, Version: s.cfg.Version, Refused: s.counts.refused, Secure: s.secure,
		Client: func(r *http.Request) string { return middleware.GetClientIP(r.Context()) }, Logger: s.log,
	})
	if err != nil {
		return err
	}
	r.HandleFunc("/admin/v1/*", nothingHere) // what no operation has is not the pages' to answer
	r.Handle("/admin", http.RedirectHandler("/admin/", http.StatusFound))
	r.Mount("/admin/", pages)
	return nil
}

// secure tells whether a request came over TLS, to this service or to a trusted proxy before it.
func (s *server) secure(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		return false
	}
	return slices.ContainsFunc(s.cfg.Proxies, func(network string) bool {
		p, err := netip.ParsePrefix(network)
		return err == nil && p.Contains(peer.Addr().Unmap())
	})
}

func nothingHere(w http.ResponseWriter, r *http.Request) {
	writeProblem(w, r, problemFor(http.StatusNotFound, codeNotFound, "there is nothing at this path"))
}

// operations registers everything that stands in the OpenAPI document.
func (s *server) operations(api huma.API) {
	s.registry = api.OpenAPI().Components.Schemas
	v1 := huma.NewGroup(api, "/v1")
	v1.UseMiddleware(refuseWebhooks, s.authenticated, s.limited, s.idempotent)
	v1.UseSimpleModifier(func(op *huma.Operation) {
		op.Security = []map[string][]string{{"apiKey": {}}}
		if op.Method == http.MethodPost {
			op.Parameters = append(op.Parameters, &huma.Param{
				Name: headerIdempotency, In: "header", Schema: &huma.Schema{Type: huma.TypeString, MaxLength: new(maxIdempotencyKey)},
				Description: "For 24 hours, the same key with the same request gets the same answer again, and with another one 422 idempotency-key-reused.",
			})
		}
		addErrors(op, http.StatusUnauthorized, http.StatusTooManyRequests)
	})
	s.taskOperations(v1)
	s.endpointOperations(v1)
	s.deliveryOperations(v1)
	s.eventOperations(v1)

	admin := huma.NewGroup(api, "/admin/v1")
	admin.UseMiddleware(refuseWebhooks, s.administrator)
	admin.UseSimpleModifier(func(op *huma.Operation) {
		op.Security = []map[string][]string{{"adminToken": {}}}
		addErrors(op, http.StatusUnauthorized)
	})
	s.adminOperations(admin)
	documentHints(api)
}

// addErrors documents the problems that any operation can answer with, beside its own.
func addErrors(op *huma.Operation, more ...int) {
	problem := map[string]*huma.MediaType{"application/problem+json": {Schema: &huma.Schema{Ref: "#/components/schemas/Problem"}}}
	for _, status := range more {
		op.Responses[strconv.Itoa(status)] = &huma.Response{Description: http.StatusText(status), Content: problem}
	}
	op.Responses["default"] = &huma.Response{Description: "Any other problem; code says which.", Content: problem}
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
