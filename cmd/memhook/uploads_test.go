package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/webhook"
)

type uploadJSON struct {
	ID     string
	Status string
	Task   *taskJSON
	Error  *struct{ Code, Message string }
}

// soon lets every upload become a task whose one video is there at once.
func soon(*rand.Rand) (time.Duration, int) { return 0, 1 }

// upload submits one video and returns the upload.
func (in *instance) upload(name string, body map[string]any) uploadJSON {
	in.t.Helper()
	body["callback_url"], body["metadata"] = in.receiver.URL, map[string]string{"name": name}
	var u uploadJSON
	if status := in.call(http.MethodPost, "/v1/uploads", body, &u); status != http.StatusAccepted || u.Status != "queued" || u.Task != nil {
		in.t.Fatalf("upload %s: %d %+v", name, status, u)
	}
	return u
}

func videoURL(name string) map[string]any {
	return map[string]any{"urls": []string{"https://videos.example/" + name}}
}

func sourceURL(name string) map[string]any {
	return map[string]any{"source_url": "https://videos.example/" + name, "collection_id": "c1"}
}

func (in *instance) uploaded(id string) (u uploadJSON) {
	in.t.Helper()
	if status := in.call(http.MethodGet, "/v1/uploads/"+id, nil, &u); status != http.StatusOK {
		in.t.Fatalf("get upload: %d", status)
	}
	return u
}

// setBudgets sets those of the account default.
func (in *instance) setBudgets(requestsPerSecond, uploadsPerMinute float64) {
	in.t.Helper()
	var list struct{ Data []struct{ ID string } }
	in.admin(http.MethodGet, "/admin/v1/accounts", nil, &list)
	body := map[string]any{"requests_per_second": requestsPerSecond, "uploads_per_minute": uploadsPerMinute}
	if status := in.admin(http.MethodPatch, "/admin/v1/accounts/"+list.Data[0].ID, body, nil); status != http.StatusOK {
		in.t.Fatalf("set budgets: %d", status)
	}
}

// All uploads are queued at once. Where an interval of the budget is long the job is snoozed between two of them.
func TestUploadsKeepTheBudget(t *testing.T) {
	t.Parallel()
	type budget struct{ uploads, perMinute int }
	for _, c := range pick([]budget{{200, 1800}, {12, 120}, {3, 10}}, []budget{{200, 30}, {5, 1}}) {
		t.Run(fmt.Sprintf("%d at %d a minute", c.uploads, c.perMinute), func(t *testing.T) {
			t.Parallel()
			interval := time.Minute / time.Duration(c.perMinute)
			b := newBench(t, memoriestest.Config{Draw: soon, UploadsPerMinute: float64(c.perMinute)})
			in := b.start("")
			in.setBudgets(100, float64(c.perMinute))
			ids := make([]string, c.uploads)
			for i := range ids {
				ids[i] = in.upload(fmt.Sprint(i), videoURL(fmt.Sprint(i))).ID
			}
			all := b.receiver.await(t, c.uploads, time.Duration(c.uploads)*interval*5/4+30*time.Second)
			names := make(map[string]bool)
			for _, got := range all {
				names[got.task.Metadata["name"]] = true
				if got.event.Type != webhook.TaskReady {
					t.Errorf("event %s", got.body)
				}
			}
			if len(names) != c.uploads {
				t.Errorf("%d of %d uploads were delivered", len(names), c.uploads)
			}
			for _, id := range ids {
				if u := in.uploaded(id); u.Status != "submitted" || u.Task == nil || u.Error != nil {
					t.Errorf("upload %+v", u)
				}
			}
			b.checkUploads(c.uploads, c.perMinute)
		})
	}
}

