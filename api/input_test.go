package api

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Each refusal names the field, says what is wanted, and speaks of HTTP and JSON rather than of Go.
func TestProblemsNameFieldWishAndWayOut(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	h := b.served(b.operations)
	const unknown, zero = "01993c1e-6f3a-7cc0-9d4e-0a4ab7f3c1d2", "00000000-0000-0000-0000-000000000000"
	ok := `"callback_url":"https://customer.example/"`
	jsonBody := []string{"Content-Type", "application/json"}
	for _, c := range []struct {
		name, method, target, body string
		header                     []string
		status                     int
		code, field, detail        string // field is empty for none; detail is what the text contains
	}{
		{"an unknown parameter", "GET", "/v1/tasks?statsu=ready", "", nil, 422, "invalid-request", "statsu", "statsu is unknown; this operation takes limit, cursor, status, task_id, unique_id"},
		{"a parameter of a read", "GET", "/v1/tasks/" + b.task + "?verbose=1", "", nil, 422, "invalid-request", "verbose", "takes no query parameters"},
		{"app_id for an app", "GET", "/v1/tasks?app_id=" + unknown, "", nil, 422, "invalid-request", "app_id", "is unknown"},
		{"bytes that are no text", "GET", "/v1/tasks?task_id=%ff", "", nil, 422, "invalid-request", "task_id", "must be UTF-8 text, percent-encoded"},
		{"NUL", "GET", "/v1/tasks?task_id=a%00b", "", nil, 422, "invalid-request", "task_id", "must not contain the character NUL (%00)"},
		{"a broken escape", "GET", "/v1/tasks?task_id=%zz", "", nil, 422, "invalid-request", "query", "not correctly percent-encoded"},
		{"a parameter twice", "GET", "/v1/tasks?status=ready&status=failed", "", nil, 422, "invalid-request", "status", "is given 2 times"},
		{"a status that is none", "GET", "/v1/tasks?status=done", "", nil, 422, "invalid-request", "status", `must be one of waiting, ready, failed, expired, cancelled, not "done"`},
		{"a limit that is none", "GET", "/v1/tasks?limit=many", "", nil, 422, "invalid-request", "limit", "must be an integer"},
		{"a limit too large", "GET", "/v1/tasks?limit=501", "", nil, 422, "invalid-request", "limit", "must be at most 500, not 501"},
		{"a cursor of elsewhere", "GET", "/v1/tasks?cursor=x", "", nil, 422, "invalid-request", "cursor", "must be the next_cursor"},
		{"a filter that is no id", "GET", "/v1/deliveries?endpoint_id=x", "", nil, 422, "invalid-request", "endpoint_id", "must be an id (a UUID)"},
		{"the zero id as a filter", "GET", "/v1/deliveries?endpoint_id=" + zero, "", nil, 422, "invalid-request", "endpoint_id", "must be an id (a UUID) other than the zero UUID"},
		{"the zero id as a task", "GET", "/admin/v1/deliveries?task=" + zero, "", nil, 422, "invalid-request", "task", "other than the zero UUID"},
		{"the zero id as an object", "GET", "/admin/v1/audit?object_id=" + zero, "", nil, 422, "invalid-request", "object_id", "other than the zero UUID"},
		{"an object that is no id", "GET", "/admin/v1/audit?object_id=x", "", nil, 422, "invalid-request", "object_id", "must be an id (a UUID)"},
		{"the zero id as an app", "GET", "/admin/v1/tasks?app_id=" + zero, "", nil, 422, "invalid-request", "app_id", "must be an app's id"},
		{"the zero id as a cursor", "GET", "/v1/tasks?cursor=AAAAAAAAAAAAAAAAAAAAAA", "", nil, 422, "invalid-request", "cursor", "must be the next_cursor"},
		{"an event type that is none", "GET", "/v1/events?type=x", "", nil, 422, "invalid-request", "type", "must be one of task.ready"},
		{"an event that is none", "GET", "/v1/events?after=x", "", nil, 422, "invalid-request", "after", "must be the id of an event"},
		{"an app that is no id", "GET", "/admin/v1/tasks?app_id=x", "", nil, 422, "invalid-request", "app_id", "must be an app's id"},

		{"a search for nothing", "GET", "/v1/search?q=%20", "", nil, 422, "invalid-request", "q", "must have at least 1 character"},
		{"a key with a blank", "POST", "/admin/v1/accounts", `{"name":"a","api_key":"sk-mavi-1\n"}`, jsonBody, 422, "invalid-request", "api_key", "must have only printable ASCII characters, without spaces"},
		{"a key with a letter that no header takes", "POST", "/admin/v1/accounts", `{"name":"a","api_key":"sk-mavi-é"}`, jsonBody, 422, "invalid-request", "api_key", "must have only printable ASCII characters, without spaces"},
		{"a resend of a status that has none", "POST", "/v1/deliveries/resend", `{"status":"cancelled"}`, jsonBody, 422, "invalid-request", "status", "must be one of"},
		{"a resend for an unknown endpoint", "POST", "/v1/deliveries/resend", `{"endpoint_id":"` + unknown + `"}`, jsonBody, 404, "not-found", "endpoint_id", "endpoint_id refers to no existing endpoint"},
		{"a resend for an endpoint unknown to all apps", "POST", "/admin/v1/deliveries/resend", `{"endpoint_id":"` + unknown + `"}`, jsonBody, 404, "not-found", "endpoint_id", "endpoint_id refers to no existing endpoint"},
		{"a resend for the zero id", "POST", "/v1/deliveries/resend", `{"endpoint_id":"` + zero + `"}`, jsonBody, 422, "invalid-request", "endpoint_id", "other than the zero UUID"},
		{"a resend for the zero id in all apps", "POST", "/admin/v1/deliveries/resend", `{"endpoint_id":"` + zero + `"}`, jsonBody, 422, "invalid-request", "endpoint_id", "other than the zero UUID"},
		{"a resend for an unset variable", "POST", "/v1/deliveries/resend", `{"endpoint_id":""}`, jsonBody, 422, "invalid-request", "endpoint_id", "must be an id (a UUID)"},
		{"a resend for no endpoint", "POST", "/v1/deliveries/resend", `{"endpoint_id":null}`, jsonBody, 422, "invalid-request", "endpoint_id", "endpoint_id must not be null; leave it out instead"},
		{"a resend of no event type", "POST", "/v1/deliveries/resend", `{"event_type":""}`, jsonBody, 422, "invalid-request", "event_type", "must be one of task.ready"},
		{"a resend since no time", "POST", "/v1/deliveries/resend", `{"since":null}`, jsonBody, 422, "invalid-request", "since", "since must not be null; leave it out instead"},
		{"a resend until no time", "POST", "/v1/deliveries/resend", `{"until":null}`, jsonBody, 422, "invalid-request", "until", "until must not be null; leave it out instead"},
		{"a resend until the beginning", "POST", "/v1/deliveries/resend", `{"until":"0001-01-01T00:00:00Z"}`, jsonBody, 422, "invalid-request", "until", "must be after since"},
		{"a resend of no time", "POST", "/v1/deliveries/resend", `{"since":"2026-01-02T00:00:00Z","until":"2026-01-01T00:00:00Z"}`, jsonBody, 422, "invalid-request", "until", "must be after since"},

		{"another media type", "POST", "/v1/tasks", `{}`, []string{"Content-Type", "text/plain"}, 415, "unsupported-media-type", "Content-Type", "Content-Type must be application/json, and the body JSON; text/plain is not supported"},
		{"another media type of a batch", "POST", "/v1/tasks/batch", `{}`, []string{"Content-Type", "text/plain"}, 415, "unsupported-media-type", "Content-Type", "text/plain is not supported"},
		{"no body", "POST", "/v1/tasks", ``, jsonBody, 400, "bad-request", "body", "body is missing; send a JSON object"},
		{"broken JSON", "POST", "/v1/tasks", `{"task_id":}`, jsonBody, 400, "bad-request", "body", "body cannot be read as JSON: line 1, column 12: a value must be"},
		{"a byte order mark", "POST", "/v1/tasks", "\uFEFF{}", jsonBody, 400, "bad-request", "body", "it begins with a byte order mark (BOM); send UTF-8 without one"},
		{"too deep", "POST", "/v1/tasks", strings.Repeat("[", 30), jsonBody, 400, "bad-request", "body", "it is nested deeper than 20 levels"},
		{"too large for an operation without a body", "POST", "/v1/endpoints/" + b.endpoint + "/enable", strings.Repeat(" ", maxBody+1), nil, 413, "body-too-large", "body", "body is larger than 1 MiB"},
		{"too large for the operator's", "POST", "/admin/v1/polling/pause", strings.Repeat(" ", maxBody+1), nil, 413, "body-too-large", "body", "body is larger than 1 MiB"},
		{"too large", "POST", "/v1/tasks", `{"task_id":"` + strings.Repeat("a", maxBody) + `"}`, jsonBody, 413, "body-too-large", "body", "body is larger than 1 MiB"},
		{"an array", "POST", "/v1/tasks", `[]`, jsonBody, 422, "invalid-request", "body", "body must be an object"},
		{"an unknown field", "POST", "/v1/tasks", `{"task_id":"a",` + ok + `,"colour":"red"}`, jsonBody, 422, "invalid-request", "colour", "colour is not a field of this request, which takes callback_url, "},
		{"a field twice, in another case", "POST", "/v1/tasks", `{"task_id":"a",` + ok + `,"expected_videos":1,"Expected_Videos":3000000000}`, jsonBody, 422, "invalid-request", "Expected_Videos", "Expected_Videos is not a field of this request; did you mean expected_videos?"},
		{"a field in another case", "POST", "/v1/tasks", `{"Task_ID":"a",` + ok + `}`, jsonBody, 422, "invalid-request", "Task_ID", "did you mean task_id?"},
		{"a field in another script", "POST", "/v1/tasks", `{"taſk_id":"b","task_id":"a",` + ok + `}`, jsonBody, 422, "invalid-request", "taſk_id", "is not a field of this request"},
		{"a field twice, once escaped", "POST", "/v1/tasks", `{"task_id":"a",` + ok + `,"task\u005fid":"b"}`, jsonBody, 400, "bad-request", "body", "task_id is given twice in one object; give it once"},
		{"a number for a text", "POST", "/v1/tasks", `{"task_id":7,` + ok + `}`, jsonBody, 422, "invalid-request", "task_id", `task_id must be a string, not the number 7: write "7"`},
		{"no task id", "POST", "/v1/tasks", `{` + ok + `}`, jsonBody, 422, "invalid-request", "task_id", "task_id is required"},
		{"a number out of range", "POST", "/v1/tasks", `{"task_id":"a",` + ok + `,"expected_videos":1e300}`, jsonBody, 422, "invalid-request", "expected_videos", "expected_videos must be"},
		{"NUL in metadata", "POST", "/v1/tasks", `{"task_id":"a",` + ok + `,"metadata":{"k":"\u0000"}}`, jsonBody, 422, "invalid-request", "metadata.k", "must not contain the character NUL"},

		{"an endpoint without url", "PATCH", "/v1/endpoints/" + b.endpoint, `{"url":null}`, jsonBody, 422, "invalid-request", "url", "url must not be null; leave it out instead"},
		{"an endpoint without enabled", "PATCH", "/v1/endpoints/" + b.endpoint, `{"enabled":null}`, jsonBody, 422, "invalid-request", "enabled", "enabled must not be null; leave it out instead"},
		{"an app without name", "PATCH", "/admin/v1/apps/" + b.app.String(), `{"name":null}`, jsonBody, 422, "invalid-request", "name", "name must not be null; leave it out instead"},
		{"an app without account_id", "PATCH", "/admin/v1/apps/" + b.app.String(), `{"account_id":null}`, jsonBody, 422, "invalid-request", "account_id", "account_id must not be null; leave it out instead"},
		{"an account without name", "PATCH", "/admin/v1/accounts/" + b.account.String(), `{"name":null}`, jsonBody, 422, "invalid-request", "name", "name must not be null; leave it out instead"},
		{"an account without api_key", "PATCH", "/admin/v1/accounts/" + b.account.String(), `{"api_key":null}`, jsonBody, 422, "invalid-request", "api_key", "api_key must not be null; leave it out instead"},
		{"an account without api", "PATCH", "/admin/v1/accounts/" + b.account.String(), `{"api":null}`, jsonBody, 422, "invalid-request", "api", "api must not be null; leave it out instead"},
		{"an account without requests_per_second", "PATCH", "/admin/v1/accounts/" + b.account.String(), `{"requests_per_second":null}`, jsonBody, 422, "invalid-request", "requests_per_second", "requests_per_second must not be null; leave it out instead"},
		{"an account without uploads_per_minute", "PATCH", "/admin/v1/accounts/" + b.account.String(), `{"uploads_per_minute":null}`, jsonBody, 422, "invalid-request", "uploads_per_minute", "uploads_per_minute must not be null; leave it out instead"},
		{"an account without state", "PATCH", "/admin/v1/accounts/" + b.account.String(), `{"state":null}`, jsonBody, 422, "invalid-request", "state", "state must not be null; leave it out instead"},

		{"a batch that is an array", "POST", "/v1/tasks/batch", `[]`, jsonBody, 422, "invalid-request", "body", "body must be an object"},
		{"a batch of a number", "POST", "/v1/tasks/batch", `{"tasks":5}`, jsonBody, 422, "invalid-request", "tasks", "tasks must be an array"},
		{"a batch of nothing", "POST", "/v1/tasks/batch", `{"tasks":[]}`, jsonBody, 422, "invalid-request", "tasks", "must have 1 to 1000 registrations, not 0"},
		{"a batch without tasks", "POST", "/v1/tasks/batch", `{}`, jsonBody, 422, "invalid-request", "tasks", "tasks is required"},
		{"a batch with more", "POST", "/v1/tasks/batch", `{"tasks":[{}],"dry_run":true}`, jsonBody, 422, "invalid-request", "dry_run", "dry_run is not a field of this request"},

		{"a search for nothing", "GET", "/v1/search", "", nil, 422, "invalid-request", "q", "q is required"},
		{"a task that has ended", "DELETE", "/v1/tasks/" + b.task, "", nil, 409, "conflict", "", "task " + b.task + " is ready and can no longer be cancelled; register it again"},
		{"an endpoint that exists", "POST", "/v1/endpoints", `{"url":"https://customer.example/"}`, jsonBody, 409, "conflict", "", "the endpoint " + b.endpoint + " has this URL"},
		{"an unknown task", "GET", "/v1/tasks/" + unknown, "", nil, 404, "not-found", "", "no task has this id: it never existed, has been deleted, or belongs to another app"},
		{"no id at all", "GET", "/v1/deliveries/x", "", nil, 404, "not-found", "", "no delivery has this id: x is not a UUID"},
		{"an unknown event", "GET", "/v1/events/evt_" + unknown, "", nil, 404, "not-found", "", "no event has this id"},
		{"an unknown key", "DELETE", "/admin/v1/apps/" + b.app.String() + "/keys/" + unknown, "", nil, 404, "not-found", "", "no key has this id"},
		{"an app on an unknown account", "POST", "/admin/v1/apps", `{"name":"x","account_id":"` + unknown + `"}`, jsonBody, 404, "not-found", "account_id", "account_id refers to no existing account"},
		{"an app moved to nowhere", "PATCH", "/admin/v1/apps/" + b.app.String(), `{"account_id":"` + unknown + `"}`, jsonBody, 404, "not-found", "account_id", "refers to no existing account"},
		{"an unknown app moved", "PATCH", "/admin/v1/apps/" + unknown, `{"account_id":"` + b.account.String() + `"}`, jsonBody, 404, "not-found", "", "no app has this id"},
		{"an account that is no id", "POST", "/admin/v1/apps", `{"name":"x","account_id":"y"}`, jsonBody, 422, "invalid-request", "account_id", "account_id must be an id (a UUID)"},
		{"a name with NUL", "POST", "/admin/v1/accounts", `{"name":"a\u0000","api_key":"x"}`, jsonBody, 422, "invalid-request", "name", "name must not contain the character NUL"},
		{"an account that is used", "DELETE", "/admin/v1/accounts/" + b.account.String(), "", nil, 409, "conflict", "", "the account has 1 app and 1 task that are polled"},
		{"a time that is none", "POST", "/v1/endpoints/" + b.endpoint + "/recover", `{"since":"yesterday"}`, jsonBody, 422, "invalid-request", "since", "must be a time such as 2026-01-02T15:04:05Z"},
		{"a reserved header", "POST", "/v1/endpoints", `{"url":"https://customer.example/2","headers":{"Host":"x"}}`, jsonBody, 422, "invalid-request", "headers.Host", "is set by memhook and cannot be changed; leave it out"},
	} {
		token := b.key
		if strings.HasPrefix(c.target, "/admin/") {
			token = testToken
		}
		w := ask(h, c.method, c.target, token, c.body, c.header...)
		var p Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
			continue
		}
		named := c.field == "" && len(p.Errors) == 0
		for _, e := range p.Errors {
			named = named || e.Field == c.field
		}
		if w.Code != c.status || p.Status != c.status || p.Code != c.code || !named || !strings.Contains(p.Detail, c.detail) {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
		}
		for _, ours := range []string{"Go value", "json:", "api.", "validation failed", "RFC 4122", "SQLSTATE", "expected ", "invalid character"} {
			if strings.Contains(w.Body.String(), ours) {
				t.Errorf("%s: %q in %s", c.name, ours, w.Body)
			}
		}
	}
	if batch := ask(h, "POST", "/v1/tasks/batch", b.key, `{"tasks":[5]}`, jsonBody...); !strings.Contains(batch.Body.String(), `"field":"body","message":"must be an object, not the number 5"`) {
		t.Errorf("a number in a batch: %d %s", batch.Code, batch.Body)
	}
	twice := `{"tasks":[{"task_id":"a",` + ok + `,"expected_videos":1,"Expected_Videos":3000000000}]}`
	if batch := ask(h, "POST", "/v1/tasks/batch", b.key, twice, jsonBody...); !strings.Contains(batch.Body.String(), `"field":"Expected_Videos"`) {
		t.Errorf("a field twice in a batch, in another case: %d %s", batch.Code, batch.Body)
	}
	if list := ask(h, "GET", "/v1/tasks?limit=500&cursor=&status=&task_id=", b.key, ""); list.Code != http.StatusOK {
		t.Errorf("empty filters: %d %s", list.Code, list.Body)
	}
}

