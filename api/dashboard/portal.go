package dashboard

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/memhook/memhook/internal/recent"
	"github.com/memhook/memhook/store"
)

// A portal is the pages of one endpoint for the app's customer, below /portal/{endpoint}. Its link carries a token in the query,
// which is no part of the log. Opening the link moves the token into a cookie for these pages alone and leaves the address
// bar without it. Each request asks the database whether the token is still good (see store/portal.go).

// portalCookie is SameSite=Lax, not Strict: the link is on the app's site, and the browser would keep a Strict cookie back from
// the page that it leads to. The forms are protected by a field of their own.
const portalCookie = "memhook_portal"

type portal struct {
	site

	requests recent.Limiters[string] // limits them, by what the token says
}

// portalRate and portalBurst bound the requests with one link on this instance, per second and at once: several people look at pages
// that refresh themselves, while the database belongs to everybody's webhooks. Who has a link of yesterday cannot use up today's.
const portalRate, portalBurst = 20, 200

var errTooOften = errors.New("too many requests")

// NewPortal makes the handler of everything under /portal.
func NewPortal(cfg Config) (http.Handler, error) {
	shared, err := newSite("portal", "/portal", cfg)
	if err != nil {
		return nil, err
	}
	p := &portal{shared, recent.NewLimiters[string]()}
	r := chi.NewRouter()
	r.Use(headers, unlisted, boundForms)
	r.NotFound(func(w http.ResponseWriter, r *http.Request) { p.fail(w, r, store.ErrNotFound) })
	r.Handle("/static/*", http.StripPrefix("/portal", http.FileServerFS(static)))
	r.Get("/{endpoint}", p.open)
	r.Route("/{endpoint}/", func(r chi.Router) {
		r.Use(p.opened, p.ownForms)
		r.Get("/", p.page(p.deliveries))
		r.Post("/recover", p.action("recover-endpoint", p.recover))
		r.Get("/deliveries/{id}", p.page(p.delivery))
		r.Post("/deliveries/{id}/resend", p.action("resend-delivery", p.resend))
		r.Get("/secret", p.page(p.secret))
		r.Post("/secret", p.page(p.reveal))
		r.Post("/secret/rotate", p.action("rotate-endpoint", p.rotate))
	})
	return r, nil
}

// unlisted is a middleware that keeps the pages out of search engines and their address out of other sites' logs.
func unlisted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Referrer-Policy", "no-referrer")
		w.Header().Set("X-Robots-Tag", "noindex, nofollow")
		next.ServeHTTP(w, r)
	})
}

// visit is a request's open portal.
type visit struct {
	store.Portal

	Base string // the path of its pages
	Form string // proves that a form was sent from one of its pages
}

// Deliveries returns the path of the first page.
func (v *visit) Deliveries() string { return v.Base + "/" }

// Secret returns the path of the page with the secret.
func (v *visit) Secret() string { return v.Base + "/secret" }

type ctxVisit struct{}

// visitOf returns the portal that opened has found open, or nil.
func visitOf(r *http.Request) *visit {
	v, _ := r.Context().Value(ctxVisit{}).(*visit)
	return v
}

// find returns the portal that a token opens, which must be that of the endpoint in the path. The database is asked only within the
// limit.
func (p *portal) find(r *http.Request, token string) (*visit, error) {
	unsealed, err := p.store.UnsealPortal(token)
	if err == nil && unsealed.EndpointID.String() != chi.URLParam(r, "endpoint") {
		err = store.ErrNotFound
	}
	if err == nil && !p.requests.Of(fmt.Sprint(unsealed), portalRate, portalBurst).Allow() {
		err = errTooOften
	}
	if err != nil {
		return nil, err
	}
	found, err := p.store.OpenPortal(r.Context(), unsealed)
	if err != nil {
		return nil, err
	}
	// A hash tells nothing of the token, which only this browser and the link have.
	form := sha256.Sum256([]byte("memhook portal form\x00" + token))
	return &visit{found, "/portal/" + found.EndpointID.String(), base64.RawURLEncoding.EncodeToString(form[:])}, nil
}

// open exchanges the token of a link for the cookie.
func (p *portal) open(w http.ResponseWriter, r *http.Request) {
	token := r.URL.Query().Get("token")
	if token == "" { // a link that lacks its token; an open portal needs none
		http.Redirect(w, r, "/portal/"+chi.URLParam(r, "endpoint")+"/", http.StatusSeeOther) //nolint:gosec // a path of this site
		return
	}
	v, err := p.find(r, token)
	if err != nil {
		p.closed(w, r, err)
		return
	}
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // Secure wherever the request came over TLS
		Name: portalCookie, Value: token, Path: v.Base, MaxAge: max(1, int(time.Until(v.ExpiresAt).Seconds())),
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: p.cfg.Secure(r),
	})
	http.Redirect(w, r, v.Deliveries(), http.StatusSeeOther) //nolint:gosec // a path of this site
}

// opened is a middleware that lets a request through if its cookie opens the portal.
func (p *portal) opened(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var token string
		if c, err := r.Cookie(portalCookie); err == nil {
			token = c.Value
		}
		v, err := p.find(r, token)
		if err != nil {
			p.closed(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), ctxVisit{}, v)))
	})
}

// closed shows why a portal does not open. Whether its token was never good, has expired or was revoked is all the same. It logs
// nothing: everybody's link ends some day, and who asks too often would fill the log.
func (p *portal) closed(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, errTooOften):
		p.cfg.Refused.WithLabelValues("too-many-requests").Inc()
		w.Header().Set("Retry-After", "1")
		p.render(w, r, http.StatusTooManyRequests, &view{
			template: "problem", Title: "Too many requests", Data: "Too many requests for these pages. Wait a second and load the page again.",
		})
	case errors.Is(err, store.ErrNotFound):
		p.cfg.Refused.WithLabelValues("closed-portal").Inc()
		p.render(w, r, http.StatusUnauthorized, &view{
			template: "problem", Title: "This link does not work any more",
			Data: "It has expired or was revoked. Ask for a new one where you got it.",
		})
	default:
		p.fail(w, r, err)
	}
}

// ownForms is a middleware that refuses a form which no page of the portal has made.
func (p *portal) ownForms(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && subtle.ConstantTimeCompare([]byte(r.PostFormValue("form")), []byte(visitOf(r).Form)) != 1 {
			p.refuse(r, "foreign-form")
			p.render(w, r, http.StatusForbidden, &view{
				template: "problem", Title: "Nothing was changed",
				Data: "This form was not sent from one of these pages. Go back to them and try again.",
			})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (p *portal) page(read func(*http.Request, *visit) (*view, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := read(r, visitOf(r))
		if err != nil {
			p.fail(w, r, err)
			return
		}
		if v.Flash == "" {
			v.Flash = done(r)
		}
		p.render(w, r, http.StatusOK, v)
	}
}

func (p *portal) action(name string, do func(*http.Request, *visit) (to string, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := visitOf(r)
		r, e := p.auditing(r, entry(v, name))
		to, err := do(r, v)
		if err != nil {
			p.fail(w, r, err)
			return
		}
		p.audit(r, e)
		http.Redirect(w, r, withQuery(v.Base+to, "done", name), http.StatusSeeOther)
	}
}

// entry is what the audit log says of an action.
func entry(v *visit, action string) store.AuditEntry {
	return store.AuditEntry{Actor: store.ActorPortal, Name: v.EndpointID.String(), AppID: &v.AppID, Action: action}
}