// checkUploads checks in memories.ai's log that n uploads were taken, none of them twice, each at least an interval of the budget
// after the one before, and all of them in little more time than the budget takes.
func (b *bench) checkUploads(n, perMinute int) {
	b.t.Helper()
	interval := time.Minute / time.Duration(perMinute)
	taken, seen := b.sim.Uploads(), make(map[string]bool)
	if st := b.sim.Stats(); len(taken) != n || st.Uploads != n || st.OverUploads > 0 {
		b.t.Fatalf("%d were taken of %d submissions, %d of them beyond the limit", len(taken), st.Uploads, st.OverUploads)
	}
	most := 0
	for i, u := range taken {
		if seen[u.URLs[0]] {
			b.t.Errorf("%s was submitted twice", u.URLs[0])
		}
		seen[u.URLs[0]] = true
		if !strings.HasPrefix(u.CallbackURL, "http://127.0.0.1/v1/hints/") {
			b.t.Errorf("the hint URL is %q", u.CallbackURL)
		}
		within := 0
		for _, later := range taken[i:] {
			if later.At.Sub(u.At) < time.Minute {
				within++
			}
		}
		most = max(most, within)
	}
	took := taken[n-1].At.Sub(taken[0].At)
	b.t.Logf("%d uploads took %s, at most %d within a minute", n, took.Round(time.Millisecond), most)
	if most > perMinute+1 {
		b.t.Errorf("%d submissions within a minute", most)
	}
	// A submission may reach memories.ai late, and the one after it in time. All are late beside the other tests.
	least := time.Duration(n-1) * interval
	if took < least-100*time.Millisecond || took > least*5/4+pick(30*time.Second, 3*time.Second) {
		b.t.Errorf("%d uploads took %s, want %s", n, took, least)
	}
}

// Pausing polling stops all calls to memories.ai, submissions included.
func TestUploadsArePausedWithPolling(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{Draw: soon})
	in := b.start("")
	other := b.start("")
	in.setBudgets(100, 600)
	for i := range 100 {
		in.upload(fmt.Sprint(i), videoURL(fmt.Sprint(i)))
	}
	until(t, 20*time.Second, "some are submitted", func() bool { return b.sim.Stats().Uploads > 3 })
	if status := other.admin(http.MethodPost, "/admin/v1/polling/pause", nil, nil); status != http.StatusNoContent {
		t.Errorf("pause: %d", status)
	}
	time.Sleep(500 * time.Millisecond) // until both instances know
	st := b.sim.Stats()
	in.upload("while paused", videoURL("while-paused"))
	time.Sleep(3 * time.Second) // the budget allows thirty more
	if now := b.sim.Stats(); now.Uploads != st.Uploads || now.Requests != st.Requests || st.Uploads > 90 {
		t.Errorf("%d submissions and %d polls while paused, after %d", now.Uploads-st.Uploads, now.Requests-st.Requests, st.Uploads)
	}
	other.admin(http.MethodPost, "/admin/v1/polling/resume", nil, nil)
	b.receiver.await(t, 101, 30*time.Second)
}

func TestUploadsThatAreKilledInTheMiddle(t *testing.T) {
	t.Parallel()
	for _, api := range []string{"v1", "datalake"} {
		t.Run(api, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, memoriestest.Config{Draw: soon})
			body := videoURL
			if api == "datalake" {
				b.env["MEMORIES_API_KEY"], body = "sk-mai-test", sourceURL
			}
			in := b.start("")
			in.setBudgets(100, 600)
			b.sim.BreakUploads(memoriestest.Fault{Kind: memoriestest.FaultHang})
			ids := []string{in.upload("first", body("first")).ID, in.upload("second", body("second")).ID}
			until(t, 20*time.Second, "the submission is under way", func() bool { return b.sim.Stats().Faults[memoriestest.FaultHang] == 1 })
			in.kill()
			in = b.start(strings.TrimPrefix(in.url, "http://"))
			all := b.receiver.await(t, 2, 20*time.Second)
			byName := make(map[string]string)
			for _, got := range all {
				byName[got.task.Metadata["name"]] += got.event.Type
			}
			first := in.uploaded(ids[0])
			if byName["second"] != webhook.TaskReady {
				t.Errorf("events %v", byName)
			}
			if api == "v1" && (byName["first"] != webhook.UploadUnknown || first.Status != "unknown" || first.Error == nil || b.sim.Stats().Uploads != 2) {
				t.Errorf("events %v, the first is %+v, after %d submissions", byName, first, b.sim.Stats().Uploads)
			}
			if api == "datalake" && (byName["first"] != webhook.TaskReady || first.Status != "submitted" || first.Task == nil) {
				t.Errorf("events %v, the first is %+v", byName, first)
			}
			if n := len(b.sim.Uploads()); n != 2 {
				t.Errorf("memories.ai took %d uploads, want 2", n)
			}
			if n := b.query(`select count(*) from tasks`); n != len(b.sim.Uploads())-b.query(`select count(*) from uploads where status = 'unknown'`) {
				t.Errorf("%d tasks", n)
			}
		})
	}
}