// A body that breaks off is the client's fault, whatever the operation does with it. One that is as large as can be is taken.
func TestBodiesThatBreakOff(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	h := b.served(b.operations)
	server := httptest.NewServer(h)
	defer server.Close()
	enable := "/v1/endpoints/" + b.endpoint + "/enable"
	for _, target := range []string{"/v1/tasks", "/v1/tasks/batch", enable, "/admin/v1/accounts", "/admin/v1/polling/pause"} {
		token := b.key
		if strings.HasPrefix(target, "/admin/") {
			token = testToken
		}
		head := "POST " + target + " HTTP/1.1\r\nHost: memhook\r\nContent-Type: application/json\r\nAuthorization: Bearer " + token + "\r\n"
		for _, key := range []string{"", headerIdempotency + ": once\r\n"} {
			for name, body := range map[string]string{
				"a chunk without a size": "Transfer-Encoding: chunked\r\n\r\nnone\r\n{}\r\n0\r\n\r\n", "half of a body": "Content-Length: 100\r\n\r\n{",
			} {
				status, answer := exchange(t, server.Listener.Addr().String(), head+key+body)
				if status != http.StatusBadRequest || !strings.Contains(answer, `"code":"bad-request"`) || !strings.Contains(answer, `"field":"body","message":"could not be read`) {
					t.Errorf("%s at %s, %q: %d %s", name, target, key, status, answer)
				}
			}
		}
	}
	if w := ask(h, http.MethodPost, enable, b.key, strings.Repeat(" ", maxBody)); w.Code != http.StatusOK {
		t.Errorf("1 MiB: %d %s", w.Code, w.Body)
	}
}

