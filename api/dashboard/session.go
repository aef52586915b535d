package dashboard

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

const (
	cookieName   = "memhook_session"
	sessionLasts = 12 * time.Hour
	// These hold what a button did, for messageLasts seconds, or until a page shows it. Browsers drop cookies of more than 4 KB.
	doneCookie, problemCookie = "memhook_done", "memhook_problem"
	messageLasts, maxMessage  = 10, 2000
	// endedFresh is how long an instance does not ask again whether a session was signed out on another.
	endedFresh = time.Second
	// One client may send wrongBurst wrong tokens at once, and then one every wrongEvery.
	wrongBurst = 10
	wrongEvery = 6 * time.Second
	// clientsKept bounds the limiters. When it is full, that of the client seen least recently is evicted.
	clientsKept = 10_000
	// maxForm is the maximum size of a form in bytes.
	maxForm = 64 << 10
)

// A session is a cookie that only the admin token can make: "expiry.nonce.mac". It is valid on every instance and after a
// restart until it expires, is signed out, or the token is replaced. The nonce is its id.
func (d *dashboard) mac(text string) string {
	key := sha256.Sum256([]byte("memhook dashboard session\x00" + d.cfg.Token))
	h := hmac.New(sha256.New, key[:])
	h.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

func (d *dashboard) newSession(now time.Time) string {
	nonce := make([]byte, 18)
	_, _ = rand.Read(nonce) // never fails: it ends the program instead
	text := strconv.FormatInt(now.Add(sessionLasts).Unix(), 10) + "." + base64.RawURLEncoding.EncodeToString(nonce)
	return text + "." + d.mac(text)
}

// session returns why a request has no valid session, or "".
func (d *dashboard) session(r *http.Request, now time.Time) (refused string) {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return "no-session"
	}
	i := strings.LastIndexByte(c.Value, '.')
	if i < 0 || subtle.ConstantTimeCompare([]byte(c.Value[i+1:]), []byte(d.mac(c.Value[:i]))) != 1 {
		return "forged-session"
	}
	if _, expires := sessionOf(c.Value); !now.Before(expires) {
		return "expired-session"
	}
	return ""
}

// sessionOf returns the id of a session and when it expires.
func sessionOf(cookie string) (id string, expires time.Time) {
	parts := strings.Split(cookie, ".")
	at, err := strconv.ParseInt(parts[0], 10, 64)
	if len(parts) != 3 || err != nil {
		return "", time.Time{}
	}
	return parts[1], time.Unix(at, 0)
}

// ended reports whether a session was signed out. It asks the database once in endedFresh.
func (d *dashboard) ended(ctx context.Context, id string, now time.Time) (bool, error) {
	if known, ok := d.endings.Get(id); ok && (known.ended || now.Before(known.until)) {
		return known.ended, nil
	}
	ended, err := d.store.SessionEnded(ctx, id)
	if err == nil {
		d.endings.Add(id, ending{ended, now.Add(endedFresh)})
	}
	return ended, err
}

// ending is what is known of whether a session was signed out.
type ending struct {
	ended bool
	until time.Time // how long that no is believed
}

type ctxSession struct{}

// sessionID returns the id of the session with which signedIn has let a request through, or "".
func sessionID(r *http.Request) string {
	id, _ := r.Context().Value(ctxSession{}).(string)
	return id
}

// signedIn is a middleware that lets a request through if it has a valid session. Other requests for a page are redirected to
// the form.
func (d *dashboard) signedIn(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now()
		refused := d.session(r, now)
		if refused == "" {
			c, _ := r.Cookie(cookieName)
			id, _ := sessionOf(c.Value)
			ended, err := d.ended(r.Context(), id, now)
			if err != nil {
				d.fail(w, r, err)
				return
			}
			if !ended {
				next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), ctxSession{}, id)))
				return
			}
			refused = "ended-session"
		}
		reading := r.Method == http.MethodGet || r.Method == http.MethodHead
		if refused != "no-session" || !reading {
			d.refuse(r, refused)
		}
		if reading && !strings.HasPrefix(r.URL.Path, "/admin/jobs/api") {
			http.Redirect(w, r, "/admin/sign-in?to="+url.QueryEscape(r.URL.RequestURI()), http.StatusFound)
			return
		}
		http.Error(w, "sign in at /admin/sign-in", http.StatusUnauthorized)
	})
}