func TestUploadsMeetTroubles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		api, fault, code string
		submissions      int
		status           string
	}{
		{"v1", memoriestest.FaultRateLimited, "", 2, "submitted"},
		{"v1", memoriestest.FaultHTML, "", 1, "unknown"},
		{"v1", memoriestest.FaultCut, "", 1, "unknown"},
		{"datalake", memoriestest.FaultHTML, "", 2, "submitted"},
		{"datalake", memoriestest.FaultCut, "", 2, "submitted"},
		{"datalake", memoriestest.FaultRateLimited, "", 2, "submitted"},
		{"datalake", memoriestest.FaultAsksBearer, "", 2, "submitted"},
	} {
		t.Run(c.api+" "+c.fault, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, memoriestest.Config{Draw: soon})
			body := videoURL
			if c.api == "datalake" {
				b.env["MEMORIES_API_KEY"], body = "sk-mai-test", sourceURL
			}
			in := b.start("")
			in.setBudgets(100, 600)
			b.sim.BreakUploads(memoriestest.Fault{Kind: c.fault, Code: c.code})
			id := in.upload("one", body("one")).ID
			got := b.receiver.await(t, 1, 20*time.Second)[0]
			want := map[string]string{"submitted": webhook.TaskReady, "unknown": webhook.UploadUnknown}[c.status]
			if u := in.uploaded(id); u.Status != c.status || got.event.Type != want || b.sim.Stats().Uploads != c.submissions || len(b.sim.Uploads()) != 1 {
				t.Errorf("%s after %d submissions, %d of them taken: %+v", got.body, b.sim.Stats().Uploads, len(b.sim.Uploads()), u)
			}
		})
	}
}

