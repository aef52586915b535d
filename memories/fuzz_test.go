package memories_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/memhook/memhook/memories"
)

func FuzzTaskStatus(f *testing.F) {
	fuzz(f, memories.Account{Key: "sk-mavi-1"}, seed, `{"code":"0429"}`, `{"code":200,"data":{"videos":[{"video_no":1}]}}`, `{"code":"0000","data":null}`, "\xff", "<html>",
		`{"code":"0000","data":{"videos":[{"video_no":"1","status":"X","cause":"null","video_name":{},"video_url":"u","duration":"12"}]}}`)
}

func FuzzOperation(f *testing.F) {
	fuzz(f, lake, `{"operation":"`+seedTask+`","done":true,"resource":"videos/v","error":null,"progress":{"percent":5,"index":"x"}}`,
		`{"done":false,"error":["x"]}`, `{"error":{"code":1,"message":"bearer","request_id":"r","retry_after":1e400}}`, "\xff", "<html>", `{"done":true,"resource":7}`)
}

// fuzz sends answers over HTTP and holds what every classification must keep.
func fuzz(f *testing.F, account memories.Account, seeds ...string) {
	f.Helper()
	for i, s := range seeds {
		f.Add([]int{200, 200, 401, 403, 409, 503}[i%6], []byte(s))
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
	fits := func(s string, limit int) bool {
		return len(s) <= limit && utf8.ValidString(s) && !strings.ContainsAny(s, "\x00\n\x7f")
	}
	f.Fuzz(func(t *testing.T, code int, answer []byte) {
		status, body = 200+(code&0x7fffffff)%400, answer
		if status == 204 || status == 304 {
			return // they have no body
		}
		got := client.TaskStatus(t.Context(), account, seedTask, "default")
		if got.Outcome != memories.Listed && (len(got.Videos) > 0 || got.Done || got.Message == "") {
			t.Errorf("%+v", got)
		}
		seen := make(map[string]bool)
		for _, v := range got.Videos {
			if v.ID == "" || seen[v.ID] || !fits(v.ID, 256) || !fits(v.Status, 64) || !fits(v.Cause, 500) || !fits(v.Name, 500) || !fits(v.URL, 2048) {
				t.Errorf("%+v", v)
			}
			if v.Duration != nil && !(*v.Duration >= 0 && *v.Duration < 1e9) {
				t.Errorf("duration %v", *v.Duration)
			}
			seen[v.ID] = true
		}
		if got.Progress != nil {
			if p := got.Progress.Percent; len(got.Progress.Stages) > 16 || (p != nil && !(*p >= 0 && *p <= 100)) {
				t.Errorf("%+v", got.Progress)
			}
			for name, said := range got.Progress.Stages {
				if !fits(name, 64) || !fits(said, 64) {
					t.Errorf("%q %q", name, said)
				}
			}
		}
		if !fits(got.Message, 500) || !fits(got.Code, 500) || got.RetryAfter < 0 || got.RetryAfter > 5*60e9 {
			t.Errorf("%+v", got)
		}
	})
}