// exchange sends the bytes of a request on a connection of its own, of which it then closes its half.
func exchange(t *testing.T, addr, request string) (status int, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%v after %.60q", err, request)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

// A request may take longer than its body had time to arrive: a repetition waits for the first request to end, and says so.
func TestWaitingForTheFirstRequestIsAnswered(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	server := httptest.NewServer(b.served(b.operations))
	defer server.Close()
	body := `{"task_id":"slow","callback_url":"https://customer.example/"}`
	hash := sha256.Sum256([]byte("/v1/tasks\n" + body))
	if claim, err := b.store.ClaimIdempotent(t.Context(), b.app, "slow", hash[:]); err != nil || !claim.Mine {
		t.Fatalf("%+v, %v", claim, err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/v1/tasks", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"Authorization": "Bearer " + b.key, "Content-Type": "application/json", headerIdempotency: "slow"} {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if answer, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusConflict || !strings.Contains(string(answer), codeKeyInUse) {
		t.Errorf("%d %s", resp.StatusCode, answer)
	}
}

// All times of all answers have six digits of a second.
func TestTimesHaveOneWidth(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if _, err := b.store.Pool().Exec(t.Context(), `
		update tasks set created_at = '2026-01-02 15:04:05+00', expires_at = '2026-01-02 15:04:05.1+00', ready_at = '2026-01-02 15:04:05.12345+00'`); err != nil {
		t.Fatal(err)
	}
	h := b.served(b.operations)
	anyTime, right := regexp.MustCompile(`"\d{4}-\d\d-\d\dT[^"]*"`), regexp.MustCompile(`^"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"$`)
	found := 0
	for _, target := range []string{
		"/tasks", "/tasks/" + b.task, "/events", "/endpoints", "/endpoints/" + b.endpoint, "/deliveries", "/deliveries/" + b.delivery,
		"/accounts", "/apps", "/apps/" + b.app.String() + "/keys", "/stats",
	} {
		w := ask(h, "GET", "/admin/v1"+target, testToken, "")
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
		for _, at := range anyTime.FindAllString(w.Body.String(), -1) {
			if found++; !right.MatchString(at) {
				t.Errorf("%s: %s", target, at)
			}
		}
	}
	if found < 15 {
		t.Errorf("%d times were seen", found)
	}
	if w := ask(h, "GET", "/v1/tasks/"+b.task, b.key, ""); !strings.Contains(w.Body.String(), `"2026-01-02T15:04:05.000000Z"`) {
		t.Errorf("a whole second: %s", w.Body)
	}
}

// HEAD answers as GET, without a body.
func TestHeadAnswersAsGet(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cfg := b.cfg
	cfg.Ready = b.store.Pool().Ping
	cfg.Registry = prometheus.NewRegistry()
	h, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/healthz", "/readyz", "/openapi.json", "/admin/sign-in", "/admin/", "/v1/tasks", "/v1/nothing"} {
		with, without := ask(h, http.MethodGet, path, b.key, ""), ask(h, http.MethodHead, path, b.key, "")
		if with.Code != without.Code || with.Header().Get("Content-Type") != without.Header().Get("Content-Type") {
			t.Errorf("%s: GET %d %v, HEAD %d %v", path, with.Code, with.Header(), without.Code, without.Header())
		}
	}
	if w := ask(h, http.MethodPut, "/healthz", "", ""); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("PUT: %d", w.Code)
	}
}

