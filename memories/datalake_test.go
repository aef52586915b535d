package memories_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/memories/memoriestest"
)

var lake = memories.Account{Key: "sk-mai-1"}

func TestAPIOf(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]memories.API{"sk-mai-x": memories.Datalake, "sk-mavi-x": memories.V1, "": memories.V1, "x": memories.V1, "Bearer sk-mai-": memories.V1} {
		if got := memories.APIOf(key); got != want {
			t.Errorf("%q: %s", key, got)
		}
	}
}

// operationBody is an answer as it is documented, with some members replaced.
func operationBody(t *testing.T, replace string) string {
	t.Helper()
	o := map[string]any{
		"operation": "op_1", "kind": "ingest", "done": false, "cancelled": false, "resource": nil,
		"progress": map[string]any{"preprocess": 1, "index": 0.5, "derive": 0, "percent": 50}, "error": nil,
	}
	decoder := json.NewDecoder(strings.NewReader(replace))
	decoder.UseNumber()
	if err := decoder.Decode(&o); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// Every row goes over real HTTP.
func TestOperationsAreClassified(t *testing.T) {
	t.Parallel()
	const refusal = `{"error":{"code":"%s","message":"%s","request_id":"req_9","retry_after":%s}}`
	op := func(replace string) string { return operationBody(t, replace) }
	no := func(code, message, retryAfter string) string {
		return fmt.Sprintf(refusal, code, message, retryAfter)
	}
	cases := []struct {
		name    string
		status  int
		body    string
		want    memories.Outcome
		video   string
		code    string // as told, or "" for any
		message string // in the message
		retry   time.Duration
	}{
		{"under way", 200, op(`{}`), memories.Listed, "", "", "", 0},
		{"done, an id", 200, op(`{"done":true,"resource":"vid_1"}`), memories.Listed, "vid_1", "", "", 0},
		{"done, a path", 200, op(`{"done":true,"resource":"collections/c/videos/vid_1/"}`), memories.Listed, "vid_1", "", "", 0},
		{"done, a URL", 200, op(`{"done":true,"resource":"https://api.memories.ai/serve/datalake/v1/videos/vid_1?x=/y"}`), memories.Listed, "vid_1", "", "", 0},
		{"done, a number", 200, op(`{"done":true,"resource":603068775285264430}`), memories.Listed, "603068775285264430", "", "", 0},
		{"percent 100, not done", 200, op(`{"progress":{"percent":100},"resource":"vid_1"}`), memories.Listed, "", "", "", 0},
		{"members that nobody knows", 200, op(`{"shards":[{"a":null}],"eta":{"s":1}}`), memories.Listed, "", "", "", 0},
		{"only what must be", 200, `{"done":false}`, memories.Listed, "", "", "", 0},
		{"a byte order mark", 200, "\ufeff" + op(`{}`), memories.Listed, "", "", "", 0},
		{"202", 202, op(`{}`), memories.Listed, "", "", "", 0},
		{"failed, an object", 200, op(`{"done":true,"error":{"code":"decode_failed","message":"no video stream"}}`), memories.Failed, "", "decode_failed", "no video stream", 0},
		{"failed, a text", 200, op(`{"done":true,"error":"no video stream"}`), memories.Failed, "", "failed", "no video stream", 0},
		{"failed, an empty object", 200, op(`{"done":true,"error":{}}`), memories.Failed, "", "failed", "failed", 0},
		{"failed in part", 200, op(`{"done":true,"resource":"vid_1","error":{"code":"partial","message":"derive failed"}}`), memories.Failed, "", "partial", "derive failed", 0},
		{"no error, as a text", 200, op(`{"done":true,"resource":"vid_1","error":""}`), memories.Listed, "vid_1", "", "", 0},
		{"cancelled", 200, op(`{"cancelled":true}`), memories.Failed, "", "cancelled", "cancelled", 0},
		{"cancelled and done", 200, op(`{"cancelled":true,"done":true,"resource":"vid_1"}`), memories.Failed, "", "cancelled", "cancelled", 0},
		{"done without a video", 200, op(`{"done":true}`), memories.Malformed, "", "", "names no video", 0},
		{"NUL in the resource", 200, op(`{"done":true,"resource":"a\u0000b"}`), memories.Malformed, "", "", "", 0},
		{"an endless resource", 200, op(`{"done":true,"resource":"` + strings.Repeat("x", 300) + `"}`), memories.Malformed, "", "", "", 0},
		{"nothing of done", 200, `{"operation":"op_1"}`, memories.Malformed, "", "", "", 0},
		{"an error instead of an operation", 200, no("internal", "x", "null"), memories.Malformed, "", "", "", 0},
		{"v1's envelope", 200, seed, memories.Malformed, "", "", "", 0},
		{"another operation", 200, op(`{"operation":"op_2","done":true,"resource":"vid_2"}`), memories.ForeignTask, "", "", "", 0},
		{"its own name as a path", 200, op(`{"operation":"operations/op_1","done":true,"resource":"vid_1"}`), memories.Listed, "vid_1", "", "", 0},
		{"a page", 200, `<html>`, memories.Malformed, "", "", "", 0},
		{"nothing", 200, ``, memories.Malformed, "", "", "", 0},
		{"truncated", 200, `{"operation":"op_1","done":tr`, memories.Malformed, "", "", "", 0},
		{"invalid UTF-8", 200, "{\"operation\":\"op_1\",\"done\":true,\"resource\":\"\xff\"}", memories.Malformed, "", "", "", 0},
		{"400", 400, no("invalid_argument", "bad id", "null"), memories.TaskRefused, "", "invalid_argument", "bad id (request req_9)", 0},
		{"400 deprecated", 400, no("invalid_argument", "This endpoint is Deprecated", "null"), memories.Unavailable, "", "", "Deprecated", 0},
		{"400 with a page", 400, `<html>`, memories.Unavailable, "", "", "HTTP 400 Bad Request", 0},
		{"401", 401, no("unauthorized", "invalid key", "null"), memories.AccountRefused, "", "unauthorized", "invalid key", 0},
		{"401 that asks for Bearer", 401, no("unauthorized", "use Authorization: Bearer <key>", "null"), memories.AskAgain, "", "", "Bearer", 0},
		{"402", 402, no("insufficient_balance", "no balance", "null"), memories.OutOfCredits, "", "", "no balance", 0},
		{"403 by scope", 403, no("permission_denied", "scope", "null"), memories.AccountRefused, "", "permission_denied", "scope", 0},
		{"403 with a page", 403, `<html>`, memories.Blocked, "", "", "HTTP 403 Forbidden", 0},
		{"404", 404, no("not_found", "no such operation", "null"), memories.TaskRefused, "", "not_found", "no such operation", 0},
		{"404 by Spring", 404, `{"timestamp":"t","path":"/","status":404,"error":"Not Found"}`, memories.Unavailable, "", "", "HTTP 404 Not Found", 0},
		{"404 with a page", 404, `<html>`, memories.Unavailable, "", "", "HTTP 404 Not Found", 0},
		{"409 not ready", 409, no("video_not_ready", "wait", "7"), memories.Listed, "", "video_not_ready", "wait", 7 * time.Second},
		{"409 otherwise", 409, no("conflict", "x", "null"), memories.TaskRefused, "", "conflict", "", 0},
		{"413", 413, no("too_large", "x", "null"), memories.TaskRefused, "", "", "", 0},
		{"415", 415, no("unsupported", "x", "null"), memories.TaskRefused, "", "", "", 0},
		{"408", 408, no("timeout", "x", "null"), memories.Unavailable, "", "", "", 0},
		{"429", 429, no("rate_limited", "slow down", "3"), memories.RateLimited, "", "rate_limited", "slow down", 3 * time.Second},
		{"429, a text", 429, no("rate_limited", "slow down", `"2.5"`), memories.RateLimited, "", "", "", 2500 * time.Millisecond},
		{"429, for ever", 429, no("rate_limited", "slow down", "1e99"), memories.RateLimited, "", "", "", 0},
		{"429, an hour", 429, no("rate_limited", "slow down", "3600"), memories.RateLimited, "", "", "", 5 * time.Minute},
		{"429 without a body", 429, ``, memories.RateLimited, "", "", "HTTP 429 Too Many Requests", 0},
		{"500", 500, no("internal", "oops", "null"), memories.Unavailable, "", "internal", "oops", 0},
		{"502 with a page", 502, `<html>`, memories.Unavailable, "", "", "HTTP 502 Bad Gateway", 0},
		{"503", 503, no("unavailable", "later", "4"), memories.Unavailable, "", "", "later", 4 * time.Second},
		{"302", 302, ``, memories.Blocked, "", "", "HTTP 302 Found", 0},
		{"10 MB", 200, op(`{"x":"` + strings.Repeat("x", 10<<20) + `"}`), memories.Malformed, "", "", "larger", 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var asked *http.Request
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = r
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			defer server.Close()
			client := memories.New(server.URL, 1, "memhook/test")
			defer client.Close()
			got := client.TaskStatus(t.Context(), lake, "op_1", "ignored")
			var video string
			for _, v := range got.Videos {
				video += v.ID
				if v.Status != memories.VideoParsed {
					t.Errorf("status %q", v.Status)
				}
			}
			if got.Outcome != c.want || video != c.video || got.Done != (c.video != "") || got.RetryAfter != c.retry {
				t.Errorf("got %s %q %s (%s), want %s %q %s", got.Outcome, video, got.RetryAfter, got.Message, c.want, c.video, c.retry)
			}
			if !strings.Contains(got.Message, c.message) || (c.code != "" && got.Code != c.code) || (got.Outcome != memories.Listed && got.Message == "") {
				t.Errorf("said %q %q, want %q %q", got.Code, got.Message, c.code, c.message)
			}
			if asked.Header.Get("Authorization") != "sk-mai-1" || asked.RequestURI != "/serve/datalake/v1/operations/op_1" || asked.Header.Get("Accept") != "application/json" || asked.UserAgent() != "memhook/test" {
				t.Errorf("asked %s with %v", asked.RequestURI, asked.Header)
			}
		})
	}
}

