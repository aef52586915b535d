package dashboard

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/memhook/memhook/internal/recent"
)

func TestSessionsExpire(t *testing.T) {
	t.Parallel()
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "refused_total", Help: "Refused."}, []string{"reason"})
	d := &dashboard{site: site{
		cfg: Config{Token: "a token of sixteen characters", Refused: refused, Client: func(*http.Request) string { return "" }}, log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
	now := time.Now()
	request := func(session string) *http.Request {
		r := httptest.NewRequest(http.MethodPost, "/admin/deliveries/pause", nil)
		r.AddCookie(&http.Cookie{Name: cookieName, Value: session})
		return r
	}
	for _, c := range []struct {
		name, session, want string
	}{
		{"a new one", d.newSession(now), ""},
		{"one of half a day ago", d.newSession(now.Add(-sessionLasts - time.Second)), "expired-session"},
		{"one of another token", (&dashboard{site: site{cfg: Config{Token: "another token of the operator"}}}).newSession(now), "forged-session"},
	} {
		if _, got := d.session(request(c.session), now); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	w := httptest.NewRecorder()
	d.signedIn(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was let through") })).ServeHTTP(w, request(d.newSession(now.Add(-24*time.Hour))))
	if w.Code != http.StatusUnauthorized || testutil.ToFloat64(refused.WithLabelValues("expired-session")) != 1 {
		t.Errorf("an expired session: %d", w.Code)
	}
}

func TestRedirectsStayHere(t *testing.T) {
	t.Parallel()
	for to, want := range map[string]string{
		"/admin/tasks?status=ready": "/admin/tasks?status=ready", "": "/admin/", "https://evil.example/admin/": "/admin/", "//evil.example/admin/": "/admin/", "/v1/tasks": "/admin/", "javascript:alert(1)": "/admin/",
	} {
		if got := localPath(to); got != want {
			t.Errorf("%q leads to %q, want %q", to, got, want)
		}
	}
}

// However many wrong tokens a client has sent, the right one opens the dashboard; wrong ones are limited by client.
func TestWrongTokensNeverLockOutTheRightOne(t *testing.T) {
	t.Parallel()
	const token = "a token of sixteen characters"
	pages, err := parsePages("pages/admin")
	if err != nil {
		t.Fatal(err)
	}
	d := &dashboard{
		site: site{
			cfg: Config{
				Token: token, Refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "refused_total", Help: "Refused."}, []string{"reason"}),
				Client: func(r *http.Request) string { return r.RemoteAddr }, Secure: func(*http.Request) bool { return true },
			},
			log: slog.New(slog.NewTextHandler(t.Output(), nil)), pages: pages,
		},
		wrongTokens: recent.NewLimiters[string](),
	}
	send := func(client, given string) int {
		r := httptest.NewRequest(http.MethodPost, "/admin/sign-in", strings.NewReader(url.Values{"token": {given}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.RemoteAddr = client
		w := httptest.NewRecorder()
		d.signIn(w, r)
		if opened := len(w.Result().Cookies()) > 0; opened != (given == token) {
			t.Errorf("%q from %s: %d, a session: %v", given, client, w.Code, opened)
		}
		return w.Code
	}
	for i := range wrongBurst + 5 {
		want := http.StatusUnauthorized
		if i >= wrongBurst {
			want = http.StatusTooManyRequests
		}
		if got := send("1.2.3.4", "wrong"); got != want {
			t.Errorf("wrong token %d: %d, want %d", i+1, got, want)
		}
	}
	if got := send("5.6.7.8", "wrong"); got != http.StatusUnauthorized {
		t.Errorf("another client: %d", got)
	}
	if got := send("1.2.3.4", token); got != http.StatusSeeOther {
		t.Errorf("the right token: %d", got)
	}
	for i := range 2 * recent.Kept {
		send(strconv.Itoa(i), "wrong")
		if i%1000 == 0 {
			send("9.9.9.9", "wrong")
		}
	}
	for range wrongBurst {
		send("9.9.9.9", "wrong")
	}
	if got := send("9.9.9.9", "wrong"); got != http.StatusTooManyRequests || d.wrongTokens.Len() != recent.Kept {
		t.Errorf("a client beside many others: %d; %d are kept", got, d.wrongTokens.Len())
	}
}
