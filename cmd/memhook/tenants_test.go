package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store/storetest"
	"github.com/memhook/memhook/webhook"
)

// endpointJSON is an endpoint as the API answers it.
type endpointJSON struct {
	ID          string
	URL         string
	Description string
	EventTypes  []string `json:"event_types"`
	Headers     map[string]string
	RateLimit   *float64 `json:"rate_limit"`
	Signatures  []string
	Breaker     string
	Enabled     bool
}

// want makes a call whose status must be the given one.
func (in *instance) want(status int, token, method, path string, body, out any) {
	in.t.Helper()
	if got := in.callWith(token, method, path, body, out); got != status {
		in.t.Fatalf("%s %s: %d, want %d", method, path, got, status)
	}
}

// endpointsOf lists the endpoints of a key's app.
func (in *instance) endpointsOf(key string) (byURL map[string]endpointJSON) {
	in.t.Helper()
	var list struct{ Data []endpointJSON }
	in.want(http.StatusOK, key, http.MethodGet, "/v1/endpoints?limit=500", nil, &list)
	byURL = make(map[string]endpointJSON)
	for _, ep := range list.Data {
		byURL[ep.URL] = ep
	}
	return byURL
}

// places is a receiver that keeps which of its URLs were called, with the last webhook at each.
type places struct {
	*httptest.Server

	mu     sync.Mutex
	got    map[string]received
	answer int
}

func newPlaces(t *testing.T) *places {
	t.Helper()
	p := &places{got: make(map[string]received), answer: http.StatusNoContent}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := received{at: time.Now(), header: r.Header}
		got.body, _ = io.ReadAll(r.Body)
		_ = json.Unmarshal(got.body, &got.event)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.got[r.URL.RequestURI()] = got
		w.WriteHeader(p.answer)
	}))
	t.Cleanup(func() { p.CloseClientConnections(); p.Close() })
	return p
}

func (p *places) answers(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = status
}

// await waits for a webhook at a path and forgets it.
func (p *places) await(t *testing.T, path string) (got received) {
	t.Helper()
	until(t, 20*time.Second, "a webhook has come to "+path, func() (ok bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		got, ok = p.got[path]
		delete(p.got, path)
		return ok
	})
	return got
}

