package dashboard

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestSessionsExpire(t *testing.T) {
	t.Parallel()
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "refused_total", Help: "Refused."}, []string{"reason"})
	d := &dashboard{cfg: Config{Token: "a token of sixteen characters", Refused: refused, Client: func(*http.Request) string { return "" }}, log: slog.New(slog.NewTextHandler(t.Output(), nil))}
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
		{"one of another token", (&dashboard{cfg: Config{Token: "another token of the operator"}}).newSession(now), "forged-session"},
	} {
		if got := d.session(request(c.session), now); got != c.want {
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
