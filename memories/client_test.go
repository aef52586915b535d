package memories_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
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
			if q := asked.URL.Query(); asked.Header.Get("Authorization") != "sk-mavi-1" || q.Get("task_id") != seedTask || q.Get("unique_id") != "1" || asked.URL.Path != "/serve/api/v1/get_video_ids_by_task_id" {
				t.Errorf("asked %s with %v", asked.URL, asked.Header)
			}
		})
	}
}

func TestTaskStatusSurvivesTheSimulatorsFaults(t *testing.T) {
	t.Parallel()
	cases := map[string]memories.Outcome{
		memoriestest.FaultRateLimited: memories.RateLimited, memoriestest.FaultRateLimitedInt: memories.RateLimited, memoriestest.FaultHTTP429: memories.RateLimited,
		memoriestest.FaultHTML: memories.Unavailable, memoriestest.FaultHTML200: memories.Malformed, memoriestest.FaultSpring: memories.Unavailable,
		memoriestest.FaultCut: memories.Unavailable, memoriestest.FaultTruncated: memories.Malformed, memoriestest.FaultForeign: memories.ForeignTask,
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

func FuzzTaskStatus(f *testing.F) {
	for _, s := range []string{seed, `{"code":"0429"}`, `{"code":200,"data":{"videos":[{"video_no":1}]}}`, `{"code":"0000","data":null}`, "\xff", "<html>"} {
		f.Add(200, []byte(s))
	}
	var body []byte
	var status int
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}))
	f.Cleanup(server.Close)
	client := memories.New(server.URL, 1, "memhook/test")
	f.Fuzz(func(t *testing.T, code int, answer []byte) {
		status, body = 200+(code&0x7fffffff)%400, answer
		if status == 204 || status == 304 {
			return // they have no body
		}
		got := client.TaskStatus(t.Context(), memories.Account{Key: "key"}, seedTask, "default")
		if got.Outcome != memories.Listed && len(got.Videos) > 0 {
			t.Errorf("%s with videos %v", got.Outcome, got.Videos)
		}
		seen := make(map[string]bool)
		for _, v := range got.Videos {
			if v.ID == "" || seen[v.ID] || strings.ContainsRune(v.ID, 0) {
				t.Errorf("id %q", v.ID)
			}
			seen[v.ID] = true
		}
		if len(got.Message) > 600 || strings.ContainsRune(got.Message, 0) {
			t.Errorf("message %q", got.Message)
		}
	})
}

// A request that got no answer is not sent again by the HTTP client on its own: the budget has one slot for it.
// (Go's transport sends a GET again where a connection that was used before breaks.)
func TestOneCallIsOneRequest(t *testing.T) {
	t.Parallel()
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1)%2 == 0 {
			panic(http.ErrAbortHandler) // the connection ends without a byte
		}
		if body, err := io.ReadAll(r.Body); err != nil || len(body) > 0 || r.ContentLength > 0 || len(r.TransferEncoding) > 0 {
			t.Errorf("the request has a body: %q %v %d %v", body, err, r.ContentLength, r.TransferEncoding)
		}
		_, _ = io.WriteString(w, `{"code":"0000","data":{"taskId":"a","video_ids":[]}}`)
	}))
	t.Cleanup(server.Close)
	client := memories.New(server.URL, 10, "memhook/test")
	t.Cleanup(client.Close)
	for call := range 10 {
		status := client.TaskStatus(t.Context(), memories.Account{Key: "key"}, "a", "default")
		want := memories.Listed
		if call%2 == 1 {
			want = memories.Unavailable
		}
		if status.Outcome != want {
			t.Errorf("call %d: %s %s", call, status.Outcome, status.Message)
		}
	}
	if n := requests.Load(); n != 10 {
		t.Errorf("10 calls were %d requests", n)
	}
}
