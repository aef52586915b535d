package memories_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/memories/memoriestest"
)

var (
	links = memories.Submission{URLs: []string{"https://example.com/1", "https://example.com/2"}, CallbackURL: "https://memhook.example/v1/hints/x"}
	video = memories.Submission{SourceURL: "https://example.com/1.mp4", CollectionID: "col_1", IdempotencyKey: "key-1"}
)

// Every row goes over real HTTP.
func TestSubmissionsAreClassified(t *testing.T) {
	t.Parallel()
	mavi := memories.Account{Key: "sk-mavi-1"}
	cases := []struct {
		name    string
		account memories.Account
		status  int
		body    string
		want    memories.Outcome
		task    string
	}{
		{"v1 accepted", mavi, 200, `{"code":"0000","msg":"success","data":{"taskId":"t_1"},"failed":false,"success":true}`, memories.Accepted, "t_1"},
		{"v1 accepted, the other spelling", mavi, 200, `{"code":200,"data":{"task_id":"t_1"}}`, memories.Accepted, "t_1"},
		{"v1 names no task", mavi, 200, `{"code":"0000","data":null}`, memories.Unknown, ""},
		{"v1 names an impossible task", mavi, 200, `{"code":"0000","data":{"taskId":"a\u0000b"}}`, memories.Unknown, ""},
		{"v1 0001", mavi, 200, `{"code":"0001","msg":"invalid"}`, memories.TaskRefused, ""},
		{"v1 0401", mavi, 200, `{"code":"0401","msg":"key"}`, memories.AccountRefused, ""},
		{"v1 0402", mavi, 200, `{"code":"0402","msg":"credits"}`, memories.OutOfCredits, ""},
		{"v1 0409", mavi, 200, `{"code":"0409","msg":"repeated"}`, memories.TaskRefused, ""},
		{"v1 0429", mavi, 200, `{"code":"0429","msg":"limit"}`, memories.RateLimited, ""},
		{"v1 another code", mavi, 200, `{"code":"7777"}`, memories.Unknown, ""},
		{"v1 a page", mavi, 200, `<html>`, memories.Unknown, ""},
		{"v1 a firewall", mavi, 403, `<html>`, memories.Blocked, ""},
		{"v1 404 by Spring", mavi, 404, `{"timestamp":"t","status":404,"error":"Not Found"}`, memories.TaskRefused, ""},
		{"v1 413 with a page", mavi, 413, `<html>`, memories.TaskRefused, ""},
		{"v1 502", mavi, 502, `<html>`, memories.Unknown, ""},
		{"v1 408", mavi, 408, ``, memories.Unknown, ""},
		{"v1 a redirect", mavi, 307, ``, memories.Blocked, ""},
		{"accepted", lake, 202, `{"video_id":"vid_1","operation":"op_1","status":"processing"}`, memories.Accepted, "op_1"},
		{"accepted with 200", lake, 200, `{"video_id":"vid_1","operation":"operations/op_1","status":"processing","x":[]}`, memories.Accepted, "op_1"},
		{"names no operation", lake, 202, `{"video_id":"vid_1"}`, memories.Unknown, ""},
		{"a page", lake, 200, `<html>`, memories.Unknown, ""},
		{"400", lake, 400, `{"error":{"code":"invalid","message":"x"}}`, memories.TaskRefused, ""},
		{"400 deprecated", lake, 400, `{"error":{"code":"invalid","message":"deprecated"}}`, memories.TaskRefused, ""},
		{"401", lake, 401, `{"error":{"code":"unauthorized","message":"x"}}`, memories.AccountRefused, ""},
		{"401 that asks for Bearer", lake, 401, `{"error":{"code":"unauthorized","message":"Bearer"}}`, memories.AskAgain, ""},
		{"402", lake, 402, `{"error":{"code":"balance","message":"x"}}`, memories.OutOfCredits, ""},
		{"409 not ready", lake, 409, `{"error":{"code":"video_not_ready","message":"x"}}`, memories.TaskRefused, ""},
		{"429", lake, 429, `{"error":{"code":"rate","message":"x","retry_after":3}}`, memories.RateLimited, ""},
		{"503", lake, 503, `{"error":{"code":"unavailable","message":"x"}}`, memories.Unknown, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var asked *http.Request
			var sent map[string]any
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = r
				_ = json.NewDecoder(r.Body).Decode(&sent)
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			defer server.Close()
			client := memories.New(server.URL, 1, "memhook/test")
			defer client.Close()
			submission, path := links, "/serve/api/v1/scraper_url"
			want := map[string]any{"video_urls": []any{links.URLs[0], links.URLs[1]}, "callback_url": links.CallbackURL}
			if memories.APIOf(c.account.Key) == memories.Datalake {
				submission, path = video, "/serve/datalake/v1/videos"
				want = map[string]any{"collection_id": "col_1", "source_url": video.SourceURL, "idempotency_key": "key-1"}
			}
			got := client.Submit(t.Context(), c.account, submission)
			if got.Outcome != c.want || got.TaskID != c.task || (c.task == "" && got.Message == "") || got.HTTPStatus != c.status {
				t.Errorf("got %+v, want %s %q", got, c.want, c.task)
			}
			if asked.Method != http.MethodPost || asked.URL.Path != path || asked.Header.Get("Authorization") != c.account.Key || asked.UserAgent() != "memhook/test" ||
				asked.Header.Get("Accept") != "application/json" || asked.Header.Get("Content-Type") != "application/json" || asked.ContentLength <= 0 || !reflect.DeepEqual(sent, want) {
				t.Errorf("sent %v with %s %s %v", sent, asked.Method, asked.URL, asked.Header)
			}
		})
	}
}

