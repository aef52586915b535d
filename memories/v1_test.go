package memories_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/memories/memoriestest"
)

const seedTask = "4b2d85ea-8b61-4689-96c3-75d907140242_84f9d9b4b6e5940b67e67e2d17ef1f97"

// seed is the example of memories.ai's documentation, byte for byte.
const seed = `{
"code": "0000",
"msg": "success",
"data": {
"taskId": "4b2d85ea-8b61-4689-96c3-75d907140242_84f9d9b4b6e5940b67e67e2d17ef1f97",
"video_ids": [
"PI-603068775285264430",
"PI-603068775285264431"
]
},
"failed": false,
"success": true
}`

// Every row goes over real HTTP.
func TestTaskStatusClassifies(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		status int
		body   string
		want   memories.Outcome
		videos string // id or id=status, separated by spaces
	}{
		{"the documented example", 200, seed, memories.Listed, "PI-603068775285264430 PI-603068775285264431"},
		{"an empty list", 200, `{"code":"0000","msg":"success","data":{"taskId":"` + seedTask + `","video_ids":[]},"failed":false,"success":true}`, memories.Listed, ""},
		{"data is null", 200, `{"code":"0000","data":null}`, memories.Listed, ""},
		{"data is empty", 200, `{"code":"0000","data":{}}`, memories.Listed, ""},
		{"the videos shape", 200, `{"code":"0000","data":{"videos":[{"video_no":"VI606404158946574336","status":"PARSE","duration":"12","cause":"null"},{"video_no":"VI2","status":"FAIL"}]}}`, memories.Listed, "VI606404158946574336=PARSE VI2=FAILED"},
		{"both shapes, union in order", 200, `{"code":"0000","data":{"video_ids":["a","b"],"videos":[{"video_no":"b","status":"UNPARSE"},{"video_no":"c"}]}}`, memories.Listed, "a b=UNPARSE c"},
		{"numbers for strings", 200, `{"code":200,"msg":"ok","data":{"taskId":"` + seedTask + `","video_ids":[603068775285264430]}}`, memories.Listed, "603068775285264430"},
		{"a video without a number yet", 200, `{"code":"0000","data":{"videos":[{"video_no":null,"status":"UNPARSE"}]}}`, memories.Listed, ""},
		{"data is an empty text", 200, `{"code":"0000","data":""}`, memories.Listed, ""},
		{"every word of failure", 200, `{"code":"0000","data":{"videos":[{"video_no":"1","status":"PARSE_ERROR"},{"video_no":"2","status":"ERROR"},{"video_no":"3","status":"FAIL"},{"video_no":"4","status":"FAILED"},{"video_no":"5","status":"failed"}]}}`, memories.Listed, "1=FAILED 2=FAILED 3=FAILED 4=FAILED 5=FAILED"},
		{"a word that nobody knows", 200, `{"code":"0000","data":{"videos":[{"video_no":"1","status":"TRANSCODING"},{"video_no":"2","status":{"word":1}},{"video_no":"3","status":"null"}]}}`, memories.Listed, "1=TRANSCODING 2 3"},
		{"an endless word", 200, `{"code":"0000","data":{"videos":[{"video_no":"1","status":"` + strings.Repeat("W", 300) + `"}]}}`, memories.Listed, "1=" + strings.Repeat("W", 64)},
		{"a byte order mark", 200, "\ufeff" + seed, memories.Listed, "PI-603068775285264430 PI-603068775285264431"},
		{"a limit with data that is no object", 200, `{"code":"0429","msg":"limit","data":"x"}`, memories.RateLimited, ""},
		{"a firewall's page", 403, `<html>`, memories.Blocked, ""},
		{"403 by Spring", 403, `{"timestamp":"t","path":"/","status":403,"error":"Forbidden"}`, memories.Blocked, ""},
		{"403 by the service", 403, `{"code":"0403","msg":"deactivated"}`, memories.AccountRefused, ""},
		{"a path that is not served", 404, `{"timestamp":"t","path":"/","status":404,"message":"No static resource serve/api/v1/x."}`, memories.Unavailable, ""},
		{"a redirect", 302, ``, memories.Blocked, ""},
		{"HTTP 402", 402, ``, memories.OutOfCredits, ""},
		{"0001", 200, `{"code":"0001","msg":"invalid"}`, memories.TaskRefused, ""},
		{"0003", 200, `{"code":"0003","msg":"missing"}`, memories.TaskRefused, ""},
		{"0409", 200, `{"code":"0409","msg":"repeated"}`, memories.TaskRefused, ""},
		{"0401", 200, `{"code":"0401","msg":"key"}`, memories.AccountRefused, ""},
		{"0403", 200, `{"code":"0403","msg":"deactivated"}`, memories.AccountRefused, ""},
		{"9009", 200, `{"code":"9009","msg":"permission"}`, memories.AccountRefused, ""},
		{"0402", 200, `{"code":"0402","msg":"credits"}`, memories.OutOfCredits, ""},
		{"0429", 200, `{"code":"0429","msg":"Request has exceeded the limit."}`, memories.RateLimited, ""},
		{"429 as a number", 200, `{"code":429}`, memories.RateLimited, ""},
		{"HTTP 429", 429, ``, memories.RateLimited, ""},
		{"HTTP 401", 401, `{"error":"x"}`, memories.AccountRefused, ""},
		{"HTTP 404 by Spring", 404, `{"timestamp":"t","path":"/","status":404,"error":"Not Found","requestId":"1"}`, memories.Unavailable, ""},
		{"HTTP 502 with a page", 502, `<html>`, memories.Unavailable, ""},
		{"a page with 200", 200, `<html>`, memories.Malformed, ""},
		{"nothing", 200, ``, memories.Malformed, ""},
		{"a bare list", 200, `[]`, memories.Malformed, ""},
		{"an unknown code", 200, `{"code":"7777"}`, memories.Malformed, ""},
		{"success and failure", 200, `{"code":"0000","success":false}`, memories.Malformed, ""},
		{"truncated", 200, seed[:150], memories.Malformed, ""},
		{"invalid UTF-8", 200, "{\"code\":\"0000\",\"data\":{\"video_ids\":[\"\xff\"]}}", memories.Malformed, ""},
		{"NUL in an id", 200, `{"code":"0000","data":{"video_ids":["a\u0000b"]}}`, memories.Malformed, ""},
		{"an endless id", 200, `{"code":"0000","data":{"video_ids":["` + strings.Repeat("x", 300) + `"]}}`, memories.Malformed, ""},
		{"another task's answer", 200, `{"code":"0000","data":{"taskId":"another","video_ids":["PI-1"]}}`, memories.ForeignTask, ""},
		{"10 MB", 200, `{"code":"0000","msg":"` + strings.Repeat("x", 10<<20) + `"}`, memories.Malformed, ""},
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
			got := client.TaskStatus(t.Context(), memories.Account{Key: "sk-mavi-1"}, seedTask, "1")
			var list []string
			for _, v := range got.Videos {
				if v.Status != "" {
					v.ID += "=" + v.Status
				}
				list = append(list, v.ID)
			}
			if got.Outcome != c.want || strings.Join(list, " ") != c.videos {
				t.Errorf("got %s %q (%s), want %s %q", got.Outcome, list, got.Message, c.want, c.videos)
			}
			if got.Outcome != memories.Listed && got.Message == "" {
				t.Error("no message")
			}
			if c.status != 200 && !strings.HasPrefix(c.body, `{"code"`) && !strings.Contains(got.Message, fmt.Sprintf("HTTP %d %s", c.status, http.StatusText(c.status))) {
				t.Errorf("the message hides the status: %q", got.Message)
			}
			if asked.Header.Get("Accept") != "application/json" || asked.UserAgent() != "memhook/test" {
				t.Errorf("asked with %v", asked.Header)
			}
			if q := asked.URL.Query(); asked.Header.Get("Authorization") != "sk-mavi-1" || q.Get("task_id") != seedTask || q.Get("unique_id") != "1" || asked.URL.Path != "/serve/api/v1/get_video_ids_by_task_id" {
				t.Errorf("asked %s with %v", asked.URL, asked.Header)
			}
		})
	}
}

