package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/memhook/memhook/memories/memoriestest"
)

// mistake is a request that people really send, and what its answer must say: which field is wrong, what is wanted, and
// where it helps the way out.
type mistake struct {
	name, target, body string // target is a method and a path
	status             int
	field              string   // of errors; empty where the problem has none
	says               []string // parts of the detail
	header             []string // beside or in place of the usual ones; an empty value leaves one out
}

// codesOf are the codes of the statuses; 422 has a second one.
var codesOf = map[int]string{
	400: "bad-request", 401: "unauthorized", 404: "not-found", 405: "method-not-allowed", 409: "conflict", 413: "body-too-large",
	415: "unsupported-media-type", 422: "invalid-request",
}

// foreign are words of the program that say nothing to who calls an API.
var foreign = []string{
	"Go value", "json:", "api.New", "store.", "uuid.", "invalid character", "strconv", "map[", "[]string", "interface", "SQLSTATE", "<nil>",
	"%!", "expected ", "RFC 4122", "validation failed", "struct",
}

// Each typical mistake is answered with its status and code, and with a text that names the field, the wish and the way out.
func TestMistakesAreExplained(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	delete(b.env, "MEMHOOK_ALLOW_HTTP_CALLBACKS")
	delete(b.env, "MEMHOOK_ALLOWED_CALLBACK_NETWORKS")
	in := b.start("")
	var endpoint, account struct{ ID string }
	if status := in.call(http.MethodPost, "/v1/endpoints", `{"url":"https://customer.example/taken"}`, &endpoint); status != http.StatusCreated {
		t.Fatalf("endpoint: %d", status)
	}
	if status := in.admin(http.MethodPost, "/admin/v1/accounts", `{"name":"taken","api_key":"sk-mavi-taken"}`, &account); status != http.StatusCreated {
		t.Fatalf("account: %d", status)
	}
	if status := in.callHeader("Idempotency-Key", "used", "/v1/tasks", `{"task_id":"used","callback_url":"https://customer.example/"}`); status != http.StatusCreated {
		t.Fatalf("idempotent: %d", status)
	}
	tables := [][]mistake{jsonMistakes, taskMistakes, callbackMistakes, headerMistakes, queryMistakes, pathMistakes, endpointMistakes, adminMistakes}
	n := 0
	for _, m := range slices.Concat(tables...) {
		n++
		m.target = strings.NewReplacer("ENDPOINT", endpoint.ID, "ACCOUNT", account.ID, "ID", "01993c1e-6f3a-7cc0-9d4e-0a4ab7f3c1d2").Replace(m.target)
		in.explains(t, m)
	}
	if n < 200 {
		t.Errorf("only %d mistakes were made", n)
	}
	if n := b.query("select count(*) from tasks where task_id <> 'used'"); n != 0 {
		t.Errorf("%d mistakes registered a task", n)
	}
}

// callHeader posts with one more header.
func (in *instance) callHeader(name, value, path, body string) int {
	resp := in.send(mistake{target: "POST " + path, body: body, header: []string{name, value}})
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode
}

