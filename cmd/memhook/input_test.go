package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
)

type problemJSON struct {
	Status    int
	Code      string
	Detail    string
	RequestID string `json:"request_id"`
	Errors    []struct{ Field, Message string }
}

func TestBadInputIsNamedAndStoresNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in := b.start("")
	ok := `"callback_url":"http://127.0.0.1:1/"`
	cases := []struct {
		name, body string
		status     int
		code       string
		field      string
	}{
		{"broken JSON", `{"task_id":`, 400, "bad-request", ""},
		{"nothing", ``, 400, "bad-request", ""},
		{"not an object", `[]`, 422, "invalid-request", "body"},
		{"an unknown field", `{"task_id":"a",` + ok + `,"colour":"red"}`, 422, "invalid-request", "colour"},
		{"a wrong type", `{"task_id":7,` + ok + `}`, 422, "invalid-request", "task_id"},
		{"no task id", `{` + ok + `}`, 422, "invalid-request", "task_id"},
		{"an empty task id", `{"task_id":"",` + ok + `}`, 422, "invalid-request", "task_id"},
		{"a long task id", `{"task_id":"` + strings.Repeat("a", 257) + `",` + ok + `}`, 422, "invalid-request", "task_id"},
		{"a task id with a line end", `{"task_id":"a\nb",` + ok + `}`, 422, "invalid-request", "task_id"},
		{"no callback", `{"task_id":"a"}`, 422, "invalid-request", "callback_url"},
		{"a relative callback", `{"task_id":"a","callback_url":"/hooks"}`, 422, "invalid-request", "callback_url"},
		{"ftp", `{"task_id":"a","callback_url":"ftp://example.com/"}`, 422, "invalid-request", "callback_url"},
		{"userinfo", `{"task_id":"a","callback_url":"https://u:p@example.com/"}`, 422, "invalid-request", "callback_url"},
		{"a fragment", `{"task_id":"a","callback_url":"https://example.com/#x"}`, 422, "invalid-request", "callback_url"},
		{"a long callback", `{"task_id":"a","callback_url":"https://example.com/` + strings.Repeat("a", 2048) + `"}`, 422, "invalid-request", "callback_url"},
		{"a callback inside", `{"task_id":"a","callback_url":"http://10.0.0.1/"}`, 422, "invalid-request", "callback_url"},
		{"metadata that is not flat", `{"task_id":"a",` + ok + `,"metadata":{"a":{"b":"c"}}}`, 422, "invalid-request", "metadata.a"},
		{"no expected videos", `{"task_id":"a",` + ok + `,"expected_videos":0}`, 422, "invalid-request", "expected_videos"},
		{"an unknown until", `{"task_id":"a",` + ok + `,"until":"tomorrow"}`, 422, "invalid-request", "until"},
		{"a bad duration", `{"task_id":"a",` + ok + `,"expires_in":"soon"}`, 422, "invalid-request", "expires_in"},
		{"a negative duration", `{"task_id":"a",` + ok + `,"expires_in":"-1h"}`, 422, "invalid-request", "expires_in"},
		{"too large", `{"task_id":"` + strings.Repeat("a", 1<<20) + `"}`, 413, "body-too-large", ""},
	}
	for _, c := range cases {
		var p problemJSON
		status := in.call(http.MethodPost, "/v1/tasks", c.body, &p)
		named := c.field == ""
		for _, e := range p.Errors {
			named = named || e.Field == c.field
		}
		if status != c.status || p.Status != c.status || p.Code != c.code || !named || p.RequestID == "" || p.Detail == "" {
			t.Errorf("%s: %d %+v", c.name, status, p)
		}
	}
	if n := b.query("select (select count(*) from tasks) + (select count(*) from endpoints) + (select count(*) from river_job)"); n != 0 {
		t.Errorf("%d rows were stored", n)
	}
}