// An operator's app_id narrows each list to that app, and another app's id to nothing.
func TestAppIDNarrowsTheOperatorsLists(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	h := b.served(b.operations)
	for _, list := range []string{"tasks", "events", "endpoints", "deliveries"} {
		for app, want := range map[string]int{"": 1, "?app_id=" + b.app.String(): 1, "?app_id=01993c1e-6f3a-7cc0-9d4e-0a4ab7f3c1d2": 0} {
			var page struct{ Data []any }
			var w *httptest.ResponseRecorder
			// Other tests' transactions on this server hold the feed back until they end.
			for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
				w = ask(h, "GET", "/admin/v1/"+list+app, testToken, "")
				if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
					t.Fatalf("%s%s: %d %s", list, app, w.Code, w.Body)
				}
				if len(page.Data) == want || time.Now().After(deadline) {
					break
				}
			}
			if len(page.Data) != want {
				t.Errorf("%s%s: %d %s", list, app, w.Code, w.Body)
			}
		}
	}
}

// A database that fails is never the fault of who asks: nothing is called wrong or deleted because it could not be read.
func TestAFailingDatabaseIsNobodysMistake(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	h, session := b.dashboard()
	for _, c := range []struct{ table, method, target, body string }{
		{"endpoints", "POST", "/v1/deliveries/resend", `{"endpoint_id":"` + b.endpoint + `"}`},
		{"accounts", "GET", "/admin/tasks/" + b.task, ""},
		{"apps", "GET", "/admin/endpoints/" + b.endpoint, ""},
		{"endpoints", "GET", "/admin/deliveries/" + b.delivery, ""},
	} {
		header := []string{"Content-Type", "application/json", "Cookie", session}
		if w := ask(h, c.method, c.target, b.key, c.body, header...); w.Code >= http.StatusBadRequest {
			t.Fatalf("%s %s: %d %s", c.method, c.target, w.Code, w.Body)
		}
		if _, err := b.store.Pool().Exec(t.Context(), `alter table `+c.table+` rename to away`); err != nil {
			t.Fatal(err)
		}
		if w := ask(h, c.method, c.target, b.key, c.body, header...); w.Code != http.StatusInternalServerError {
			t.Errorf("%s %s without %s: %d", c.method, c.target, c.table, w.Code)
		}
		if _, err := b.store.Pool().Exec(t.Context(), `alter table away rename to `+c.table); err != nil {
			t.Fatal(err)
		}
	}
}