// sameOrigin is a middleware that refuses a change that another site's page sends. Browsers say so in Sec-Fetch-Site or Origin,
// which no page can forge.
func (d *dashboard) sameOrigin(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.refuse(r, "cross-site")
		http.Error(w, "this request was sent by another site's page", http.StatusForbidden)
	}))
	return protection.Handler(next)
}

// boundForms is a middleware that bounds the size of what is read of a request's body.
func boundForms(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		next.ServeHTTP(w, r)
	})
}

func (d *dashboard) signInPage(w http.ResponseWriter, r *http.Request) {
	d.render(w, r, http.StatusOK, &view{template: "sign-in", Title: "Sign in", Data: localPath(r.URL.Query().Get("to"))})
}

// signIn checks the token before any limit, so that nobody can lock an operator out by sending wrong ones.
func (d *dashboard) signIn(w http.ResponseWriter, r *http.Request) {
	to := localPath(r.PostFormValue("to"))
	given, want := sha256.Sum256([]byte(r.PostFormValue("token"))), sha256.Sum256([]byte(d.cfg.Token))
	if subtle.ConstantTimeCompare(given[:], want[:]) != 1 {
		d.refuseToken(w, r, to)
		return
	}
	d.wrongTokens.Remove(d.cfg.Client(r))
	d.setCookie(w, r, cookieName, d.newSession(time.Now()), int(sessionLasts.Seconds()))
	d.log.Info("an operator signed in", "client", d.cfg.Client(r))
	http.Redirect(w, r, to, http.StatusSeeOther) //nolint:gosec // localPath keeps it here
}

// refuseToken answers to a wrong token, with 429 if the client has sent too many.
func (d *dashboard) refuseToken(w http.ResponseWriter, r *http.Request, to string) {
	page := &view{template: "sign-in", Title: "Sign in", Data: to, Problem: "This is not the admin token."}
	client := d.cfg.Client(r)
	if limiterOf(d.wrongTokens, client, rate.Every(wrongEvery), wrongBurst).Allow() {
		d.refuse(r, "wrong-token")
		d.render(w, r, http.StatusUnauthorized, page)
		return
	}
	d.refuse(r, "too-many-attempts")
	w.Header().Set("Retry-After", strconv.Itoa(int(wrongEvery.Seconds())))
	page.Problem = "Too many wrong tokens were sent from your address. The right one works at any time."
	d.render(w, r, http.StatusTooManyRequests, page)
}

// newCache makes a cache of clientsKept entries.
func newCache[V any]() *lru.Cache[string, V] {
	c, err := lru.New[string, V](clientsKept)
	if err != nil { // only for a size that is not positive
		panic(err)
	}
	return c
}

// limiterOf returns the limiter of a key in a set, a new one where there is none yet.
func limiterOf(set *lru.Cache[string, *rate.Limiter], key string, perSecond rate.Limit, burst int) *rate.Limiter {
	made := rate.NewLimiter(perSecond, burst)
	if first, ok, _ := set.PeekOrAdd(key, made); ok {
		set.Get(key) // it was used just now
		return first
	}
	return made
}

// signOut ends the session on all instances: a cookie that was copied is worth nothing afterwards.
func (d *dashboard) signOut(w http.ResponseWriter, r *http.Request) {
	c, err := r.Cookie(cookieName)
	if err != nil {
		d.fail(w, r, err)
		return
	}
	id, expires := sessionOf(c.Value)
	if err := d.store.EndSession(r.Context(), id, expires); err != nil {
		d.fail(w, r, err)
		return
	}
	d.endings.Add(id, ending{ended: true})
	d.setCookie(w, r, cookieName, "", -1)
	http.Redirect(w, r, "/admin/sign-in", http.StatusSeeOther)
}

func (d *dashboard) setCookie(w http.ResponseWriter, r *http.Request, name, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // Secure wherever the request came over TLS
		Name: name, Value: value, Path: "/admin", MaxAge: maxAge,
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: d.cfg.Secure(r),
	})
}

// localPath keeps a redirect within the dashboard.
func localPath(to string) string {
	u, err := url.Parse(to)
	if err == nil && u.Scheme == "" && u.Host == "" && strings.HasPrefix(u.Path, "/admin/") && !strings.HasPrefix(u.Path, "//") {
		return u.RequestURI()
	}
	return "/admin/"
}