func TestKeysAndTokens(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in := b.start("")
	for _, path := range []string{"/v1/tasks", "/v1/deliveries", "/admin/v1/stats"} {
		for _, token := range []string{"", "wrong-token-0123456789"} {
			var p problemJSON
			if status := in.callWith(token, http.MethodGet, path, nil, &p); status != http.StatusUnauthorized || p.Code != "unauthorized" {
				t.Errorf("%s with %q: %d %+v", path, token, status, p)
			}
		}
	}
	req, _ := http.NewRequest(http.MethodGet, in.url+"/v1/tasks", nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.Header.Get("WWW-Authenticate") == "" || resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("header %v", resp.Header)
	}
	if status := in.callWith(testAdminToken, http.MethodGet, "/v1/tasks", nil, nil); status != http.StatusUnauthorized {
		t.Errorf("the admin token as an API key: %d", status)
	}
	if status := in.callWith(testAPIKey, http.MethodGet, "/admin/v1/stats", nil, nil); status != http.StatusUnauthorized {
		t.Errorf("an API key as the admin token: %d", status)
	}

	// A second tenant, made by the operator, sees nothing of the first.
	var account, app, key struct{ ID, Key string }
	if status := in.admin(http.MethodPost, "/admin/v1/accounts", map[string]any{"name": "second", "api_key": "sk-mavi-2"}, &account); status != http.StatusCreated {
		t.Fatalf("account: %d", status)
	}
	if status := in.admin(http.MethodPost, "/admin/v1/apps", map[string]any{"name": "second", "account_id": account.ID}, &app); status != http.StatusCreated {
		t.Fatalf("app: %d", status)
	}
	if status := in.admin(http.MethodPost, "/admin/v1/apps/"+app.ID+"/keys", map[string]any{"name": "one"}, &key); status != http.StatusCreated || !strings.HasPrefix(key.Key, "mh_") {
		t.Fatalf("key: %d %+v", status, key)
	}
	b.sim.Add(readyAfter("mine", 0, "PI-1"))
	mine := in.register("mine", nil)
	b.receiver.await(t, 1, 5*time.Second)
	for _, path := range []string{"/v1/tasks/" + mine.ID, "/v1/endpoints/" + mine.Subscriptions[0].EndpointID + "/secret", "/v1/tasks/no-uuid"} {
		if status := in.callWith(key.Key, http.MethodGet, path, nil, nil); status != http.StatusNotFound {
			t.Errorf("%s by another app: %d", path, status)
		}
	}
	var list struct{ Data []any }
	for _, path := range []string{"/v1/tasks", "/v1/deliveries"} {
		if status := in.callWith(key.Key, http.MethodGet, path, nil, &list); status != http.StatusOK || len(list.Data) != 0 {
			t.Errorf("%s by another app: %d %v", path, status, list)
		}
		if status := in.call(http.MethodGet, path, nil, &list); status != http.StatusOK || len(list.Data) != 1 {
			t.Errorf("%s by its own app: %d %v", path, status, list)
		}
	}
	if status := in.admin(http.MethodDelete, "/admin/v1/apps/"+app.ID+"/keys/"+key.ID, nil, nil); status != http.StatusNoContent {
		t.Errorf("revoke: %d", status)
	}
	until(t, 20*time.Second, "the revoked key works no longer", func() bool {
		return in.callWith(key.Key, http.MethodGet, "/v1/tasks", nil, nil) == http.StatusUnauthorized
	})
}

func TestCancelAndDocument(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in := b.start("")
	b.sim.Add(memoriestest.Task{TaskID: "never"})
	task := in.register("never", nil)
	if status := in.call(http.MethodDelete, "/v1/tasks/"+task.ID, nil, nil); status != http.StatusNoContent {
		t.Errorf("cancel: %d", status)
	}
	if status := in.call(http.MethodDelete, "/v1/tasks/"+task.ID, nil, nil); status != http.StatusConflict {
		t.Errorf("cancel again: %d", status)
	}
	if anew := in.register("never", nil); anew.ID == task.ID || anew.Status != "waiting" {
		t.Errorf("a cancelled task registered anew: %+v", anew)
	}
	if status := in.call(http.MethodDelete, "/v1/tasks/"+task.ID+"?purge=maybe", nil, nil); status != http.StatusUnprocessableEntity {
		t.Errorf("purge=maybe: %d", status)
	}
	for _, want := range []int{http.StatusNoContent, http.StatusNotFound} { // a cancelled one
		if status := in.call(http.MethodDelete, "/v1/tasks/"+task.ID+"?purge=true", nil, nil); status != want {
			t.Errorf("expunge: %d, want %d", status, want)
		}
		if status := in.call(http.MethodGet, "/v1/tasks/"+task.ID, nil, nil); status != http.StatusNotFound {
			t.Errorf("get what was expunged: %d", status)
		}
	}
	resp, err := http.Get(in.url + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	var document struct {
		OpenAPI string
		Paths   map[string]any
	}
	if err != nil || json.Unmarshal(raw, &document) != nil || !strings.HasPrefix(document.OpenAPI, "3.1") || document.Paths["/v1/tasks"] == nil || document.Paths["/admin/v1/stats"] == nil {
		t.Errorf("openapi.json: %v %.200s", err, raw)
	}
	if bytes.Contains(raw, []byte("$schema")) {
		t.Error("the document has $schema members")
	}
}