// dashboard returns the whole API with the dashboard, and the cookie of an operator who has signed in.
func (b *bench) dashboard() (h http.Handler, session string) {
	b.t.Helper()
	cfg := b.cfg
	cfg.Registry = prometheus.NewRegistry()
	h, err := New(b.t.Context(), cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	form := url.Values{"token": {testToken}}.Encode()
	cookies := ask(h, http.MethodPost, "/admin/sign-in", "", form, "Content-Type", "application/x-www-form-urlencoded").Result().Cookies()
	if len(cookies) != 1 {
		b.t.Fatal("no session")
	}
	return h, cookies[0].String()
}

// A task's page offers to cancel it exactly where cancelling answers 204.
func TestCancelIsOfferedWhereItWorks(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	h, session := b.dashboard()
	for _, state := range []string{
		`status = 'waiting', polling = true, until = 'downloaded'`, `status = 'ready', polling = true, until = 'downloaded'`,
		`status = 'ready', polling = true, until = 'indexed'`, `status = 'ready', polling = false, until = 'indexed'`,
		`status = 'failed', polling = false, closed = 1`, `status = 'expired', polling = false, closed = 1`, `status = 'cancelled', polling = false, closed = 1`,
	} {
		if _, err := b.store.Pool().Exec(t.Context(), `update tasks set closed = 0`); err != nil {
			t.Fatal(err)
		}
		if _, err := b.store.Pool().Exec(t.Context(), `update tasks set `+state); err != nil {
			t.Fatal(err)
		}
		page := ask(h, http.MethodGet, "/admin/tasks/"+b.task, "", "", "Cookie", session)
		offered := strings.Contains(page.Body.String(), "Cancel the task")
		if page.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", state, page.Code, page.Body)
		}
		if w := ask(h, http.MethodDelete, "/v1/tasks/"+b.task, b.key, ""); (w.Code == http.StatusNoContent) != offered {
			t.Errorf("%s: cancelling answers %d, offered: %v", state, w.Code, offered)
		}
	}
}