// Callback URLs that differ in their query are one endpoint, and so are those below an endpoint that ends in /*, of which
// the longest counts.
func TestEndpointsHoldTheirCallbackURLs(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	at := newPlaces(t)
	in := b.start("")
	secret := func(url string) string {
		t.Helper()
		ep, ok := in.endpointsOf(testAPIKey)[url]
		if !ok {
			t.Fatalf("no endpoint %s among %v", url, in.endpointsOf(testAPIKey))
		}
		var out struct{ Secret string }
		in.want(http.StatusOK, testAPIKey, http.MethodGet, "/v1/endpoints/"+ep.ID+"/secret", nil, &out)
		return out.Secret
	}
	n := 0
	sent := func(path, endpoint string) {
		t.Helper()
		n++
		in.registerAt(fmt.Sprint("task-", n), at.URL+path)
		got := at.await(t, path)
		if err := webhook.Verify(got.body, got.header, secret(at.URL+endpoint)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	for i := range 5 {
		sent(fmt.Sprintf("/hook?task=%d", i), "/hook")
	}
	if list := in.endpointsOf(testAPIKey); len(list) != 1 {
		t.Fatalf("%d endpoints of one path", len(list))
	}
	create := func(path string) (ep endpointJSON) {
		t.Helper()
		in.want(http.StatusCreated, testAPIKey, http.MethodPost, "/v1/endpoints", map[string]any{"url": at.URL + path}, &ep)
		return ep
	}
	create("/deep/*")
	create("/deep/er/*")
	create("/deep/er/exact")
	sent("/deep/1?a=b", "/deep/*")
	sent("/deep/er/1/2/3", "/deep/er/*")
	sent("/deep/er/exact?x", "/deep/er/exact")
	sent("/deeper", "/deeper")
	if list := in.endpointsOf(testAPIKey); len(list) != 5 {
		t.Errorf("%d endpoints, want 5: %v", len(list), list)
	}
}

// An endpoint that ends in /* is one for all that is below it: it takes over what registrations have made, has one secret
// and one breaker, and takes its subscriptions with it when it moves.
func TestAWildcardEndpoint(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	at := newPlaces(t)
	in := b.start("")
	waiting := func(id, path string) {
		t.Helper()
		b.sim.Add(memoriestest.Task{TaskID: id})
		in.want(http.StatusCreated, testAPIKey, http.MethodPost, "/v1/tasks", map[string]any{"task_id": id, "callback_url": at.URL + path}, nil)
	}
	ready := func(id string) { b.sim.Add(readyAfter(id, 0, "PI-"+id)) }
	for i := range 5 {
		waiting(fmt.Sprint("before-", i), fmt.Sprintf("/in/%d?x=%d", i, i))
	}
	waiting("outside", "/into?x")
	var ep endpointJSON
	in.want(http.StatusConflict, testAPIKey, http.MethodPost, "/v1/endpoints", map[string]any{"url": at.URL + "/in/0"}, nil)
	byHand := in.endpointsOf(testAPIKey)[at.URL+"/in/0"].ID
	in.want(http.StatusOK, testAPIKey, http.MethodPatch, "/v1/endpoints/"+byHand, map[string]any{"description": "changed by hand"}, nil)
	in.want(http.StatusCreated, testAPIKey, http.MethodPost, "/v1/endpoints", map[string]any{"url": at.URL + "/in/*"}, &ep)
	if list := in.endpointsOf(testAPIKey); len(list) != 3 {
		t.Errorf("%d endpoints, want the new one, the one changed by hand and the one outside: %v", len(list), list)
	}
	var out struct{ Secret string }
	in.want(http.StatusOK, testAPIKey, http.MethodGet, "/v1/endpoints/"+ep.ID+"/secret", nil, &out)
	verified := func(path string) {
		t.Helper()
		got := at.await(t, path)
		if err := webhook.Verify(got.body, got.header, out.Secret); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	for i := 1; i < 5; i++ {
		ready(fmt.Sprint("before-", i))
		verified(fmt.Sprintf("/in/%d?x=%d", i, i))
	}
	in.want(http.StatusAccepted, testAPIKey, http.MethodPost, "/v1/endpoints/"+ep.ID+"/test", nil, nil)
	verified("/in/")

	// It moves with what waits.
	waiting("moves", "/in/m?q=1")
	in.want(http.StatusOK, testAPIKey, http.MethodPatch, "/v1/endpoints/"+ep.ID, map[string]any{"url": at.URL + "/out/*"}, nil)
	time.Sleep(1200 * time.Millisecond) // settings take effect within a second
	ready("moves")
	verified("/out/m?q=1")
	in.want(http.StatusConflict, testAPIKey, http.MethodPatch, "/v1/endpoints/"+ep.ID, map[string]any{"url": at.URL + "/out"}, nil)

	// Failures at any of its URLs open its breaker.
	at.answers(http.StatusInternalServerError)
	for i := range 12 {
		in.registerAt(fmt.Sprint("fails-", i), fmt.Sprintf("%s/out/%d", at.URL, i))
	}
	until(t, 20*time.Second, "its breaker is open", func() bool {
		in.want(http.StatusOK, testAPIKey, http.MethodGet, "/v1/endpoints/"+ep.ID, nil, &ep)
		return ep.Breaker != "closed"
	})
	in.want(http.StatusNoContent, testAPIKey, http.MethodDelete, "/v1/endpoints/"+ep.ID, nil, nil)
	if n := b.query(`select count(*) from deliveries where endpoint_id = $1 and status = 'pending'`, ep.ID); n != 0 {
		t.Errorf("%d deliveries are pending after the deletion", n)
	}
	at.answers(http.StatusNoContent)
	in.registerAt("anew", at.URL+"/out/anew")
	at.await(t, "/out/anew")
	if _, ok := in.endpointsOf(testAPIKey)[at.URL+"/out/anew"]; !ok {
		t.Error("after the deletion, a callback URL below it has no endpoint of its own")
	}
}

// A customer who verifies by the endpoint's public key accepts no webhook of another customer.
func TestPublicKeysAreTheEndpoints(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	at := newPlaces(t)
	in := b.start("")
	keys := make(map[string]string)
	for _, name := range []string{"a", "b"} {
		var ep endpointJSON
		in.want(http.StatusCreated, testAPIKey, http.MethodPost, "/v1/endpoints",
			map[string]any{"url": at.URL + "/" + name, "signatures": []string{"v1", "v1a"}}, &ep)
		var out struct {
			PublicKey string `json:"public_key"`
		}
		in.want(http.StatusOK, testAPIKey, http.MethodGet, "/v1/endpoints/"+ep.ID+"/public-key", nil, &out)
		keys[name] = out.PublicKey
		in.registerAt("task-"+name, at.URL+"/"+name)
	}
	a, other := at.await(t, "/a"), at.await(t, "/b")
	if webhook.Verify(a.body, a.header, keys["a"]) != nil || webhook.Verify(other.body, other.header, keys["b"]) != nil {
		t.Error("webhooks do not verify with their endpoint's key")
	}
	if webhook.Verify(a.body, a.header, keys["b"]) == nil || webhook.Verify(other.body, other.header, keys["a"]) == nil {
		t.Error("a webhook verifies with another endpoint's key")
	}
	in.want(http.StatusNotFound, testAPIKey, http.MethodGet, "/v1/public-key", nil, nil)
	in.registerAt("plain", at.URL+"/plain")
	if got := at.await(t, "/plain"); strings.Contains(got.header.Get(webhook.HeaderSignature), "v1a,") {
		t.Error("v1a where nobody asked for it")
	}
}

// One key of memories.ai is one budget: a second account cannot have it, neither from the start nor later.
func TestOneKeyIsOneBudget(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in := b.start("")
	account := func(status int, name, key string) (out struct{ ID string }) {
		in.want(status, testAdminToken, http.MethodPost, "/admin/v1/accounts", map[string]any{"name": name, "api_key": key}, &out)
		return out
	}
	account(http.StatusConflict, "second", b.env["MEMORIES_API_KEY"])
	other := account(http.StatusCreated, "second", "sk-mavi-other")
	in.want(http.StatusConflict, testAdminToken, http.MethodPatch, "/admin/v1/accounts/"+other.ID, map[string]any{"api_key": b.env["MEMORIES_API_KEY"]}, nil)
	in.want(http.StatusOK, testAdminToken, http.MethodPatch, "/admin/v1/accounts/"+other.ID, map[string]any{"api_key": "sk-mavi-other"}, nil)
}

// What GET answers can be sent back with PATCH and changes nothing; null clears.
func TestPatchingAnEndpointBack(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	at := newPlaces(t)
	in := b.start("")
	var ep, after endpointJSON
	in.want(http.StatusCreated, testAPIKey, http.MethodPost, "/v1/endpoints", map[string]any{
		"url": at.URL + "/h", "headers": map[string]string{"X-Gateway": "pass", "X-Other": "word"}, "rate_limit": 50, "description": "d",
		"event_types": []string{"task.ready", "webhook.test"}, "signatures": []string{"v1", "v1a"},
	}, &ep)
	path := "/v1/endpoints/" + ep.ID
	patch := func(body any) {
		t.Helper()
		in.want(http.StatusOK, testAPIKey, http.MethodPatch, path, body, &after)
	}
	patch(map[string]any{"url": ep.URL, "headers": ep.Headers, "rate_limit": ep.RateLimit, "description": ep.Description,
		"event_types": ep.EventTypes, "signatures": ep.Signatures, "enabled": ep.Enabled})
	if fmt.Sprint(after.URL, after.Headers, *after.RateLimit, after.Description, after.EventTypes, after.Signatures, after.Enabled) !=
		fmt.Sprint(ep.URL, ep.Headers, *ep.RateLimit, ep.Description, ep.EventTypes, ep.Signatures, ep.Enabled) {
		t.Errorf("patched back: %+v, was %+v", after, ep)
	}
	in.registerAt("one", at.URL+"/h")
	if got := at.await(t, "/h").header; got.Get("X-Gateway") != "pass" || got.Get("X-Other") != "word" {
		t.Errorf("headers after it was patched back: %q, %q", got.Get("X-Gateway"), got.Get("X-Other"))
	}
	var refused struct{ Detail string }
	unknown := map[string]any{"headers": map[string]string{"X-Gateway": "***", "X-New": "***"}}
	in.want(http.StatusUnprocessableEntity, testAPIKey, http.MethodPatch, path, unknown, &refused)
	if !strings.Contains(refused.Detail, "X-New") {
		t.Errorf("the value of a header that is not there is kept: %q", refused.Detail)
	}
	// The case of a name does not matter.
	patch(map[string]any{"headers": map[string]string{"x-gateway": "***", "X-Third": "3"}})
	time.Sleep(1200 * time.Millisecond) // settings take effect within a second
	in.registerAt("two", at.URL+"/h")
	got := at.await(t, "/h").header
	if got.Get("X-Gateway") != "pass" || got.Get("X-Third") != "3" || got.Get("X-Other") != "" {
		t.Errorf("headers of which some were kept: %v", got)
	}
	after = endpointJSON{}
	patch(`{"headers":null,"rate_limit":null,"description":null,"event_types":null,"signatures":null}`)
	if len(after.Headers) != 0 || after.RateLimit != nil || after.Description != "" || after.EventTypes != nil || !slices.Equal(after.Signatures, []string{"v1"}) {
		t.Errorf("cleared: %+v", after)
	}
}

// Every number has bounds, within which what it bounds works.
func TestNumbersHaveBounds(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in := b.start("")
	app, _, _ := in.newApp("second")
	for _, c := range []struct {
		token, method, path, body string
		field                     string
	}{
		{testAPIKey, http.MethodPost, "/v1/endpoints", `{"url":"http://127.0.0.1:1/%d","rate_limit":%s}`, "rate_limit"},
		{testAdminToken, http.MethodPost, "/admin/v1/accounts", `{"name":"n%d","api_key":"sk-mavi-n%[1]d","requests_per_second":%[2]s}`, "requests_per_second"},
		{testAdminToken, http.MethodPost, "/admin/v1/apps/" + app + "/keys", `{"name":"n%d","rate_limit":%s}`, "rate_limit"},
	} {
		for i, value := range []string{"1e-300", "0.001", "-1", "1e300", "1e7"} {
			var p problemJSON
			if status := in.callWith(c.token, c.method, c.path, fmt.Sprintf(c.body, i, value), &p); status != http.StatusUnprocessableEntity {
				t.Errorf("%s with %s %s: %d", c.path, c.field, value, status)
			}
		}
		var made struct{ ID string }
		if status := in.callWith(c.token, c.method, c.path, fmt.Sprintf(c.body, 99, "0.01"), &made); status != http.StatusCreated {
			t.Errorf("%s with %s 0.01: %d", c.path, c.field, status)
		}
		if strings.HasSuffix(c.path, "/keys") {
			continue // they are not changed
		}
		for _, value := range []string{"1e-300", "0.001", "-1", "1e300", "1e7"} {
			body := fmt.Sprintf(`{%q:%s}`, c.field, value)
			if status := in.callWith(c.token, http.MethodPatch, c.path+"/"+made.ID, body, nil); status != http.StatusUnprocessableEntity {
				t.Errorf("PATCH %s with %s: %d", c.path, body, status)
			}
		}
	}
}

// Secrets that an answer gave are given back under its Idempotency-Key, and are sealed in the database.
func TestAnswersUnderIdempotencyKeysAreSealed(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in := b.start("")
	app, key, _ := in.newApp("second")
	var ep endpointJSON
	in.want(http.StatusCreated, key, http.MethodPost, "/v1/endpoints", map[string]any{"url": b.receiver.URL}, &ep)
	post := func(token, path string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, in.url+path, strings.NewReader(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{"Authorization": "Bearer " + token, "Content-Type": "application/json", "Idempotency-Key": "same"} {
			req.Header.Set(name, value)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		raw, _ := io.ReadAll(resp.Body)
		if resp.StatusCode >= 300 {
			t.Fatalf("%s: %d %s", path, resp.StatusCode, raw)
		}
		return string(raw)
	}
	rotate := "/v1/endpoints/" + ep.ID + "/secret/rotate"
	first := post(key, rotate)
	if again := post(key, rotate); again != first {
		t.Errorf("%s, then %s", first, again)
	}
	made := post(testAdminToken, "/admin/v1/apps/"+app+"/keys")
	var secret struct{ Secret, Key string }
	for _, raw := range []string{first, made} {
		if err := json.Unmarshal([]byte(raw), &secret); err != nil {
			t.Fatal(err)
		}
	}
	dump := b.dump()
	if !strings.Contains(dump, "idempotency_keys") || secret.Secret == "" || secret.Key == "" {
		t.Fatalf("the dump or the answers are not what they should be: %s %s", first, made)
	}
	for _, value := range []string{secret.Secret, secret.Key} {
		for _, form := range forms(value) {
			if strings.Contains(dump, form) {
				t.Error("an answer's secret stands in the database")
			}
		}
	}
	if n := b.query(`select count(*) from idempotency_keys where response is not null`); n < 1 {
		t.Error("no answer is kept")
	}
	// With another encryption key in charge, the answer is still given.
	newKey := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("n"), 32))
	in.terminate(20 * time.Second)
	rotation := exec.Command(binary, "rotate-keys")
	rotation.Env = append(os.Environ(), "DATABASE_URL="+b.database, "MEMHOOK_ENCRYPTION_KEY="+newKey+","+storetest.EncryptionKey)
	if out, err := rotation.CombinedOutput(); err != nil {
		t.Fatalf("rotate-keys: %v: %s", err, out)
	}
	b.env["MEMHOOK_ENCRYPTION_KEY"] = newKey
	in = b.start("")
	if again := post(key, rotate); again != first {
		t.Errorf("after the rotation of the encryption key: %s, then %s", first, again)
	}
}

// A task that an app registers once it has moved is the new account's, whatever the API remembers of its key; then the old
// account can be deleted, and not before. A deleted app registers nothing.
func TestAnAppThatMovesLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	in := b.start("")
	app, key, _ := in.newApp("moves")
	var old, account struct{ ID string }
	in.want(http.StatusCreated, testAdminToken, http.MethodPost, "/admin/v1/accounts", map[string]any{"name": "old", "api_key": "sk-mavi-old"}, &old)
	in.want(http.StatusCreated, testAdminToken, http.MethodPost, "/admin/v1/accounts",
		map[string]any{"name": "new", "api_key": "sk-mavi-new", "requests_per_second": 100}, &account)
	move := func(to string) {
		t.Helper()
		in.want(http.StatusOK, testAdminToken, http.MethodPatch, "/admin/v1/apps/"+app, map[string]any{"account_id": to}, nil)
	}
	register := func(id string) int {
		b.sim.Add(readyAfter(id, 0, "PI-"+id))
		return in.callWith(key, http.MethodPost, "/v1/tasks", map[string]any{"task_id": id, "callback_url": b.receiver.URL}, nil)
	}
	move(old.ID)
	b.sim.Add(memoriestest.Task{TaskID: "waits"})
	in.want(http.StatusCreated, key, http.MethodPost, "/v1/tasks", map[string]any{"task_id": "waits", "callback_url": b.receiver.URL}, nil)
	in.want(http.StatusConflict, testAdminToken, http.MethodDelete, "/admin/v1/accounts/"+old.ID, nil, nil)
	move(account.ID)
	if status := register("at once"); status != http.StatusCreated {
		t.Fatalf("register: %d", status)
	}
	in.want(http.StatusNoContent, testAdminToken, http.MethodDelete, "/admin/v1/accounts/"+old.ID, nil, nil)
	b.sim.Add(readyAfter("waits", 0, "PI-waits"))
	got := b.receiver.await(t, 2, 20*time.Second)
	if names := []string{got[0].task.TaskID, got[1].task.TaskID}; !slices.Contains(names, "waits") || !slices.Contains(names, "at once") {
		t.Errorf("webhooks of %v", names)
	}
	in.want(http.StatusNoContent, testAdminToken, http.MethodDelete, "/admin/v1/apps/"+app, nil, nil)
	if status := register("too late"); status != http.StatusUnauthorized && status != http.StatusNotFound {
		t.Errorf("register for a deleted app: %d", status)
	}
	if n := b.query(`select count(*) from tasks where app_id = $1 and polling`, app); n != 0 {
		t.Errorf("%d tasks of a deleted app are polled", n)
	}
}