func TestUploadsAreChecked(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{Draw: soon})
	in := b.start("")
	var list struct {
		Data []struct {
			ID, API          string
			UploadsPerMinute float64 `json:"uploads_per_minute"`
		}
	}
	in.admin(http.MethodGet, "/admin/v1/accounts", nil, &list)
	if a := list.Data[0]; a.API != "v1" || a.UploadsPerMinute != 1 {
		t.Errorf("account %+v", a)
	}
	var datalake struct {
		ID, API          string
		UploadsPerMinute float64 `json:"uploads_per_minute"`
	}
	in.admin(http.MethodPost, "/admin/v1/accounts", map[string]any{"name": "lake", "api_key": "sk-mai-1"}, &datalake)
	if datalake.API != "datalake" || datalake.UploadsPerMinute != 60 {
		t.Errorf("account %+v", datalake)
	}
	check := func(field string, body map[string]any, says ...string) {
		t.Helper()
		var problem struct {
			Code   string
			Errors []struct{ Field, Message string }
		}
		if _, ok := body["callback_url"]; !ok {
			body["callback_url"] = b.receiver.URL
		}
		status := in.call(http.MethodPost, "/v1/uploads", body, &problem)
		if status != http.StatusUnprocessableEntity || len(problem.Errors) != 1 || problem.Errors[0].Field != field {
			t.Errorf("%v: %d %+v, want a problem with %s", body, status, problem, field)
			return
		}
		for _, want := range says {
			if !strings.Contains(problem.Errors[0].Message, want) {
				t.Errorf("%v: %q does not say %q", body, problem.Errors[0].Message, want)
			}
		}
	}
	for text, says := range map[string]string{
		"": "absolute", "ftp://a.example/": "absolute", "file:///etc/passwd": "absolute", "javascript:1": "absolute", "/v": "absolute",
		"a.example/v": "absolute", "//a.example/v": "absolute", "https:///v": "absolute", "https://:443/v": "absolute", "http://[::1/v": "absolute",
		"https://a.example:x/": "absolute", "https://a.example:0/": "port", "https://a.example:65536/": "port",
		"https://a.example/a b": "%20", "https://a.example/v ": "spaces", "https://a.example/\n": "spaces", "https://a.example/%zz": "%25",
		"https://a.example/\x00": "printable", "https://a.example/\u202e": "printable",
		"https://a.example/" + strings.Repeat("x", 2048): "2048",
	} {
		check("urls[0]", map[string]any{"urls": []string{text}}, says)
	}
	for _, text := range []string{"HTTPS://A.EXAMPLE:443/é?x=%20#t=1", "http://[2001:db8::1]:8080/v", "https://a.example"} {
		if status := in.call(http.MethodPost, "/v1/uploads", map[string]any{"urls": []string{text}, "callback_url": b.receiver.URL}, nil); status != http.StatusAccepted {
			t.Errorf("%s: %d", text, status)
		}
	}
	check("urls", map[string]any{})
	check("urls", map[string]any{"urls": []string{}})
	check("urls[1]", map[string]any{"urls": []string{"https://a.example/", "ftp://a.example/"}})
	check("source_url", map[string]any{"source_url": "https://a.example/"}, "API v1", "pass urls")
	check("collection_id", map[string]any{"urls": []string{"https://a.example/"}, "collection_id": "c1"}, "absent", "API v1")
	check("callback_url", map[string]any{"urls": []string{"https://a.example/"}, "callback_url": "https://10.0.0.1/"})
	check("expires_in", map[string]any{"urls": []string{"https://a.example/"}, "expires_in": "soon"})
	var app struct {
		Data []struct{ ID string }
	}
	in.admin(http.MethodGet, "/admin/v1/apps", nil, &app)
	if status := in.admin(http.MethodPatch, "/admin/v1/apps/"+app.Data[0].ID, map[string]any{"account_id": datalake.ID}, nil); status != http.StatusOK {
		t.Fatalf("move the app: %d", status)
	}
	check("source_url", map[string]any{})
	check("urls", map[string]any{"urls": []string{"https://a.example/"}}, "API datalake", "pass source_url")
	check("source_url", map[string]any{"source_url": "https://a.example/a b"}, "%20")
	check("collection_id", map[string]any{"source_url": "https://a.example/", "collection_id": "c\x001"}, "printable")
	if status := in.call(http.MethodGet, "/v1/uploads/"+datalake.ID, nil, nil); status != http.StatusNotFound {
		t.Errorf("an upload that does not exist: %d", status)
	}
}