// The answer of clients that were written against the live service.
func TestTaskStatusTellsTheDetailsOfVideos(t *testing.T) {
	t.Parallel()
	const long = 600
	server := serve(t, 200, `{"code":"0000","data":{"video_ids":["VI4","VI1"],"videos":[
		{"video_no":"VI1","status":"PARSE","video_name":"A name","video_url":"https://example.com/1?a=b","duration":"12","cause":"null","create_time":"1","resolution_label":"720p"},
		{"video_no":"VI2","status":"PARSE_ERROR","video_name":"null","video_url":"null","duration":12.5,"cause":"no audio"},
		{"video_no":"VI3","status":"PARSE_ERROR","video_name":{"a":1},"video_url":["x"],"duration":"a while","cause":"null"},
		{"video_no":"VI4","status":"FAIL","video_name":"`+strings.Repeat("é", long)+`","video_url":"https://`+strings.Repeat("x", 3000)+`","duration":"-1","cause":"a\u0000\nb"},
		{"video_no":"VI5","status":"ERROR","video_url":"https://a\u0000b","duration":"1e300"},
		{"video_no":"VI6","duration":"Infinity"},
		{"video_no":"VI1","video_name":"Another name"},null]}}`)
	client := memories.New(server.URL, 1, "memhook/test")
	defer client.Close()
	got := client.TaskStatus(t.Context(), memories.Account{Key: "k"}, "t", "default")
	want := []memories.Video{
		{ID: "VI4", Status: "FAILED", Cause: "a  b", Name: strings.Repeat("é", 250)},
		{ID: "VI1", Status: "PARSE", Name: "A name", URL: "https://example.com/1?a=b", Duration: new(12.0)},
		{ID: "VI2", Status: "FAILED", Cause: "no audio", Duration: new(12.5)},
		{ID: "VI3", Status: "FAILED", Cause: "PARSE_ERROR"},
		{ID: "VI5", Status: "FAILED", Cause: "ERROR"},
		{ID: "VI6"},
	}
	if got.Outcome != memories.Listed || !reflect.DeepEqual(got.Videos, want) {
		t.Errorf("got %s (%s)\n%+v, want\n%+v", got.Outcome, got.Message, got.Videos, want)
	}
}

