package dashboard

import (
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"github.com/memhook/memhook/store"
)

// site is what the operator's dashboard and the customers' portals share: how pages are rendered and errors shown.
type site struct {
	name  string // in the log
	root  string // the path of its pages
	cfg   Config
	store *store.Store
	log   *slog.Logger
	pages map[string]*template.Template
}

// newSite makes the site whose pages are in the folder of the same name as its path.
func newSite(name, root string, cfg Config) (site, error) {
	parsed, err := parsePages("pages" + root)
	return site{name: name, root: root, cfg: cfg, store: cfg.Store, log: cfg.Logger, pages: parsed}, err
}

// view is what a page shows.
type view struct {
	template string // of its content
	Title    string
	Live     int // seconds between refreshes; 0 for none
	Data     any

	Root     string // of the site
	Path     string
	SignedIn bool
	Portal   *visit // nil on the dashboard
	Flash    string // what the last button did
	Problem  string
	Version  string
	Now      time.Time
}

func (s *site) render(w http.ResponseWriter, r *http.Request, status int, v *view) {
	v.Root, v.Path, v.Version, v.Now = s.root, r.URL.Path, s.cfg.Version, time.Now()
	v.SignedIn, v.Portal = sessionID(r) != "", visitOf(r)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if err := s.pages[v.template].ExecuteTemplate(w, "layout", v); err != nil {
		s.log.Warn("cannot write a page", "page", v.template, "error", err)
	}
}

// badInput says what is wrong with a form.
type badInput string

func (b badInput) Error() string { return string(b) }

// reason words an error that the user of a page caused.
func reason(err error) string {
	if errors.Is(err, store.ErrConflict) {
		return "Not possible: " + store.ConflictReason(err) + "."
	}
	return err.Error()
}

// fail shows a page that says what went wrong.
func (s *site) fail(w http.ResponseWriter, r *http.Request, err error) {
	v := &view{template: "problem", Title: "Something went wrong", Data: "An unexpected error occurred. The service's log explains it."}
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, store.ErrNotFound):
		status, v.Title = http.StatusNotFound, "Not found"
		v.Data = "This page does not exist, or what it showed was deleted or is past its retention."
	case errors.Is(err, store.ErrConflict):
		status, v.Title, v.Data = http.StatusConflict, "Nothing was changed", reason(err)
	case errors.As(err, new(badInput)):
		status, v.Title, v.Data = http.StatusUnprocessableEntity, "The form has an error", reason(err)
	case errors.Is(err, store.ErrSearchTimeout):
		status, v.Title, v.Data = http.StatusServiceUnavailable, "Nothing was found in time", "Search for more of the text."
	case r.Context().Err() != nil:
		return
	case store.IsUnavailable(err):
		status, v.Title, v.Data = http.StatusServiceUnavailable, "Unavailable", "The database cannot be reached. Try again in a few seconds."
		s.log.Warn("the database is unavailable", "path", r.URL.Path, "error", err)
	default:
		s.log.Error("a page failed", "path", r.URL.Path, "error", err)
	}
	s.render(w, r, status, v)
}

// refuse counts and logs a refusal.
func (s *site) refuse(r *http.Request, reason string) {
	s.cfg.Refused.WithLabelValues(reason).Inc()
	s.log.Warn("refused at the "+s.name, "reason", reason, "method", r.Method, "path", r.URL.Path, "client", s.cfg.Client(r))
}

// auditing returns a request whose changes are entered in the audit log as they are made, and the entry.
func (s *site) auditing(r *http.Request, e store.AuditEntry) (*http.Request, store.AuditEntry) {
	e.Client, e.Target = s.cfg.Client(r), r.URL.Path
	ctx, e := store.Auditing(r.Context(), e)
	return r.WithContext(ctx), e
}

// audit notes in the log, and in the audit log if it is not there yet, that somebody has changed something.
func (s *site) audit(r *http.Request, e store.AuditEntry) {
	s.log.Info("something was changed at the "+s.name, "path", e.Target, "client", e.Client)
	if err := s.store.Audit(r.Context(), e); err != nil {
		s.log.Error("cannot write the audit log", "path", e.Target, "client", e.Client, "error", err)
	}
}
