// Package dashboard serves the operator's pages under /admin and the customers' portals under /portal. They are rendered on the
// server, work without JavaScript and refresh themselves with it. They read and change the store as the API does.
package dashboard

import (
	"cmp"
	"context"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/memhook/memhook/internal/recent"
	"github.com/memhook/memhook/store"
)

// Config is what the dashboard and the portals need.
type Config struct {
	Store   *store.Store
	Token   string // the admin token; the portals need none
	Version string
	Refused *prometheus.CounterVec     // counts refusals, by reason
	Secure  func(*http.Request) bool   // reports whether a request came over TLS
	Client  func(*http.Request) string // returns the client's address
	Logger  *slog.Logger
}

// The files that anybody can read, and the pages' templates.
var (
	//go:embed static
	static embed.FS
	//go:embed pages
	pages embed.FS
)

type dashboard struct {
	site

	wrongTokens recent.Limiters[string]    // by client
	endings     *lru.Cache[string, ending] // by session
	jobs        http.Handler               // River's own pages
}

// contentSecurityPolicy lets pages load only files of this service.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// New makes the handler of everything under /admin except /admin/v1. The background work of River's pages ends with ctx.
func New(ctx context.Context, cfg Config) (http.Handler, error) {
	shared, err := newSite("dashboard", "/admin", cfg)
	if err != nil {
		return nil, err
	}
	d := &dashboard{site: shared, wrongTokens: recent.NewLimiters[string](), endings: recent.Cache[string, ending]()}
	if d.jobs, err = startJobs(ctx, cfg); err != nil {
		return nil, fmt.Errorf("start the pages of River: %w", err)
	}
	r := chi.NewRouter()
	r.Use(headers, d.sameOrigin, boundForms)
	r.Handle("/static/*", http.StripPrefix("/admin", http.FileServerFS(static)))
	r.Get("/sign-in", d.signInPage)
	r.Post("/sign-in", d.signIn)
	r.Group(func(r chi.Router) {
		r.Use(d.signedIn)
		r.Handle("/jobs", http.RedirectHandler("/admin/jobs/", http.StatusFound))
		r.HandleFunc("/jobs/*", d.jobPages)
		d.routes(r)
	})
	r.NotFound(d.signedIn(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { d.fail(w, r, store.ErrNotFound) })).ServeHTTP)
	return r, nil
}

// routes registers the pages and the actions of their buttons.
func (d *dashboard) routes(r chi.Router) {
	r.Get("/", d.page(d.overview))
	r.Post("/sign-out", d.signOut)
	for what := range store.Pausable {
		r.Post("/"+what+"/pause", d.action("pause-"+what, d.setPaused(what, true)))
		r.Post("/"+what+"/resume", d.action("resume-"+what, d.setPaused(what, false)))
	}

	r.Get("/tasks", d.page(d.tasks))
	r.Get("/tasks/{id}", d.page(d.task))
	r.Post("/tasks/{id}/poll", d.change("poll-task", "/admin/tasks/", "The task is polled at the account's next slot", d.store.PollTask))
	r.Post("/tasks/{id}/cancel", d.change("cancel-task", "/admin/tasks/", "The task was cancelled", d.store.CancelTask))

	r.Get("/uploads", d.page(d.uploads))
	r.Get("/uploads/{id}", d.page(d.upload))

	r.Get("/deliveries", d.page(d.deliveries))
	r.Get("/deliveries/{id}", d.page(d.delivery))
	r.Post("/deliveries/{id}/resend",
		d.change("resend-delivery", "/admin/deliveries/", "The delivery is sent again under the same webhook-id", d.store.Resend))
	r.Get("/resends/new", d.page(d.newBulk))
	r.Post("/resends", d.action("create-resend", d.startBulk))
	r.Get("/resends/{id}", d.page(d.bulk))
	r.Get("/search", d.page(d.search))
	r.Get("/audit", d.page(d.auditLog))

	const endpoint = "/admin/endpoints/"
	r.Get("/endpoints", d.page(d.endpoints))
	r.Get("/endpoints/{id}", d.page(d.endpoint))
	r.Post("/endpoints/{id}", d.action("update-endpoint", d.updateEndpoint))
	r.Post("/endpoints/{id}/retry", d.action("retry-endpoint", d.retryEndpoint))
	r.Post("/endpoints/{id}/rotate",
		d.change("rotate-endpoint", endpoint, "The secret was rotated; for 24 hours the old one signs too", d.rotateSecret))
	r.Post("/endpoints/{id}/delete", d.action("delete-endpoint", d.deleteEndpoint))
	r.Post("/endpoints/{id}/test", d.action("test-endpoint", d.testEndpoint))
	r.Post("/endpoints/{id}/enable", d.change("enable-endpoint", endpoint, "The endpoint was enabled", d.setEnabled(true)))
	r.Post("/endpoints/{id}/disable", d.change("disable-endpoint", endpoint, "The endpoint was disabled", d.setEnabled(false)))
	r.Post("/endpoints/{id}/recover", d.action("recover-endpoint", d.recoverEndpoint))

	r.Get("/accounts", d.page(d.accounts))
	r.Get("/accounts/{id}", d.page(d.account))
	r.Post("/accounts", d.action("create-account", d.createAccount))
	r.Post("/accounts/{id}", d.action("update-account", d.updateAccount))
	r.Post("/accounts/{id}/delete", d.action("delete-account", d.deleteAccount))

	r.Get("/apps", d.page(d.apps))
	r.Get("/apps/{id}", d.page(d.app))
	r.Post("/apps", d.action("create-app", d.createApp))
	r.Post("/apps/{id}", d.action("update-app", d.updateApp))
	r.Post("/apps/{id}/delete", d.action("delete-app", d.deleteApp))
	r.Post("/apps/{id}/keys", d.page(d.createKey))
	r.Post("/apps/{id}/keys/{key}/revoke", d.action("revoke-key", d.revokeKey))
}