func TestRetryAfterIsBounded(t *testing.T) {
	t.Parallel()
	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	for header, want := range map[string][2]time.Duration{
		"": {0, 0}, "0": {0, 0}, "-5": {0, 0}, "soon": {0, 0}, "NaN": {0, 0}, "7": {7 * time.Second, 7 * time.Second}, "1.5": {1500 * time.Millisecond, 1500 * time.Millisecond},
		"86400": {5 * time.Minute, 5 * time.Minute}, "99999999999999999999": {5 * time.Minute, 5 * time.Minute}, "Inf": {5 * time.Minute, 5 * time.Minute},
		strings.Repeat("9", 400): {5 * time.Minute, 5 * time.Minute}, "-" + strings.Repeat("9", 400): {0, 0},
		"Fri, 31 Dec 9999 23:59:59 GMT": {5 * time.Minute, 5 * time.Minute}, "Mon, 02 Jan 2006 15:04:05 GMT": {0, 0}, in(time.Minute): {50 * time.Second, time.Minute},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", header)
			w.WriteHeader(http.StatusTooManyRequests)
		}))
		client := memories.New(server.URL, 1, "memhook/test")
		got := client.TaskStatus(t.Context(), memories.Account{Key: "k"}, "t", "default")
		if got.Outcome != memories.RateLimited || got.RetryAfter < want[0] || got.RetryAfter > want[1] {
			t.Errorf("%q: %s %s, want %s", header, got.Outcome, got.RetryAfter, want)
		}
		client.Close()
		server.Close()
	}
}