func TestProgressIsShownAsFarAsTold(t *testing.T) {
	t.Parallel()
	cases := map[string]string{ // of progress → what is kept of it
		`{"preprocess":"done","index":0.5,"derive":null,"percent":42.5}`: `{"percent":42.5,"stages":{"index":"0.5","preprocess":"done"}}`,
		`{"percent":"42"}`: `{"percent":42}`,
		`{"percent":420,"index":{"state":"running"},"x":true}`:                          `{"percent":null,"stages":{"index":"{\"state\":\"running\"}","x":"true"}}`,
		`{"` + strings.Repeat("n", 100) + `":1,"a":"` + strings.Repeat("v", 100) + `"}`: `{"percent":null,"stages":{"a":"` + strings.Repeat("v", 64) + `"}}`,
		`null`: `null`, `{}`: `null`, `7`: `null`, `[1]`: `null`,
	}
	for told, want := range cases {
		server := serve(t, 200, operationBody(t, `{"progress":null}`))
		server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"operation":"op_1","done":false,"progress":%s}`, told)
		})
		client := memories.New(server.URL, 1, "memhook/test")
		got := client.TaskStatus(t.Context(), lake, "op_1", "")
		if kept, _ := json.Marshal(got.Progress); got.Outcome != memories.Listed || string(kept) != want {
			t.Errorf("%s: %s %s, want %s", told, got.Outcome, kept, want)
		}
		client.Close()
	}
	many := make(map[string]int)
	for i := range 100 {
		many[fmt.Sprint(i)] = i
	}
	raw, _ := json.Marshal(many)
	server := serve(t, 200, `{"done":false,"progress":`+string(raw)+`}`)
	client := memories.New(server.URL, 1, "memhook/test")
	defer client.Close()
	if got := client.TaskStatus(t.Context(), lake, "op_1", ""); got.Progress == nil || len(got.Progress.Stages) != 16 {
		t.Errorf("%+v", got.Progress)
	}
}

// Ids are opaque: whatever is in one stays in its own segment of the path.
func TestOperationIDsAreEscaped(t *testing.T) {
	t.Parallel()
	requests := 0
	var path string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		path = r.RequestURI
		_, _ = fmt.Fprint(w, `{"done":false}`)
	}))
	defer server.Close()
	client := memories.New(server.URL+"/", 1, "memhook/test")
	defer client.Close()
	for id, want := range map[string]string{"a/b": "a%2Fb", "../x": "..%2Fx", "a?b#c d": "a%3Fb%23c%20d", "é%41": "%C3%A9%2541", "operations/op_1": "op_1"} {
		if got := client.TaskStatus(t.Context(), lake, id, ""); got.Outcome != memories.Listed || path != "/serve/datalake/v1/operations/"+want {
			t.Errorf("%q: %s, asked %s", id, got.Outcome, path)
		}
	}
	requests = 0
	for _, id := range []string{"", ".", "..", "operations/"} {
		if got := client.TaskStatus(t.Context(), lake, id, ""); got.Outcome != memories.TaskRefused || got.Code != "invalid_operation" || requests != 0 {
			t.Errorf("%q: %s after %d requests", id, got.Outcome, requests)
		}
	}
}

// A key that the service wants as Bearer is sent so from the next request on; each call stays one request.
func TestBearerIsLearntByKey(t *testing.T) {
	t.Parallel()
	sim := memoriestest.New(memoriestest.Config{})
	sim.Set(memoriestest.Account{ID: "a", Keys: []string{"sk-mai-1"}, Bearer: true})
	sim.Add(memoriestest.Task{TaskID: "t", Steps: []memoriestest.Step{{Videos: []memoriestest.Video{{ID: "vid_1"}}}}})
	server := httptest.NewServer(sim)
	defer server.Close()
	client := memories.New(server.URL, 1, "memhook/test")
	defer client.Close()
	ask := func(key string, want memories.Outcome) {
		t.Helper()
		before := sim.Stats().Requests
		if got := client.TaskStatus(t.Context(), memories.Account{API: memories.Datalake, Key: key}, "t", ""); got.Outcome != want {
			t.Errorf("%s: %s (%s), want %s", key, got.Outcome, got.Message, want)
		}
		if n := sim.Stats().Requests - before; n != 1 {
			t.Errorf("one call was %d requests", n)
		}
	}
	ask("sk-mai-1", memories.AskAgain)
	ask("sk-mai-1", memories.Listed)
	ask("sk-mai-1", memories.Listed)
	ask("sk-mai-2", memories.Listed) // another account's key is sent bare
	sim.Set(memoriestest.Account{ID: "a", Keys: []string{"sk-mai-1"}, Refusal: "0401"})
	ask("sk-mai-1", memories.AccountRefused) // as Bearer
	sim.Set(memoriestest.Account{ID: "a", Keys: []string{"sk-mai-1"}, Bearer: true})
	ask("sk-mai-1", memories.AskAgain) // the bare key is tried again after a refusal
	ask("sk-mai-1", memories.Listed)
}

func TestOperationsSurviveTheSimulatorsFaults(t *testing.T) {
	t.Parallel()
	cases := map[string]memories.Outcome{
		memoriestest.FaultRateLimited: memories.RateLimited, memoriestest.FaultRateLimitedInt: memories.RateLimited, memoriestest.FaultHTTP429: memories.RateLimited,
		memoriestest.FaultHTML: memories.Unavailable, memoriestest.FaultHTML200: memories.Malformed, memoriestest.FaultSpring: memories.Unavailable,
		memoriestest.FaultCut: memories.Unavailable, memoriestest.FaultTruncated: memories.Malformed, memoriestest.FaultForeign: memories.ForeignTask,
		memoriestest.FaultHuge: memories.Malformed, memoriestest.FaultNotUTF8: memories.Malformed, memoriestest.FaultHang: memories.Unavailable,
		memoriestest.FaultFirewall: memories.Blocked, memoriestest.FaultRedirect: memories.Blocked, memoriestest.FaultNotReady: memories.Listed,
		memoriestest.FaultNotFound: memories.TaskRefused, memoriestest.FaultDeprecated: memories.Unavailable, memoriestest.FaultAsksBearer: memories.AskAgain,
	}
	for kind, want := range cases {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			sim := memoriestest.New(memoriestest.Config{})
			sim.Add(memoriestest.Task{TaskID: "t", Faults: []memoriestest.Fault{{Kind: kind}}})
			server := httptest.NewServer(sim)
			defer server.Close()
			client := memories.New(server.URL, 1, "memhook/test")
			defer client.Close()
			got := client.TaskStatus(t.Context(), lake, "t", "")
			if got.Outcome != want || len(got.Videos) != 0 {
				t.Errorf("got %s %v (%s), want %s", got.Outcome, got.Videos, got.Message, want)
			}
			if wait := got.RetryAfter; (want == memories.RateLimited && wait != time.Second) || (kind == memoriestest.FaultNotReady && wait != 2*time.Second) {
				t.Errorf("retry after %s", wait)
			}
			if next := client.TaskStatus(t.Context(), lake, "t", ""); next.Outcome != memories.Listed {
				t.Errorf("afterwards %s (%s)", next.Outcome, next.Message)
			}
		})
	}
}

// A whole life of an operation against the simulator: progress, then each of its ends.
func TestOperationsEndAsTheSimulatorLetsThem(t *testing.T) {
	t.Parallel()
	steps := []memoriestest.Step{{AfterMS: 60_000, Videos: []memoriestest.Video{{ID: "vid_1"}}}}
	sim := memoriestest.New(memoriestest.Config{})
	for id, end := range map[string]*memoriestest.End{
		"done": nil, "failed": {AfterMS: 50_000, Code: "decode_failed", Message: "no video stream"}, "text": {AfterMS: 50_000, Message: "no video stream"},
		"partial": {AfterMS: 60_000, Code: "partial", Message: "derive failed", Partial: true}, "cancelled": {AfterMS: 50_000, Cancelled: true},
	} {
		sim.Add(memoriestest.Task{TaskID: id, Steps: steps, End: end, Shape: memoriestest.ShapePath})
	}
	server := httptest.NewServer(sim)
	defer server.Close()
	client := memories.New(server.URL, 1, "memhook/test")
	defer client.Close()
	ends := map[string]string{"done": "listed", "failed": "failed decode_failed no video stream", "text": "failed failed no video stream", "partial": "failed partial derive failed", "cancelled": "failed cancelled the operation was cancelled"}
	sim.Jump(30 * time.Second)
	for id := range ends {
		got := client.TaskStatus(t.Context(), lake, id, "")
		if got.Outcome != memories.Listed || got.Done || got.Progress == nil || got.Progress.Percent == nil || *got.Progress.Percent < 50 || *got.Progress.Percent > 60 || len(got.Progress.Stages) != 3 {
			t.Errorf("%s half way: %+v", id, got)
		}
	}
	sim.Jump(40 * time.Second)
	for id, want := range ends {
		got := client.TaskStatus(t.Context(), lake, id, "")
		if said := strings.TrimSpace(got.Outcome.String() + " " + got.Code + " " + got.Message); said != want || got.Done != (id == "done") || (got.Done && got.Videos[0].ID != "vid_1") {
			t.Errorf("%s at the end: %+v", id, got)
		}
	}
	if got := client.TaskStatus(t.Context(), lake, "nobody", ""); got.Outcome != memories.TaskRefused || got.Code != "not_found" {
		t.Errorf("an unknown operation: %+v", got)
	}
}

// One account's limit holds for its requests of both generations together.
func TestSimulatorCountsBothGenerations(t *testing.T) {
	t.Parallel()
	sim := memoriestest.New(memoriestest.Config{RequestsPerSecond: 2})
	server := httptest.NewServer(sim)
	defer server.Close()
	client := memories.New(server.URL, 1, "memhook/test")
	defer client.Close()
	limited := 0
	for i := range 6 {
		api := memories.V1
		if i%2 == 1 {
			api = memories.Datalake
		}
		if client.TaskStatus(t.Context(), memories.Account{API: api, Key: "key"}, "t", "default").Outcome == memories.RateLimited {
			limited++
		}
	}
	if st := sim.Stats(); limited != 3 || st.Violations != 3 || st.MaxPerWindow != 6 {
		t.Errorf("%d limited, %+v; want 3 of 6", limited, st)
	}
	sim.SetAccount("outage", []string{"sk-mavi-1"}, 0, "0001")
	sim.Add(memoriestest.Task{TaskID: "refused", Refusal: "0001"})
	for task, key := range map[string]string{"t": "sk-mavi-1", "refused": "other"} {
		if got := client.TaskStatus(t.Context(), memories.Account{Key: key}, task, "default"); got.Outcome != memories.TaskRefused || got.Code != "0001" {
			t.Errorf("%s: %+v", task, got)
		}
	}
	for key, api := range map[string]memories.API{"sk-mavi-2": memories.Datalake, "sk-mai-2": memories.V1} {
		if got := client.TaskStatus(t.Context(), memories.Account{API: api, Key: key}, "t", "default"); got.Outcome != memories.AccountRefused {
			t.Errorf("a key of the other generation: %+v", got)
		}
	}
}
