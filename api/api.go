package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/memhook/memhook/api/dashboard"
	"github.com/memhook/memhook/internal/recent"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

const (
	// maxBody is the maximum size of a request's body in bytes, and bodyTimeout the time in which it must arrive.
	maxBody     = 1 << 20
	bodyTimeout = 5 * time.Second
	// maxURL is the maximum size of a request's target in bytes.
	maxURL = 8 << 10
)

// Config is what the API needs.
type Config struct {
	Store      *store.Store
	Guard      *webhook.Guard // checks callback URLs
	AdminToken string         // empty: the admin API and the dashboard answer 503
	PublicURL  string         // of this service, for hint URLs and portals; empty: no hint URLs, and portals where the request was sent
	ExpiresIn  time.Duration  // default time until a task expires
	KeyLimit   float64        // requests/s of API keys without a limit of their own; 0 means no limit
	Proxies    []netip.Prefix // networks of proxies whose X-Forwarded-For and -Proto are trusted
	Version    string
	Ready      func(context.Context) error // returns nil while requests can be served
	Metrics    http.Handler                // served at /metrics; nil if metrics have an address of their own
	Registry   prometheus.Registerer       // counts requests and refusals
	Logger     *slog.Logger
}

// server holds what the handlers share.
type server struct {
	cfg   Config
	store *store.Store
	log   *slog.Logger
	keys  *keyCache

	counts   *requestCounts
	limits   recent.Limiters[uuid.UUID] // by API key
	hints    recent.Limiters[string]    // by hint URL
	registry huma.Registry              // of the document's schemas
}

func newServer(cfg Config) *server {
	return &server{
		cfg: cfg, store: cfg.Store, log: cfg.Logger, keys: newKeyCache(cfg.Store), counts: newRequestCounts(cfg.Registry),
		limits: recent.NewLimiters[uuid.UUID](), hints: recent.NewLimiters[string](),
	}
}

// New makes the handler of the whole API. Its background work ends with ctx.
func New(ctx context.Context, cfg Config) (http.Handler, error) {
	setHuma()
	s := newServer(cfg)

	r := chi.NewRouter()
	r.Use(requestID, clientIP(cfg.Proxies), s.observed, s.recovered, boundURL, middleware.GetHead)
	wrong := wrongPath(r)
	r.NotFound(wrong)
	r.MethodNotAllowed(wrong)
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
	portals, err := dashboard.NewPortal(s.pages())
	if err != nil {
		return nil, err
	}
	r.Mount("/portal/", portals)
	r.Handle("/docs", http.RedirectHandler("/docs/", http.StatusMovedPermanently))
	r.Handle("/docs/*", docs())

	s.operations(humachi.New(r, openAPI(cfg.Version)))
	return r, nil
}

// dashboard mounts the operator's pages. Without an admin token their paths answer how to get them.
func (s *server) dashboard(ctx context.Context, r *chi.Mux) error {
	if s.cfg.AdminToken == "" {
		off := func(w http.ResponseWriter, r *http.Request) { writeProblem(w, r, adminDisabled()) }
		r.HandleFunc("/admin", off)
		r.HandleFunc("/admin/*", off)
		return nil
	}
	pages, err := dashboard.New(ctx, s.pages())
	if err != nil {
		return err
	}
	for _, path := range []string{"/admin/v1", "/admin/v1/*"} { // paths without an operation are not pages
		r.HandleFunc(path, wrongPath(r))
	}
	r.Handle("/admin", http.RedirectHandler("/admin/", http.StatusFound))
	r.Mount("/admin/", pages)
	return nil
}

// pages is what the dashboard and the portals need.
func (s *server) pages() dashboard.Config {
	return dashboard.Config{
		Store: s.store, Token: s.cfg.AdminToken, Version: s.cfg.Version, Refused: s.counts.refused,
		Secure: func(r *http.Request) bool {
			return s.secure(r.TLS != nil, r.RemoteAddr, r.Header.Get(headerForwardedProto))
		},
		Client: func(r *http.Request) string { return middleware.GetClientIP(r.Context()) }, Logger: s.log,
	}
}

const headerForwardedProto = "X-Forwarded-Proto"

// secure reports whether a request came over TLS, to this service or to a trusted proxy in front of it.
func (s *server) secure(overTLS bool, remoteAddr, forwardedProto string) bool {
	if overTLS {
		return true
	}
	peer, err := netip.ParseAddrPort(remoteAddr)
	if err != nil || !strings.EqualFold(forwardedProto, "https") {
		return false
	}
	return slices.ContainsFunc(s.cfg.Proxies, func(p netip.Prefix) bool { return p.Contains(peer.Addr().Unmap()) })
}

// The errors of Config.Ready while the instance starts, and before it stops.
var (
	ErrStarting = errors.New("this instance is starting")
	ErrStopping = errors.New("this instance is shutting down")
)

func (s *server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	switch err := s.cfg.Ready(ctx); {
	case errors.Is(err, ErrStarting) || errors.Is(err, ErrStopping):
		writeProblem(w, r, problemFor(http.StatusServiceUnavailable, codeNotReady, err.Error()))
		return
	case err != nil:
		s.log.Warn("not ready", "error", err)
		writeProblem(w, r, problemFor(http.StatusServiceUnavailable, codeNotReady, "the database cannot be reached or is not migrated"))
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
}