// The status of a refusal counts even where its body breaks off.
func TestARefusalThatBreaksOffIsARefusal(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]memories.Outcome{200: memories.Unavailable, 401: memories.AccountRefused, 403: memories.Blocked, 429: memories.RateLimited, 503: memories.Unavailable} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"code":`)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}))
		client := memories.New(server.URL, 1, "memhook/test")
		for _, account := range []memories.Account{{Key: "sk-mavi-1"}, {Key: "sk-mai-1"}} {
			if got := client.TaskStatus(t.Context(), account, "t", "default"); got.Outcome != want || got.HTTPStatus != status || !strings.HasSuffix(got.Message, "; the connection was closed in the middle of the answer") {
				t.Errorf("%d: %s %d %s, want %s", status, got.Outcome, got.HTTPStatus, got.Message, want)
			}
		}
		client.Close()
		server.Close()
	}
}

// serve answers everything with one status and body.
func serve(t *testing.T, status int, body string) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return server
}

func TestTaskStatusSurvivesTheSimulatorsFaults(t *testing.T) {
	t.Parallel()
	cases := map[string]memories.Outcome{
		memoriestest.FaultRateLimited: memories.RateLimited, memoriestest.FaultRateLimitedInt: memories.RateLimited, memoriestest.FaultHTTP429: memories.RateLimited,
		memoriestest.FaultHTML: memories.Unavailable, memoriestest.FaultHTML200: memories.Malformed, memoriestest.FaultSpring: memories.Unavailable,
		memoriestest.FaultCut: memories.Unavailable, memoriestest.FaultTruncated: memories.Malformed, memoriestest.FaultForeign: memories.ForeignTask,
		memoriestest.FaultFirewall: memories.Blocked, memoriestest.FaultRedirect: memories.Blocked, memoriestest.FaultNotReady: memories.Listed, memoriestest.FaultNotFound: memories.Unavailable,
		memoriestest.FaultHuge: memories.Malformed, memoriestest.FaultNotUTF8: memories.Malformed, memoriestest.FaultHang: memories.Unavailable,
	}
	for kind, want := range cases {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			sim := memoriestest.New(memoriestest.Config{})
			sim.Add(memoriestest.Task{TaskID: "t", Faults: []memoriestest.Fault{{Kind: kind}}})
			server := httptest.NewServer(sim)
			defer server.Close()
			client := memories.New(server.URL, 1, "memhook/test")
			start := time.Now()
			got := client.TaskStatus(t.Context(), memories.Account{Key: "key"}, "t", "default")
			if got.Outcome != want || len(got.Videos) != 0 {
				t.Errorf("got %s %v (%s), want %s", got.Outcome, got.Videos, got.Message, want)
			}
			if took := time.Since(start); took > memories.Timeout+2*time.Second {
				t.Errorf("took %s", took)
			}
			if kind == memoriestest.FaultHTTP429 && got.RetryAfter != time.Second {
				t.Errorf("Retry-After %s", got.RetryAfter)
			}
			if next := client.TaskStatus(t.Context(), memories.Account{Key: "key"}, "t", "default"); next.Outcome != memories.Listed {
				t.Errorf("afterwards %s (%s)", next.Outcome, next.Message)
			}
		})
	}
}

// The simulator must notice who exceeds the limit, or the budget's tests could not fail.
func TestSimulatorEnforcesTheLimit(t *testing.T) {
	t.Parallel()
	sim := memoriestest.New(memoriestest.Config{RequestsPerSecond: 2})
	server := httptest.NewServer(sim)
	defer server.Close()
	client := memories.New(server.URL, 1, "memhook/test")
	limited := 0
	for range 6 {
		if client.TaskStatus(t.Context(), memories.Account{Key: "key"}, "t", "default").Outcome == memories.RateLimited {
			limited++
		}
	}
	if st := sim.Stats(); limited != 3 || st.Violations != 3 || st.MaxPerWindow != 6 {
		t.Errorf("%d limited, %+v; want 3 of 6 (2 and a burst of 1 pass)", limited, st)
	}
}
