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
	"io/fs"
	"log/slog"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

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

//go:embed static pages
var files embed.FS

type dashboard struct {
	site

	wrongTokens *lru.Cache[string, *rate.Limiter] // limits them, by client
	endings     *lru.Cache[string, ending]        // by session
	jobs        http.Handler                      // River's own pages
}

// contentSecurityPolicy lets pages load only files of this service.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// New makes the handler of everything under /admin except /admin/v1. The background work of River's pages ends with ctx.
func New(ctx context.Context, cfg Config) (http.Handler, error) {
	pages, err := newSite("dashboard", "/admin", cfg)
	if err != nil {
		return nil, err
	}
	d := &dashboard{site: pages, wrongTokens: newCache[*rate.Limiter](), endings: newCache[ending]()}
	if d.jobs, err = startJobs(ctx, cfg); err != nil {
		return nil, fmt.Errorf("start the pages of River: %w", err)
	}
	r := chi.NewRouter()
	r.Use(headers, d.sameOrigin, boundForms)
	r.Handle("/static/*", static("/admin/static/"))
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
	r.Post("/{what:polling|deliveries}/{verb:pause|resume}", d.action(d.pause))

	r.Get("/tasks", d.page(d.tasks))
	r.Get("/tasks/{id}", d.page(d.task))
	r.Post("/tasks/{id}/poll", d.action(d.pollTask))
	r.Post("/tasks/{id}/cancel", d.action(d.cancelTask))

	r.Get("/uploads", d.page(d.uploads))
	r.Get("/uploads/{id}", d.page(d.upload))

	r.Get("/deliveries", d.page(d.deliveries))
	r.Get("/deliveries/{id}", d.page(d.delivery))
	r.Post("/deliveries/{id}/resend", d.action(d.resend))
	r.Get("/resends/new", d.page(d.newBulk))
	r.Post("/resends", d.action(d.startBulk))
	r.Get("/resends/{id}", d.page(d.bulk))
	r.Get("/search", d.page(d.search))
	r.Get("/audit", d.page(d.auditLog))

	r.Get("/endpoints", d.page(d.endpoints))
	r.Get("/endpoints/{id}", d.page(d.endpoint))
	r.Post("/endpoints/{id}", d.action(d.updateEndpoint))
	r.Post("/endpoints/{id}/retry", d.action(d.retryEndpoint))
	r.Post("/endpoints/{id}/rotate", d.action(d.rotateSecret))
	r.Post("/endpoints/{id}/delete", d.action(d.deleteEndpoint))
	r.Post("/endpoints/{id}/test", d.action(d.testEndpoint))
	r.Post("/endpoints/{id}/{verb:enable|disable}", d.action(d.setEnabled))
	r.Post("/endpoints/{id}/recover", d.action(d.recoverEndpoint))

	r.Get("/accounts", d.page(d.accounts))
	r.Get("/accounts/{id}", d.page(d.account))
	r.Post("/accounts", d.action(d.createAccount))
	r.Post("/accounts/{id}", d.action(d.updateAccount))
	r.Post("/accounts/{id}/delete", d.action(d.deleteAccount))

	r.Get("/apps", d.page(d.apps))
	r.Get("/apps/{id}", d.page(d.app))
	r.Post("/apps", d.action(d.createApp))
	r.Post("/apps/{id}", d.action(d.updateApp))
	r.Post("/apps/{id}/delete", d.action(d.deleteApp))
	r.Post("/apps/{id}/keys", d.page(d.createKey))
	r.Post("/apps/{id}/keys/{key}/revoke", d.action(d.revokeKey))
}

// static serves the files of the pages below a path.
func static(path string) http.Handler {
	folder, err := fs.Sub(files, "static")
	if err != nil { // only for a name that is not valid
		panic(err)
	}
	return http.StripPrefix(path, http.FileServerFS(folder))
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

// page makes the handler of a page from the function that reads its data.
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

// action makes the handler of a button. Afterwards the browser is redirected to a page that reports what was done.
func (d *dashboard) action(do func(*http.Request) (to, done string, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r, e := d.auditing(r)
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

// auditing is the site's for what an operator does.
func (d *dashboard) auditing(r *http.Request) (*http.Request, store.AuditEntry) {
	session := sessionID(r)
	return d.site.auditing(r, store.AuditEntry{Actor: store.ActorSession, Name: session[:min(len(session), 8)], Action: actionOf(r)})
}

func pathID(r *http.Request) (uuid.UUID, error) {
	id, err := uuid.Parse(chi.URLParam(r, "id"))
	if err != nil {
		return id, store.ErrNotFound
	}
	return id, nil
}