func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentSecurityPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func (d *dashboard) page(read func(*http.Request) (*view, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := read(r)
		if err != nil {
			d.fail(w, r, err)
			return
		}
		v.Flash, v.Problem = cmp.Or(v.Flash, d.message(w, r, doneCookie)), d.message(w, r, problemCookie)
		d.render(w, r, http.StatusOK, v)
	}
}

// action makes the handler of a button. name is that of the action in the audit log. Afterwards the browser is redirected to a
// page that reports what was done.
func (d *dashboard) action(name string, do func(*http.Request) (to, done string, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r, e := d.auditing(r, name)
		to, done, err := do(r)
		switch {
		case err == nil:
			d.audit(r, e)
			d.setMessage(w, r, doneCookie, done)
			http.Redirect(w, r, to, http.StatusSeeOther)
		case errors.Is(err, store.ErrConflict) || errors.As(err, new(badInput)):
			d.setMessage(w, r, problemCookie, reason(err))
			http.Redirect(w, r, back(r), http.StatusSeeOther) //nolint:gosec // localPath keeps it here
		default:
			d.fail(w, r, err)
		}
	}
}

// setMessage keeps what a button did for the page that it leads to. In the page's address, anybody's link could hold a text that
// the dashboard would show as its own.
func (d *dashboard) setMessage(w http.ResponseWriter, r *http.Request, cookie, text string) {
	text = text[:min(len(text), maxMessage)]
	d.setCookie(w, r, cookie, base64.RawURLEncoding.EncodeToString([]byte(text)), messageLasts)
}

// message returns a message, which is then gone, or "".
func (d *dashboard) message(w http.ResponseWriter, r *http.Request, cookie string) string {
	c, err := r.Cookie(cookie)
	if err != nil || r.Header.Get("Sec-Fetch-Dest") == "empty" { // a page that refreshes itself is not the one it is for
		return ""
	}
	d.setCookie(w, r, cookie, "", -1)
	text, _ := base64.RawURLEncoding.DecodeString(c.Value)
	return strings.ToValidUTF8(string(text), "")
}

// change is action for what is one call of the store. It returns to the page of what was changed, below the path page.
func (d *dashboard) change(name, page, done string, do func(context.Context, store.Scope, uuid.UUID) error) http.HandlerFunc {
	return d.action(name, func(r *http.Request) (string, string, error) {
		id := pathID(r)
		return page + id.String(), done, do(r.Context(), store.Everything(), id)
	})
}

// auditing is the site's for what an operator does.
func (d *dashboard) auditing(r *http.Request, action string) (*http.Request, store.AuditEntry) {
	session := sessionID(r)
	return d.site.auditing(r, store.AuditEntry{Actor: store.ActorSession, Name: session[:min(len(session), 8)], Action: action})
}

// pathID returns the id in the path. What is not an id finds nothing.
func pathID(r *http.Request) uuid.UUID { return filterID(chi.URLParam(r, "id")) }