func (in *instance) send(m mistake) *http.Response {
	in.t.Helper()
	method, path, _ := strings.Cut(m.target, " ")
	req, err := http.NewRequestWithContext(in.t.Context(), method, in.url, strings.NewReader(m.body))
	if err != nil {
		in.t.Fatalf("%s: %v", m.name, err)
	}
	req.URL.Opaque = path // as written, also where it is no proper path
	token := testAPIKey
	if strings.HasPrefix(path, "/admin/") {
		token = testAdminToken
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if m.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(m.header); i += 2 {
		req.Header.Set(m.header[i], m.header[i+1])
		if m.header[i+1] == "" {
			req.Header.Del(m.header[i])
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		in.t.Fatalf("%s: %v", m.name, err)
	}
	return resp
}

func (in *instance) explains(t *testing.T, m mistake) {
	t.Helper()
	resp := in.send(m)
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	var p problemJSON
	if err != nil || json.Unmarshal(raw, &p) != nil {
		t.Errorf("%s: %d %s", m.name, resp.StatusCode, raw)
		return
	}
	code := codesOf[m.status]
	if slices.Contains(m.header, "used") {
		code = "idempotency-key-reused"
	}
	if resp.StatusCode != m.status || p.Status != m.status || p.Code != code || resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s: %d %s", m.name, resp.StatusCode, raw)
	}
	named := m.field == "" && len(p.Errors) == 0
	for _, e := range p.Errors {
		named = named || e.Field == m.field && strings.Contains(p.Detail, e.Field+" "+e.Message)
	}
	if !named {
		t.Errorf("%s: does not name %q: %s", m.name, m.field, raw)
	}
	for _, part := range m.says {
		if !strings.Contains(p.Detail, part) {
			t.Errorf("%s: does not say %q: %s", m.name, part, raw)
		}
	}
	for _, word := range foreign {
		if strings.Contains(p.Detail, word) {
			t.Errorf("%s: says %q: %s", m.name, word, raw)
		}
	}
	if len(p.Detail) > 500 {
		t.Errorf("%s: %d characters: %s", m.name, len(p.Detail), raw)
	}
	if m.status == http.StatusMethodNotAllowed && resp.Header.Get("Allow") == "" {
		t.Errorf("%s: no Allow", m.name)
	}
}

const (
	cb = `"callback_url":"https://customer.example/h"`
	ok = `{"task_id":"a",` + cb + `}`
	at = `{"task_id":"a",` + cb + `,`
)

// task is a mistake in the body of a registration.
func task(name, body string, status int, field string, says ...string) mistake {
	return mistake{name: name, target: "POST /v1/tasks", body: body, status: status, field: field, says: says}
}

func gzipped(s string) string {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = io.WriteString(w, s)
	_ = w.Close()
	return out.String()
}

var jsonMistakes = []mistake{
	task("no body", "", 400, "body", "is missing; send a JSON object"),
	task("a trailing comma", at+"}", 400, "body", "line 1, column 60: the comma before } is one too many"),
	task("a trailing comma in a list", `{"tasks":[1,]}`, 400, "body", "the comma before ] is one too many"),
	task("single quotes", `{'task_id':'a'}`, 400, "body", "column 2", "must stand in double quotes"),
	task("names without quotes", `{task_id:"a"}`, 400, "body", "the name of a field must stand here, in double quotes"),
	task("cut off", `{"task_id":"a"`, 400, "body", "it ends too early"),
	task("on the third line", "{\n\"task_id\": \"a\",\n  \"metadata\": {'k':1}}", 400, "body", "line 3, column 16"),
	task("a missing comma", `{"task_id":"a" `+cb+`}`, 400, "body", "a comma is missing here"),
	task("a missing colon", `{"task_id" "a"}`, 400, "body", "a colon must follow the name of a field"),
	task("two objects", ok+ok, 400, "body", "something follows the end of the object"),
	task("a comment", "{\"task_id\":\"a\", // mine\n"+cb+"}", 400, "body", "JSON has no comments"),
	task("Python's True", at+`"until":True}`, 400, "body", "a value must be a text in double quotes, a number, true, false"),
	task("a line end in a text", "{\"task_id\":\"a\nb\"}", 400, "body", `must be written \n`),
	task("a Windows path", `{"task_id":"C:\data"}`, 400, "body", `a backslash inside a text must be written \\`),
	task("a byte order mark", "\uFEFF"+ok, 400, "body", "byte order mark", "without one"),
	task("Latin-1", "{\"task_id\":\"caf\xe9\","+cb+"}", 400, "body", "not UTF-8", "encode it as UTF-8"),
	task("UTF-16", "\xff\xfe{\x00}\x00", 400, "body", "it is UTF-16; send UTF-8"),
	task("half a surrogate pair", `{"task_id":"\ud83d",`+cb+`}`, 400, "body", `\ud83d is half of a surrogate pair`),
	task("a field twice", `{"task_id":"a","task_id":"b",`+cb+`}`, 400, "body", "task_id is given twice"),
	task("too deep", strings.Repeat("[", 30), 400, "body", "deeper than 20 levels"),
	task("compressed without a word", gzipped(ok), 400, "body", "it is compressed (gzip); send it as it is"),
	task("too large", `{"task_id":"`+strings.Repeat("a", 1<<20)+`"}`, 413, "body", "larger than 1 MiB"),
	task("JSON in a text", `"{}"`, 422, "body", "must be an object, not a string"),
	task("null", `null`, 422, "body", "must be an object, not null"),
	task("a list", `[`+ok+`]`, 422, "body", "must be an object, not an array"),
}

var taskMistakes = []mistake{
	task("camel case", `{"taskId":"a",`+cb+`}`, 422, "taskId", "task_id is required", "did you mean task_id?"),
	task("a name from elsewhere", `{"task_id":"a","webhook_url":"https://customer.example/"}`, 422, "webhook_url", "callback_url is required", "did you mean callback_url?"),
	task("a word too long", at+`"meta_data":{}}`, 422, "meta_data", "did you mean metadata?"),
	task("a time in place of a duration", at+`"expires_at":"2026-01-01T00:00:00Z"}`, 422, "expires_at", "did you mean expires_in?"),
	task("an unknown field", at+`"colour":"red"}`, 422, "colour", "which takes callback_url, expected_videos, expires_in, metadata"),
	task("what memhook sets", at+`"status":"ready"}`, 422, "status", "is set by memhook", "leave it out"),
	task("a null id", `{"task_id":null,`+cb+`}`, 422, "task_id", "must be a string, not null"),
	task("a number for an id", `{"task_id":7,`+cb+`}`, 422, "task_id", `not the number 7: write "7"`),
	task("a list of ids", `{"task_id":["a","b"],`+cb+`}`, 422, "task_id", "must be a string, not an array"),
	task("an empty id", `{"task_id":"",`+cb+`}`, 422, "task_id", "must not be empty"),
	task("an id with a line end", `{"task_id":"a\n",`+cb+`}`, 422, "task_id", "1 to 256 printable characters, without line ends"),
	task("a long id", `{"task_id":"`+strings.Repeat("a", 257)+`",`+cb+`}`, 422, "task_id", "at most 256 characters"),
	task("seconds", at+`"expires_in":3600}`, 422, "expires_in", `a duration in quotes such as "24h", not the number 3600`),
	task("no unit", at+`"expires_in":"24"}`, 422, "expires_in", "with a unit, such as 90m or 24h"),
	task("days", at+`"expires_in":"1d"}`, 422, "expires_in", "a day is 24h"),
	task("ISO 8601", at+`"expires_in":"P1D"}`, 422, "expires_in", "such as 90m or 24h"),
	task("the past", at+`"expires_in":"-1h"}`, 422, "expires_in", "from 1s to 2160h"),
	task("a year", at+`"expires_in":"8760h"}`, 422, "expires_in", "from 1s to 2160h"),
	task("a number in metadata", at+`"metadata":{"order":42}}`, 422, "metadata.order", `must be a string, not the number 42: write "42"`),
	task("true in metadata", at+`"metadata":{"paid":true}}`, 422, "metadata.paid", `write "true"`),
	task("null in metadata", at+`"metadata":{"order":null}}`, 422, "metadata.order", "must be a string, not null"),
	task("an object in metadata", at+`"metadata":{"order":{"id":"42"}}}`, 422, "metadata.order", "must be a string, not an object"),
	task("metadata as a text", at+`"metadata":"{}"}`, 422, "metadata", "must be an object, not a string"),
	task("metadata as a list", at+`"metadata":["a"]}`, 422, "metadata", "must be an object, not an array"),
	task("metadata without a name", at+`"metadata":{"":"a"}}`, 422, "metadata", "must not have a member without a name"),
	task("long metadata", at+`"metadata":{"k":"`+strings.Repeat("v", 2049)+`"}}`, 422, "metadata.k", "at most 2048 bytes, not 2049"),
	task("no videos", at+`"expected_videos":0}`, 422, "expected_videos", "must be at least 1, not 0"),
	task("less than no videos", at+`"expected_videos":-1}`, 422, "expected_videos", "must be at least 1, not -1"),
	task("one and a half videos", at+`"expected_videos":1.5}`, 422, "expected_videos", "must be an integer, not the number 1.5"),
	task("a float", at+`"expected_videos":2.0}`, 422, "expected_videos", "without a decimal point", "not 2.0"),
	task("a number in quotes", at+`"expected_videos":"2"}`, 422, "expected_videos", "not a string: write it without quotes"),
	task("too many videos", at+`"expected_videos":10001}`, 422, "expected_videos", "must be at most 10000, not 10001"),
	task("until misspelt", at+`"until":"index"}`, 422, "until", `must be one of downloaded, indexed, not "index"; did you mean indexed?`),
	task("until in capitals", at+`"until":"Indexed"}`, 422, "until", "did you mean indexed?"),
	{name: "no registration", target: "POST /v1/tasks/batch", body: `{"tasks":[]}`, status: 422, field: "tasks", says: []string{"1 to 1000 registrations, not 0"}},
	{name: "too many registrations", target: "POST /v1/tasks/batch", body: `{"tasks":[{}` + strings.Repeat(",{}", 1000) + `]}`, status: 422, field: "tasks", says: []string{"not 1001"}},
	{name: "a bare batch", target: "POST /v1/tasks/batch", body: `[` + ok + `]`, status: 422, field: "body", says: []string{`must be an object: {"tasks":[…]}`}},
	{name: "one registration as a batch", target: "POST /v1/tasks/batch", body: ok, status: 422, field: "tasks", says: []string{"is required: an array of registrations"}},
	{name: "items", target: "POST /v1/tasks/batch", body: `{"items":[]}`, status: 422, field: "items", says: []string{"did you mean tasks?"}},
	{name: "a broken batch", target: "POST /v1/tasks/batch", body: `{"tasks":[`, status: 400, field: "body", says: []string{"it ends too early"}},
}

// callback is a mistake in a callback URL.
func callback(url, says string) mistake {
	return task(url, `{"task_id":"a","callback_url":"`+url+`"}`, 422, "callback_url", says)
}

var callbackMistakes = []mistake{
	task("no callback", `{"task_id":"a"}`, 422, "callback_url", "is required"),
	task("two callbacks", `{"task_id":"a","callback_url":["https://a.example/"]}`, 422, "callback_url", "must be a string, not an array"),
	callback("", "must begin with https:// and a host, such as https://example.com/hooks"),
	callback("customer.example/hooks", "must begin with https://"),
	callback("/hooks", "must begin with https://"),
	callback("http://customer.example/hooks", "must begin with https://; the operator can permit http:// with MEMHOOK_ALLOW_HTTP_CALLBACKS"),
	callback("ftp://customer.example/hooks", "must begin with https://"),
	callback("https:///hooks", "must have a host"),
	callback("https://user:secret@customer.example/", "must not contain a user name or password; an endpoint's headers can hold credentials"),
	callback("https://customer.example/#hooks", "must not contain a fragment"),
	callback("https://localhost/hooks", "127.0.0.1 is not a public address; the operator can permit its network with MEMHOOK_ALLOWED_CALLBACK_NETWORKS"),
	callback("https://10.0.0.7/hooks", "10.0.0.7 is not a public address"),
	callback("https://[::1]/hooks", "::1 is not a public address"),
	callback("https://2130706433/hooks", "an IP address must have its usual notation"),
	callback("https://customer.example:99999/", "a number from 1 to 65535 as its port"),
	callback("https://customer.example:port/", "a number from 1 to 65535 as its port"),
	callback(" https://customer.example/", "must not contain spaces"),
	callback("https://customer.example/100%", "two hexadecimal digits after each %"),
	callback("https://customer..example/", "must have a host name"),
	callback("https://customer.example/*", "must not end in /*, which is for the URL of an endpoint only"),
	callback("https://customer.example/"+strings.Repeat("a", 2048), "at most 2048 characters"),
}

// authorized is a mistake in the header Authorization, or in what stands in its place.
func authorized(name, target, value, says string, more ...string) mistake {
	return mistake{name: name, target: target, header: append([]string{"Authorization", value}, more...), status: 401, field: "Authorization", says: []string{says, "as Authorization: Bearer <"}}
}

var headerMistakes = []mistake{
	authorized("no key", "GET /v1/tasks", "", "is missing"),
	authorized("a key in another header", "GET /v1/tasks", "", "other headers and the URL are not searched", "X-Api-Key", testAPIKey),
	authorized("a key in the URL", "GET /v1/tasks?api_key="+testAPIKey, "", "other headers and the URL are not searched"),
	authorized("no Bearer", "GET /v1/tasks", testAPIKey, "must begin with Bearer and a space"),
	authorized("Bearer and a colon", "GET /v1/tasks", "Bearer: "+testAPIKey, "must begin with Bearer and a space"),
	authorized("Basic", "GET /v1/tasks", "Basic dGVzdDo=", "must begin with Bearer and a space"),
	authorized("Bearer twice", "GET /v1/tasks", "Bearer Bearer "+testAPIKey, "must have Bearer only once"),
	authorized("Bearer alone", "GET /v1/tasks", "Bearer", "must have the key after Bearer"),
	authorized("a key in quotes", "GET /v1/tasks", `Bearer "`+testAPIKey+`"`, "without quotes, brackets, spaces or line breaks"),
	authorized("a key in brackets", "GET /v1/tasks", "Bearer <"+testAPIKey+">", "without quotes, brackets, spaces or line breaks"),
	authorized("a variable", "GET /v1/tasks", "Bearer $MEMHOOK_API_KEY", "must have the key as it is"),
	authorized("a key with a line end", "GET /v1/tasks", "Bearer "+testAPIKey+`\n`, "line breaks"),
	authorized("a key of memories.ai", "GET /v1/tasks", "Bearer sk-mavi-test", "a key of memories.ai, not of memhook"),
	authorized("a signing secret", "GET /v1/tasks", "Bearer whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "a signing secret of webhooks"),
	authorized("an unknown key", "GET /v1/tasks", "Bearer mh_0123456789", "unknown or revoked"),
	authorized("the admin token", "GET /v1/tasks", "Bearer "+testAdminToken, "such as the admin token"),
	authorized("no admin token", "GET /admin/v1/stats", "", "is missing; send the admin token"),
	authorized("an app's key", "GET /admin/v1/stats", "Bearer mh_0123456789", "holds an app's API key, which is for /v1"),
	authorized("a wrong token", "GET /admin/v1/stats", "Bearer "+testAPIKey, "another token than the setting MEMHOOK_ADMIN_TOKEN"),
	{name: "a form", target: "POST /v1/tasks", body: "task_id=a", status: 415, field: "Content-Type", header: []string{"Content-Type", "application/x-www-form-urlencoded"}, says: []string{"must be application/json"}},
	{name: "plain text", target: "POST /v1/tasks", body: ok, status: 415, field: "Content-Type", header: []string{"Content-Type", "text/plain"}, says: []string{"text/plain is not supported"}},
	{name: "another charset", target: "POST /v1/tasks", body: ok, status: 415, field: "Content-Type", header: []string{"Content-Type", "application/json; charset=latin1"}, says: []string{"in UTF-8", "latin1 is not supported"}},
	{name: "gzip", target: "POST /v1/tasks", body: gzipped(ok), status: 415, field: "Content-Encoding", header: []string{"Content-Encoding", "gzip"}, says: []string{"without compression"}},
	{name: "a long Idempotency-Key", target: "POST /v1/tasks", body: ok, status: 422, field: "Idempotency-Key", header: []string{"Idempotency-Key", strings.Repeat("k", 256)}, says: []string{"at most 255 printable characters"}},
	{name: "an Idempotency-Key used before", target: "POST /v1/tasks", body: ok, status: 422, field: "Idempotency-Key", header: []string{"Idempotency-Key", "used"}, says: []string{"use a new key for each request"}},
}

// query is a mistake in a query.
func query(target, field string, says ...string) mistake {
	return mistake{name: target, target: "GET " + target, status: 422, field: field, says: says}
}

var queryMistakes = []mistake{
	query("/v1/tasks?statsu=ready", "statsu", "this operation takes limit, cursor, status, task_id, unique_id; did you mean status?"),
	query("/v1/tasks?state=ready", "state", "did you mean status?"),
	query("/v1/tasks?Status=ready", "Status", "did you mean status?"),
	query("/v1/tasks?status%5B%5D=ready", "status[]", "did you mean status?"),
	query("/v1/tasks?taskId=a", "taskId", "did you mean task_id?"),
	query("/v1/tasks?page=2", "page", "did you mean cursor?"),
	query("/v1/tasks?per_page=10", "per_page", "did you mean limit?"),
	query("/v1/tasks?sort=asc", "sort", "this operation takes limit, cursor"),
	query("/v1/events?page=2", "page", "did you mean cursor?"),
	query("/v1/events?starting_after=evt_ID", "starting_after", "did you mean after?"),
	query("/v1/events?types=task.ready", "types", "did you mean type?"),
	query("/v1/deliveries?endpoint=ID", "endpoint", "did you mean endpoint_id?"),
	query("/v1/deliveries?task_id=ID", "task_id", "did you mean task?"),
	query("/v1/search?query=abc", "query", "did you mean q?"),
	query("/v1/tasks/ID?verbose=1", "verbose", "takes no query parameters"),
	query("/v1/tasks?api_key="+testAPIKey, "api_key", "is unknown"),
	query("/v1/tasks?status=canceled", "status", `not "canceled"; did you mean cancelled?`),
	query("/v1/tasks?status=READY", "status", "did you mean ready?"),
	query("/v1/tasks?status=ready,failed", "status", "must be one of waiting, ready"),
	query("/v1/tasks?status=ready&status=failed", "status", "is given 2 times; give it once"),
	query("/v1/deliveries?status=sent", "status", "must be one of pending, delivered, failed, cancelled"),
	query("/v1/events?type=ready", "type", "did you mean task.ready?"),
	query("/v1/tasks?limit=0", "limit", "must be at least 1"),
	query("/v1/tasks?limit=501", "limit", "must be at most 500"),
	query("/v1/tasks?limit=-1", "limit", "must be at least 1"),
	query("/v1/tasks?limit=all", "limit", "must be an integer"),
	query("/v1/tasks?cursor=2", "cursor", "must be the next_cursor of a page of this list"),
	query("/v1/tasks?cursor=evt_ID", "cursor", "must be the next_cursor"),
	query("/v1/events?after=2026-01-01", "after", "must be the id of an event, such as evt_"),
	query("/v1/events?after=evt_ID&cursor=2", "cursor", "must be the next_cursor of a page of this list"),
	query("/v1/deliveries?task=evt_ID", "task", "must be an id (a UUID), not that of an event"),
	query("/v1/deliveries?endpoint_id=https://customer.example/", "endpoint_id", "must be an id (a UUID)"),
	query("/v1/tasks?task_id=%ff", "task_id", "UTF-8 text, percent-encoded"),
	query("/v1/tasks?task_id=%zz", "query", "% is written %25"),
	query("/v1/tasks?limit=5;status=ready", "query", "& separates parameters"),
	query("/v1/search?q=%20", "q", "at least 1 character"),
	query("/v1/search", "q", "is required"),
	{name: "a purge of perhaps", target: "DELETE /v1/tasks/ID?purge=maybe", status: 422, field: "purge", says: []string{"must be true or false"}},
}

// path is a request of a path that has no such operation, or of a thing that is not there.
func path(target string, status int, says ...string) mistake {
	return mistake{name: target, target: target, status: status, says: says}
}

var pathMistakes = []mistake{
	path("GET /v1/tasks/", 404, "did you mean /v1/tasks?"),
	path("GET /v1//tasks", 404, "did you mean /v1/tasks?"),
	path("GET /v1/task", 404, "did you mean /v1/tasks?"),
	path("GET /v1/delivery/ID", 404, "did you mean /v1/deliveries/01993c1e-6f3a-7cc0-9d4e-0a4ab7f3c1d2?"),
	path("POST /tasks", 404, "did you mean /v1/tasks?"),
	path("GET /api/v2/tasks", 404, "did you mean /v1/tasks?"),
	path("GET /V1/Tasks", 404, "did you mean /v1/tasks?"),
	path("GET /health", 404, "did you mean /healthz?"),
	path("GET /v1/webhooks", 404, "/docs/ lists all operations"),
	path("GET /v1", 404, "/docs/ lists all operations"),
	path("GET /admin/v1/task", 404, "did you mean /admin/v1/tasks?"),
	path("PUT /v1/tasks", 405, "does not accept the method PUT, only GET, HEAD, POST"),
	path("PATCH /v1/tasks/ID", 405, "only GET, HEAD, DELETE"),
	path("GET /v1/endpoints/ID/test", 405, "only POST"),
	path("GET /v1/deliveries/ID/resend", 405, "only POST"),
	path("GET /admin/v1/polling/pause", 405, "only POST"),
	path("POST /healthz", 405, "only GET, HEAD"),
	path("OPTIONS /v1/tasks", 405, "only GET, HEAD, POST"),
	path("GET /v1/tasks/ID", 404, "no task has this id: it never existed, has been deleted, or belongs to another app"),
	path("GET /v1/tasks/4b2d85ea_84f9", 404, "4b2d85ea_84f9 is not an id of memhook", "/tasks?task_id=4b2d85ea_84f9"),
	path("GET /v1/deliveries/evt_ID", 404, "is the id of an event", "/search?q=evt_"),
	path("GET /v1/endpoints/undefined", 404, "no endpoint has this id: undefined is not a UUID"),
	path("GET /v1/events/7", 404, "7 is not evt_ followed by a UUID"),
	path("GET /admin/v1/tasks/ID", 404, "no task has this id: it never existed or has been deleted"),
}

// posted is a mistake in the body of another request than a registration.
func posted(name, target, body string, status int, field string, says ...string) mistake {
	return mistake{name: name, target: target, body: body, status: status, field: field, says: says}
}

func endpointWith(rest string) string { return `{"url":"https://customer.example/new",` + rest + `}` }

var endpointMistakes = []mistake{
	posted("an endpoint's callback_url", "POST /v1/endpoints", `{"callback_url":"https://customer.example/"}`, 422, "callback_url", "url is required", "did you mean url?"),
	posted("an endpoint with a query", "POST /v1/endpoints", `{"url":"https://customer.example/?a=b"}`, 422, "url", "must not have a query"),
	posted("an endpoint that exists", "POST /v1/endpoints", `{"url":"https://customer.example/taken"}`, 409, "", "has this URL; change that one with PATCH"),
	posted("an unknown event type", "POST /v1/endpoints", endpointWith(`"event_types":["task.done"]`), 422, "event_types[0]", "must be one of task.ready", "leave event_types out for all"),
	posted("all event types", "POST /v1/endpoints", endpointWith(`"event_types":["*"]`), 422, "event_types[0]", "leave event_types out for all"),
	posted("one event type", "POST /v1/endpoints", endpointWith(`"event_types":"task.ready"`), 422, "event_types", "must be an array, not a string: put it between [ and ]"),
	posted("Stripe's name", "POST /v1/endpoints", endpointWith(`"enabled_events":["task.ready"]`), 422, "enabled_events", "did you mean event_types?"),
	posted("a rate in quotes", "POST /v1/endpoints", endpointWith(`"rate_limit":"10"`), 422, "rate_limit", "must be a number, not a string: write it without quotes"),
	posted("a rate below nothing", "POST /v1/endpoints", endpointWith(`"rate_limit":-1`), 422, "rate_limit", "must be at least 0, not -1"),
	posted("a rate of next to nothing", "POST /v1/endpoints", endpointWith(`"rate_limit":0.001`), 422, "rate_limit", "at least 0.01 deliveries per second, or 0 for no limit"),
	posted("no signatures", "POST /v1/endpoints", endpointWith(`"signatures":[]`), 422, "signatures", `must be ["v1"] or ["v1","v1a"]; leave it out for ["v1"]`),
	posted("v1a alone", "POST /v1/endpoints", endpointWith(`"signatures":["v1a"]`), 422, "signatures", `must be ["v1"] or ["v1","v1a"]`),
	posted("Host", "POST /v1/endpoints", endpointWith(`"headers":{"Host":"x"}`), 422, "headers.Host", "is set by memhook and cannot be changed; leave it out"),
	posted("Content-Length", "POST /v1/endpoints", endpointWith(`"headers":{"Content-Length":"7"}`), 422, "headers.Content-Length", "is set by memhook"),
	posted("webhook-id", "POST /v1/endpoints", endpointWith(`"headers":{"Webhook-Id":"x"}`), 422, "headers.Webhook-Id", "is set by memhook"),
	posted("a colon in a header", "POST /v1/endpoints", endpointWith(`"headers":{"X-A:":"x"}`), 422, "headers.X-A:", "must be the name of an HTTP header", "without colon"),
	posted("a line end in a header", "POST /v1/endpoints", endpointWith(`"headers":{"X-A":"a\r\nb"}`), 422, "headers.X-A", "printable ASCII characters, without line ends"),
	posted("a list of headers", "POST /v1/endpoints", endpointWith(`"headers":[{"name":"X-A","value":"b"}]`), 422, "headers", "must be an object, not an array"),
	posted("a masked value", "POST /v1/endpoints", endpointWith(`"headers":{"X-A":"***"}`), 422, "headers.X-A", "needs a value: *** stands for the stored one"),
	posted("a password as a secret", "POST /v1/endpoints", endpointWith(`"secret":"hunter2"`), 422, "secret", "must be whsec_ followed by base64 of 24 to 64 bytes"),
	posted("enabled in quotes", "POST /v1/endpoints", endpointWith(`"enabled":"true"`), 422, "enabled", "must be true or false, not a string: write it without quotes"),
	posted("PATCH of nothing", "PATCH /v1/endpoints/ENDPOINT", "", 400, "body", "is missing; send a JSON object"),
	posted("PATCH of a field that memhook sets", "PATCH /v1/endpoints/ENDPOINT", `{"breaker":"closed"}`, 422, "breaker", "is set by memhook and cannot be changed here; leave it out"),
	posted("PATCH of the id", "PATCH /v1/endpoints/ENDPOINT", `{"id":"x"}`, 422, "id", "is set by memhook"),
	posted("PATCH of a header that is not there", "PATCH /v1/endpoints/ENDPOINT", `{"headers":{"X-A":"***"}}`, 422, "headers.X-A", "none is stored"),
	posted("a rotation in hours", "POST /v1/endpoints/ENDPOINT/secret/rotate", `{"overlap":24}`, 422, "overlap", `a duration in quotes such as "24h", not the number 24`),
	posted("a rotation in days", "POST /v1/endpoints/ENDPOINT/secret/rotate", `{"overlap":"1d"}`, 422, "overlap", "from 0s to 720h", "a day is 24h"),
	posted("a recovery since ever", "POST /v1/endpoints/ENDPOINT/recover", `{}`, 422, "since", "is required"),
	posted("a date", "POST /v1/endpoints/ENDPOINT/recover", `{"since":"2026-01-01"}`, 422, "since", "such as 2026-01-02T15:04:05Z"),
	posted("a time without a zone", "POST /v1/endpoints/ENDPOINT/recover", `{"since":"2026-01-01T00:00:00"}`, 422, "since", "with Z or an offset such as +02:00"),
	posted("Unix time", "POST /v1/endpoints/ENDPOINT/recover", `{"since":1767225600}`, 422, "since", "in quotes", "not the number 1767225600"),
	posted("the future", "POST /v1/endpoints/ENDPOINT/recover", `{"since":"2126-01-01T00:00:00Z"}`, 422, "since", "must not be in the future"),
	posted("a resend of the future", "POST /v1/deliveries/resend", `{"since":"2126-01-01T00:00:00Z"}`, 422, "since", "must not be in the future"),
	posted("a resend misspelt", "POST /v1/deliveries/resend", `{"status":"faild"}`, 422, "status", "did you mean failed?"),
	posted("a resend of ids", "POST /v1/deliveries/resend", `{"ids":["ID"]}`, 422, "ids", "which takes dry_run, endpoint_id"),
	posted("an upload of one URL", "POST /v1/uploads", `{"url":"https://a.example/v",`+cb+`}`, 422, "url", "did you mean urls?"),
	posted("an upload as a text", "POST /v1/uploads", `{"urls":"https://a.example/v",`+cb+`}`, 422, "urls", "must be an array, not a string: put it between [ and ]"),
	posted("an upload of the other API", "POST /v1/uploads", `{"source_url":"https://a.example/v",`+cb+`}`, 422, "source_url", "the account is of the API v1; pass urls"),
}

var adminMistakes = []mistake{
	posted("an account without a key", "POST /admin/v1/accounts", `{"name":"x"}`, 422, "api_key", "is required"),
	posted("a key with a line end", "POST /admin/v1/accounts", `{"name":"x","api_key":"sk-mavi-1\n"}`, 422, "api_key", "without spaces or line breaks"),
	posted("a budget of nothing", "POST /admin/v1/accounts", `{"name":"x","api_key":"k","requests_per_second":0}`, 422, "requests_per_second", "at least 0.01, not 0"),
	posted("an account to be paused", "PATCH /admin/v1/accounts/ACCOUNT", `{"state":"paused"}`, 422, "state", "can only be set to active", "/admin/v1/polling/pause pauses all"),
	posted("an account's id", "PATCH /admin/v1/accounts/ACCOUNT", `{"id":"x"}`, 422, "id", "is set by memhook"),
	posted("a name that is taken", "POST /admin/v1/accounts", `{"name":"taken","api_key":"k"}`, 409, "", `another account has the name "taken"; choose another name`),
	posted("a key that is taken", "POST /admin/v1/accounts", `{"name":"x","api_key":"sk-mavi-taken"}`, 409, "", `the account "taken" has this API key`),
	posted("an app by an account's name", "POST /admin/v1/apps", `{"name":"x","account_id":"taken"}`, 422, "account_id", "must be an id (a UUID)"),
	posted("an app of no account", "POST /admin/v1/apps", `{"name":"x","account_id":"01993c1e-6f3a-7cc0-9d4e-0a4ab7f3c1d2"}`, 404, "account_id", "refers to no existing account"),
	query("/admin/v1/tasks?app_id=default", "app_id", "must be an app's id (a UUID), which GET /admin/v1/apps lists"),
	query("/admin/v1/tasks?app=ID", "app", "did you mean app_id?"),
}