// People find an upload, what became of it, and the way out where nobody knows.
func TestUploadsAreShown(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{Draw: soon})
	in := b.start("")
	in.setBudgets(100, 600)
	v := in.visitor()
	v.signIn()
	if _, page := v.get("/admin/uploads"); !strings.Contains(page, "No matching uploads. Submit a video with <code>POST /v1/uploads</code>") {
		t.Errorf("the page of no uploads: %s", page)
	}
	b.sim.BreakUploads(memoriestest.Fault{Kind: memoriestest.FaultCut})
	lost := in.upload("lost", videoURL("lost")).ID
	b.receiver.await(t, 1, 20*time.Second)
	taken := in.upload("taken", videoURL("taken")).ID
	b.receiver.await(t, 2, 20*time.Second)
	task := in.uploaded(taken).Task.ID
	in.admin(http.MethodPost, "/admin/v1/polling/pause", nil, nil)
	waits := in.upload("waits", map[string]any{"urls": []string{"https://videos.example/waits", "https://videos.example/too"}}).ID

	type entry struct {
		uploadJSON
		URLs          []string
		Attempts      int
		Metadata      map[string]string
		NextAttemptAt *time.Time `json:"next_attempt_at"`
		FinishedAt    *time.Time `json:"finished_at"`
	}
	type page struct {
		Data       []entry
		NextCursor *string `json:"next_cursor"`
	}
	for prefix, read := range map[string]func(path string, into any){
		"/v1":       func(path string, into any) { in.call(http.MethodGet, path, nil, into) },
		"/admin/v1": func(path string, into any) { in.admin(http.MethodGet, path, nil, into) },
	} {
		var all, first, second, unknown page
		read(prefix+"/uploads", &all)
		if len(all.Data) != 3 || all.Data[0].ID != waits || all.Data[1].ID != taken || all.Data[2].ID != lost || all.NextCursor != nil {
			t.Fatalf("%s: %+v", prefix, all)
		}
		if w := all.Data[0]; w.Status != "queued" || w.NextAttemptAt == nil || w.FinishedAt != nil || len(w.URLs) != 2 || w.Metadata["name"] != "waits" {
			t.Errorf("%s: %+v", prefix, w)
		}
		if s := all.Data[1]; s.Status != "submitted" || s.Task == nil || s.Task.ID != task || s.NextAttemptAt != nil || s.FinishedAt == nil || s.Attempts != 1 {
			t.Errorf("%s: %+v", prefix, s)
		}
		if u := all.Data[2]; u.Status != "unknown" || u.Task != nil || u.Error == nil {
			t.Errorf("%s: %+v", prefix, u)
		}
		read(prefix+"/uploads?limit=2", &first)
		if first.NextCursor == nil {
			t.Fatalf("%s: the first page has no cursor", prefix)
		}
		read(prefix+"/uploads?limit=2&cursor="+*first.NextCursor, &second)
		if len(first.Data) != 2 || len(second.Data) != 1 || second.Data[0].ID != lost {
			t.Errorf("%s: pages %+v, %+v", prefix, first, second)
		}
		read(prefix+"/uploads?status=unknown", &unknown)
		if len(unknown.Data) != 1 || unknown.Data[0].ID != lost {
			t.Errorf("%s: unknown ones: %+v", prefix, unknown)
		}
		var one entry
		if read(prefix+"/uploads/"+taken, &one); one.Task == nil || len(one.Task.VideoIDs) != 1 {
			t.Errorf("%s: %+v", prefix, one)
		}
		var found struct{ Uploads []entry }
		if read(prefix+"/search?q=https://videos.example/too", &found); len(found.Uploads) != 1 || found.Uploads[0].ID != waits {
			t.Errorf("%s: found %+v", prefix, found)
		}
	}
	for path, wants := range map[string][]string{
		"/admin/uploads":                                       {"https://videos.example/waits and 1 other", "/admin/tasks/" + task, `<span class="state warn">unknown</span>`},
		"/admin/uploads/" + lost:                               {"create another upload", "https://videos.example/lost"},
		"/admin/uploads/" + taken:                              {"/admin/tasks/" + task},
		"/admin/uploads/" + waits:                              {"0; the next is due now, within the account's budget", "https://videos.example/too"},
		"/admin/tasks/" + task:                                 {"/admin/uploads/" + taken},
		"/admin/search?q=https%3A%2F%2Fvideos.example%2Ftaken": {"/admin/uploads/" + taken},
		"/admin/search?q=" + lost[:18]:                         {"/admin/uploads/" + lost},
	} {
		status, page := v.get(path)
		for _, want := range wants {
			if status != http.StatusOK || !strings.Contains(page, want) {
				t.Errorf("%s: %d, has no %q: %s", path, status, want, page)
			}
		}
	}
	if _, page := v.get("/admin/uploads?status=failed"); strings.Contains(page, taken) || strings.Contains(page, lost) {
		t.Error("the filter shows others")
	}
}
