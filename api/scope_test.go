package api

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
	"github.com/memhook/memhook/webhook"
)

func TestMain(m *testing.M) { storetest.Main(m) }

const testToken = "the operator's token of a test"

// bench is a server on a database with one app that has something of everything.
type bench struct {
	*server
	t                             *testing.T
	key                           string
	account, app                  uuid.UUID
	task, endpoint, delivery, evt string // ids
}

func newBench(t *testing.T) *bench {
	t.Helper()
	var ahead atomic.Int64 // how far the store's clock is ahead, so that events appear in the feed at once
	st := storetest.New(t, store.Config{
		Encode: func(store.Event) ([]byte, error) { return []byte(`{}`), nil },
		Now:    func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	s := newServer(Config{
		Store: st, Guard: &webhook.Guard{}, AdminToken: testToken, ExpiresIn: time.Hour,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	setHuma()
	b := &bench{server: s, t: t}
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	account, err := st.CreateAccount(ctx, store.NewAccount{Name: "account", APIKey: "sk-test", RequestsPerSecond: 1})
	check(err)
	app, err := st.CreateApp(ctx, "app", account.ID)
	check(err)
	_, b.key, err = st.CreateKey(ctx, app.ID, "key", nil)
	check(err)
	b.account, b.app = account.ID, app.ID
	reg, err := st.RegisterTask(ctx, store.Registration{
		AppID: app.ID, UpstreamID: "task", UniqueID: "default", CallbackURL: "https://customer.example/",
		Until: store.UntilDownloaded, ExpiresIn: time.Hour,
	})
	check(err)
	b.task, b.endpoint = reg.Task.ID.String(), reg.Task.Subscriptions[0].EndpointID.String()
	_, err = st.RecordPoll(ctx, store.Poll{TaskID: reg.Task.ID, At: time.Now(), Videos: []store.Video{{ID: "PI-1"}}})
	check(err)
	deliveries, err := st.Deliveries(ctx, store.DeliveryFilter{Scope: store.Everything()}, store.Page{Limit: 10})
	if err != nil || len(deliveries) != 1 {
		t.Fatalf("%d deliveries: %v", len(deliveries), err)
	}
	b.delivery, b.evt = deliveries[0].ID.String(), webhook.EventID(deliveries[0].EventID.String())
	ahead.Store(int64(time.Minute))
	return b
}

// served serves what register adds to an empty API.
func (b *bench) served(register func(huma.API)) http.Handler {
	r := chi.NewRouter()
	register(humachi.New(r, openAPI("test")))
	return r
}

// ask sends a request; token is empty for none.
func ask(h http.Handler, method, target, token, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Another app's endpoint is one that does not exist, also where a body names it.
func TestABulkResendToAnotherAppsEndpoint(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	h := b.served(b.operations)
	other, err := b.store.CreateApp(t.Context(), "other", b.account)
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := b.store.CreateKey(t.Context(), other.ID, "key", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key, query string
		status     int
	}{
		"its own": {b.key, "", http.StatusAccepted}, "another's": {key, "", http.StatusNotFound}, "the operator's": {testToken, "", http.StatusAccepted},
		"the operator's for another app": {testToken, "?app_id=" + other.ID.String(), http.StatusNotFound},
	} {
		prefix := "/v1"
		if c.key == testToken {
			prefix = "/admin/v1"
		}
		body := `{"endpoint_id":"` + b.endpoint + `"}`
		w := ask(h, http.MethodPost, prefix+"/deliveries/resend"+c.query, c.key, body, "Content-Type", "application/json")
		if w.Code != c.status || c.status == http.StatusNotFound && !strings.Contains(w.Body.String(), `"field":"endpoint_id"`) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

// A route that is registered without its middleware answers nothing of anybody's: lists are empty, and reads, changes and
// the operator's routes are refused.
func TestRoutesWithoutMiddlewareAnswerNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	bare := b.served(func(api huma.API) {
		for tag, routes := range b.appRoutes() {
			b.register(huma.NewGroup(api, "/v1"), tag, routes)
		}
		b.register(huma.NewGroup(api, "/admin/v1"), "admin", b.adminRoutes())
	})
	whole := b.served(b.operations)
	upload, err := b.store.CreateUpload(t.Context(), store.Upload{AppID: b.app, CallbackURL: "https://customer.example/", Until: store.UntilDownloaded})
	if err != nil {
		t.Fatal(err)
	}
	resend, err := b.store.StartResend(t.Context(), store.ResendFilter{Scope: store.OfApp(b.app), Action: store.ActionResend, Status: store.DeliveryFailed})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.store.Audit(t.Context(), store.AuditEntry{ID: uuid.Must(uuid.NewV7()), Actor: store.ActorKey, AppID: &b.app}); err != nil {
		t.Fatal(err)
	}
	of := strings.NewReplacer("/tasks/{id}", "/tasks/"+b.task, "/endpoints/{id}", "/endpoints/"+b.endpoint,
		"/deliveries/{id}", "/deliveries/"+b.delivery, "/events/{id}", "/events/"+b.evt, "/apps/{id}", "/apps/"+b.app.String(),
		"/accounts/{id}", "/accounts/"+b.account.String(), "{key_id}", b.app.String(), "/resends/{id}", "/resends/"+resend.ID.String(),
		"/uploads/{id}", "/uploads/"+upload.ID.String(), "/search", "/search?q=task")
	try := func(prefix, token string, r route) {
		target := prefix + of.Replace(r.path)
		w := ask(bare, r.method, target, "", "")
		body := w.Body.String()
		if r.method != http.MethodGet { // a body of nothing is refused by the schema or by the scope, never taken
			if w.Code < 400 {
				t.Errorf("%s %s: %d %s", r.method, target, w.Code, body)
			}
			return
		}
		if w.Code == http.StatusOK && strings.Contains(target, "/search") {
			if body != `{"tasks":[],"deliveries":[],"endpoints":[],"uploads":[]}`+"\n" {
				t.Errorf("GET %s: %s", target, body)
			}
		} else if w.Code == http.StatusOK {
			var list struct{ Data []any }
			if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || list.Data == nil || len(list.Data) != 0 {
				t.Errorf("GET %s: %s", target, body)
			}
		}
		// The same request with its middleware answers something, so the test can fail.
		if with := ask(whole, r.method, target, token, ""); with.Code != http.StatusOK || with.Body.Len() <= len(`{"data":[],"next_cursor":null}`)+1 {
			if !strings.HasSuffix(target, "/hint-url") && !strings.HasSuffix(target, "/public-key") { // nothing of these here
				t.Errorf("GET %s with its middleware: %d %s", target, with.Code, with.Body)
			}
		}
	}
	for _, routes := range b.appRoutes() {
		for _, r := range routes {
			try("/v1", b.key, r)
		}
	}
	for _, r := range b.adminRoutes() {
		try("/admin/v1", testToken, r)
	}
	if task, err := b.store.Task(t.Context(), store.Everything(), uuid.MustParse(b.task)); err != nil || task.Status != store.TaskReady {
		t.Errorf("the task was changed: %v %+v", err, task)
	}
}