// A submission is made once, whatever becomes of its connection, and the receipt says whether it may have
// been taken.
func TestASubmissionIsMadeOnce(t *testing.T) {
	t.Parallel()
	for _, sub := range []struct {
		memories.Account
		memories.Submission
	}{{memories.Account{Key: "sk-mavi-1"}, links}, {lake, video}} {
		peer := newPeer(t)
		client := memories.New(peer.url, 10, "memhook/test")
		defer client.Close()
		peer.then = []string{answered, cutAfter, cutBefore, halfAnswer}
		for range peer.then {
			if got := client.Submit(t.Context(), sub.Account, sub.Submission); got.Outcome != memories.Unknown {
				t.Errorf("%+v", got)
			}
		}
		if requests, conns := peer.seen(); len(requests) != 3 || conns != 4 {
			t.Errorf("4 submissions were %d requests on %d connections", len(requests), conns)
		}
		alone := memories.New(nobody, 10, "memhook/test")
		defer alone.Close()
		if got := alone.Submit(t.Context(), sub.Account, sub.Submission); got.Outcome != memories.NotSent || got.Message == "" {
			t.Errorf("with nobody there: %+v", got)
		}
	}
	// A peer that is reached and speaks no TLS was not sent anything.
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	go func() {
		for {
			conn, err := plain.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "hello\r\n")
			conn.Close()
		}
	}()
	client := memories.New("https://"+plain.Addr().String(), 1, "memhook/test")
	defer client.Close()
	if got := client.Submit(t.Context(), lake, video); got.Outcome != memories.NotSent {
		t.Errorf("without TLS: %+v", got)
	}
}

// A program that is being stopped still hears whether its submission was taken; one that was stopped before
// sends nothing.
func TestASubmissionOutlivesItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests++
		cancel()
		time.Sleep(20 * time.Millisecond) // enough for a client that gives up to be gone
		_, _ = io.WriteString(w, `{"operation":"op_1"}`)
	}))
	defer server.Close()
	client := memories.New(server.URL, 1, "memhook/test")
	defer client.Close()
	if got := client.Submit(ctx, lake, video); got.Outcome != memories.Accepted {
		t.Errorf("%+v", got)
	}
	if got := client.Submit(ctx, lake, video); got.Outcome != memories.NotSent || requests != 1 {
		t.Errorf("%+v after %d requests", got, requests)
	}
}

func TestSimulatorTakesSubmissions(t *testing.T) {
	t.Parallel()
	sim := memoriestest.New(memoriestest.Config{UploadsPerMinute: 3})
	defer sim.Close()
	server := httptest.NewServer(sim)
	defer server.Close()
	client := memories.New(server.URL, 1, "memhook/test")
	defer client.Close()
	mavi := memories.Account{Key: "sk-mavi-1"}
	submit := func(account memories.Account, sub memories.Submission, want memories.Outcome) memories.Receipt {
		t.Helper()
		got := client.Submit(t.Context(), account, sub)
		if got.Outcome != want {
			t.Errorf("%+v, want %s", got, want)
		}
		return got
	}
	sim.BreakUploads(memoriestest.Fault{Kind: memoriestest.FaultRateLimited}, memoriestest.Fault{Kind: memoriestest.FaultCut})
	without := links
	without.CallbackURL = ""
	submit(mavi, without, memories.RateLimited) // not taken
	submit(mavi, without, memories.Unknown)     // taken
	taken := submit(mavi, without, memories.Accepted)
	if got := client.TaskStatus(t.Context(), mavi, taken.TaskID, "default"); got.Outcome != memories.Listed {
		t.Errorf("the task of a submission: %+v", got)
	}
	long := links
	long.CallbackURL = "https://memhook.example/" + strings.Repeat("x", 300)
	submit(mavi, long, memories.TaskRefused)
	submit(mavi, without, memories.RateLimited) // the fifth in a minute, where three and one more may be

	sim.BreakUploads(memoriestest.Fault{Kind: memoriestest.FaultCut})
	submit(lake, video, memories.Unknown)
	first := submit(lake, video, memories.Accepted)
	if again := submit(lake, video, memories.Accepted); again != first || first.TaskID == "" {
		t.Errorf("a repetition: %+v, want %+v", again, first)
	}
	if got := client.TaskStatus(t.Context(), lake, first.TaskID, ""); got.Outcome != memories.Listed {
		t.Errorf("the operation of a submission: %+v", got)
	}
	uploads := sim.Uploads()
	if st := sim.Stats(); len(uploads) != 3 || st.Uploads != 8 || st.OverUploads != 1 {
		t.Errorf("%d uploads: %+v", len(uploads), st)
	}
	if u := uploads[2]; u.API != "datalake" || u.TaskID != first.TaskID || u.IdempotencyKey != "key-1" || time.Since(u.At) > time.Minute {
		t.Errorf("%+v", u)
	}
}
