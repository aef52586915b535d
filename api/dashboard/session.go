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
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	cookieName   = "memhook_session"
	sessionLasts = 12 * time.Hour
	// What one client may try: so many tokens at once, and then one in so long.
	attemptBurst = 10
	attemptEvery = 6 * time.Second
	clientsKept  = 10_000
)

// A session is a cookie that only the admin token can make: "expiry.nonce.mac". So it holds on every instance
// and after every restart, and a new token ends all sessions. Its CSRF token is another MAC of it.
func (d *dashboard) mac(purpose, text string) string {
	key := sha256.Sum256([]byte("memhook dashboard " + purpose + "\x00" + d.cfg.Token))
	h := hmac.New(sha256.New, key[:])
	h.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

func (d *dashboard) newSession(now time.Time) string {
	nonce := make([]byte, 18)
	_, _ = rand.Read(nonce) // never fails: it ends the program instead
	text := strconv.FormatInt(now.Add(sessionLasts).Unix(), 10) + "." + base64.RawURLEncoding.EncodeToString(nonce)
	return text + "." + d.mac("session", text)
}

// session tells why a request has none, or "".
func (d *dashboard) session(r *http.Request, now time.Time) (value, refused string) {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return "", "no-session"
	}
	i := strings.LastIndexByte(c.Value, '.')
	if i < 0 || subtle.ConstantTimeCompare([]byte(c.Value[i+1:]), []byte(d.mac("session", c.Value[:i]))) != 1 {
		return "", "forged-session"
	}
	expiry, _, _ := strings.Cut(c.Value, ".")
	if at, err := strconv.ParseInt(expiry, 10, 64); err != nil || now.Unix() >= at {
		return "", "expired-session"
	}
	return c.Value, ""
}

type ctxKey struct{}

// csrfOf gives the token that the page's forms must send.
func csrfOf(r *http.Request) string {
	token, _ := r.Context().Value(ctxKey{}).(string)
	return token
}

// signedIn lets only those through who have signed in; pages lead others to the form.
func (d *dashboard) signedIn(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, refused := d.session(r, time.Now())
		if refused == "" {
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), ctxKey{}, d.mac("csrf", value))))
			return
		}
		if refused != "no-session" || r.Method != http.MethodGet {
			d.refuse(r, refused)
		}
		if r.Method == http.MethodGet && !strings.HasPrefix(r.URL.Path, "/admin/jobs/api") {
			http.Redirect(w, r, "/admin/sign-in?to="+url.QueryEscape(r.URL.RequestURI()), http.StatusFound)
			return
		}
		http.Error(w, "sign in at /admin/sign-in", http.StatusUnauthorized)
	})
}

// sameOrigin refuses what another site's page sends.
func (d *dashboard) sameOrigin(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.refuse(r, "cross-site")
		http.Error(w, "this was sent by another site", http.StatusForbidden)
	}))
	return protection.Handler(next)
}

// csrf lets only forms of this session's pages through.
func (d *dashboard) csrf(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			next.ServeHTTP(w, r)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		if subtle.ConstantTimeCompare([]byte(r.PostFormValue("csrf")), []byte(csrfOf(r))) != 1 {
			d.refuse(r, "forged-form")
			http.Error(w, "the form is not of this session: load the page again", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// refuse counts and logs.
func (d *dashboard) refuse(r *http.Request, reason string) {
	d.cfg.Refused.WithLabelValues(reason).Inc()
	d.log.Warn("refused at the dashboard", "reason", reason, "method", r.Method, "path", r.URL.Path, "client", d.cfg.Client(r))
}

func (d *dashboard) signInPage(w http.ResponseWriter, r *http.Request) {
	d.render(w, r, http.StatusOK, &view{template: "sign-in", Title: "Sign in", Data: localPath(r.URL.Query().Get("to"))})
}

func (d *dashboard) signIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	to := localPath(r.PostFormValue("to"))
	page := &view{template: "sign-in", Title: "Sign in", Data: to}
	if wait := d.attempts.take(d.cfg.Client(r), time.Now()); wait > 0 {
		d.refuse(r, "too-many-attempts")
		w.Header().Set("Retry-After", strconv.Itoa(int(wait.Seconds())+1))
		page.Problem = "Too many attempts: wait a little."
		d.render(w, r, http.StatusTooManyRequests, page)
		return
	}
	given, want := sha256.Sum256([]byte(r.PostFormValue("token"))), sha256.Sum256([]byte(d.cfg.Token))
	if subtle.ConstantTimeCompare(given[:], want[:]) != 1 {
		d.refuse(r, "wrong-token")
		page.Problem = "This is not the admin token."
		d.render(w, r, http.StatusUnauthorized, page)
		return
	}
	d.attempts.forgive(d.cfg.Client(r))
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // Secure wherever the request came over TLS
		Name: cookieName, Value: d.newSession(time.Now()), Path: "/admin", HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: d.cfg.Secure(r), MaxAge: int(sessionLasts.Seconds()),
	})
	d.log.Info("an operator has signed in", "client", d.cfg.Client(r))
	http.Redirect(w, r, to, http.StatusSeeOther) //nolint:gosec // localPath keeps it here
}

func (d *dashboard) signOut(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{Name: cookieName, Path: "/admin", HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: d.cfg.Secure(r), MaxAge: -1}) //nolint:gosec // as above
	http.Redirect(w, r, "/admin/sign-in", http.StatusSeeOther)
}

// localPath keeps a redirect within the dashboard.
func localPath(to string) string {
	if u, err := url.Parse(to); err == nil && u.Scheme == "" && u.Host == "" && strings.HasPrefix(u.Path, "/admin/") && !strings.HasPrefix(u.Path, "//") {
		return u.RequestURI()
	}
	return "/admin/"
}

// attempts bounds what each client may try.
type attempts struct {
	mu       sync.Mutex
	byClient map[string]*rate.Limiter
}

func newAttempts() *attempts { return &attempts{byClient: make(map[string]*rate.Limiter)} }

// take takes an attempt, or tells how long to wait for the next.
func (a *attempts) take(client string, now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.byClient) >= clientsKept {
		clear(a.byClient)
	}
	l := a.byClient[client]
	if l == nil {
		l = rate.NewLimiter(rate.Every(attemptEvery), attemptBurst)
		a.byClient[client] = l
	}
	if l.AllowN(now, 1) {
		return 0
	}
	return attemptEvery
}

func (a *attempts) forgive(client string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.byClient, client)
}
