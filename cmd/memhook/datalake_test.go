package main

import (
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/webhook"
)

// A task of v1 with all that memories.ai tells of fifty videos.
func TestDetailsOfFiftyVideos(t *testing.T) {
	t.Parallel()
	const videos = 50
	b := newBench(t, memoriestest.Config{})
	b.env["MEMORIES_REQUESTS_PER_SECOND"] = "20"
	in := b.start("")
	script := memoriestest.Task{TaskID: "fifty", Shape: memoriestest.ShapeVideos}
	step := memoriestest.Step{}
	for i := range videos {
		v := memoriestest.Video{
			ID: fmt.Sprintf("VI-%d", i), Status: "PARSE", Name: fmt.Sprintf("Name <%d>", i), URL: fmt.Sprintf("https://videos.example/%d", i),
			Duration: fmt.Sprintf("%d.5", i),
		}
		if i%10 == 9 {
			v.Status, v.Cause = "PARSE_ERROR", "no sound"
		}
		step.Videos = append(step.Videos, v)
	}
	script.Steps = []memoriestest.Step{step}
	b.sim.Add(script)
	task := in.register("fifty", map[string]any{"until": "indexed", "expected_videos": videos})
	all := b.receiver.await(t, 2, 15*time.Second)
	types := []string{all[0].event.Type, all[1].event.Type}
	slices.Sort(types)
	if !slices.Equal(types, []string{webhook.TaskIndexed, webhook.TaskReady}) {
		t.Errorf("events %v", types)
	}
	verifier, err := standardwebhooks.NewWebhook(in.secret(task))
	if err != nil {
		t.Fatal(err)
	}
	var read struct{ Videos []webhook.Video }
	in.call(http.MethodGet, "/v1/tasks/"+task.ID, nil, &read)
	checks := make([]nodeCheck, 0, len(all))
	for _, got := range all {
		if err := verifier.Verify(got.body, got.header); err != nil {
			t.Errorf("the official library: %v", err)
		}
		checks = append(checks, checkWithNode(in.secret(task), got))
		for _, list := range [][]webhook.Video{got.task.Videos, read.Videos} {
			if len(list) != videos {
				t.Fatalf("%d videos", len(list))
			}
			for i, v := range list {
				want := step.Videos[i]
				failed := i%10 == 9
				if v.VideoID != want.ID || *v.Name != want.Name || *v.URL != want.URL || *v.Duration != float64(i)+0.5 ||
					(*v.Status == "FAILED") != failed || (v.Cause != nil && *v.Cause == "no sound") != failed {
					t.Errorf("video %d is %+v, want %+v", i, v, want)
				}
			}
		}
	}
	verifyWithNode(t, checks)
	v := in.visitor()
	v.signIn()
	_, page := v.get("/admin/tasks/" + task.ID)
	for _, want := range []string{"VI-49", "Name &lt;48&gt;", "https://videos.example/47", "46.5 s", "FAILED no sound"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page shows no %q", want)
		}
	}
}

type progressJSON struct {
	Status    string
	Polls     int
	LastError *struct{ Code, Message string } `json:"last_error"`
	Progress  *struct {
		Percent *float64
		Stages  map[string]string
	}
}

func TestDatalake(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.env["MEMORIES_API_KEY"], b.env["MEMORIES_REQUESTS_PER_SECOND"] = "sk-mai-test", "50"
	in := b.start("")
	var accounts struct{ Data []struct{ API string } }
	if in.admin(http.MethodGet, "/admin/v1/accounts", nil, &accounts); accounts.Data[0].API != "datalake" {
		t.Errorf("the account is of %q", accounts.Data[0].API)
	}
	faults := func(kinds ...string) (list []memoriestest.Fault) {
		for _, kind := range kinds {
			list = append(list, memoriestest.Fault{Kind: kind})
		}
		return list
	}
	add := func(id string, change func(*memoriestest.Task), extra map[string]any) taskJSON {
		script := readyAfter(id, 0, "VI-"+id)
		change(&script)
		b.sim.Add(script)
		return in.register(id, extra)
	}
	nothing := func(*memoriestest.Task) {}
	meets := func(kinds ...string) func(*memoriestest.Task) {
		return func(s *memoriestest.Task) { s.Faults = faults(kinds...) }
	}
	want := map[string]string{
		"done": webhook.TaskReady, "path": webhook.TaskReady, "many": webhook.TaskReady, "indexed": webhook.TaskReady + " " + webhook.TaskIndexed,
		"failed": webhook.TaskFailed, "partly": webhook.TaskFailed, "cancelled": webhook.TaskFailed,
		"not ready": webhook.TaskReady, "limited": webhook.TaskReady, "limited in the body": webhook.TaskReady, "down": webhook.TaskReady,
		"page": webhook.TaskReady, "not found once": webhook.TaskReady, "firewall": webhook.TaskReady,
	}
	add("done", nothing, nil)
	add("path", func(s *memoriestest.Task) { s.Shape = memoriestest.ShapePath }, nil)
	add("many", nothing, map[string]any{"expected_videos": 3})
	indexed := add("indexed", nothing, map[string]any{"until": "indexed"})
	add("failed", func(s *memoriestest.Task) {
		s.Steps, s.End = nil, &memoriestest.End{Code: "bad_source", Message: "no video there"}
	}, nil)
	add("partly", func(s *memoriestest.Task) { s.End = &memoriestest.End{Message: "half of it", Partial: true} }, nil)
	add("cancelled", func(s *memoriestest.Task) { s.Steps, s.End = nil, &memoriestest.End{Cancelled: true} }, nil)
	add("not ready", meets(memoriestest.FaultNotReady), nil)
	add("limited", meets(memoriestest.FaultRateLimited), nil)
	add("limited in the body", meets(memoriestest.FaultRateLimitedInt), nil)
	add("down", meets(memoriestest.FaultSpring), nil)
	add("page", meets(memoriestest.FaultHTML), nil)
	add("not found once", meets(memoriestest.FaultNotFound), nil)
	add("firewall", meets(memoriestest.FaultFirewall), nil)
	waiting := add("waiting", func(s *memoriestest.Task) { s.Steps[0].AfterMS = (24 * time.Hour).Milliseconds() }, nil) // 0 % for a quarter of an hour
	missing := in.register("missing", nil)                                                                              // 404 for ever

	all := b.receiver.await(t, len(want)+1, 90*time.Second)
	got := make(map[string][]string)
	for _, r := range all {
		got[r.task.TaskID] = append(got[r.task.TaskID], r.event.Type)
		if r.event.Type == webhook.TaskReady && !slices.Equal(r.task.VideoIDs, []string{"VI-" + r.task.TaskID}) {
			t.Errorf("event %s", r.body)
		}
		if r.event.Type == webhook.TaskFailed {
			codes := map[string]string{"failed": "bad_source", "partly": "failed", "cancelled": "cancelled"}
			if r.task.Error == nil || r.task.Error.Code != codes[r.task.TaskID] {
				t.Errorf("event %s", r.body)
			}
		}
	}
	for id, types := range want {
		slices.SortFunc(got[id], func(a, b string) int { return strings.Compare(b, a) }) // ready before indexed
		if strings.Join(got[id], " ") != types {
			t.Errorf("%s: events %v, want %s", id, got[id], types)
		}
	}
	if n := b.query(`select count(*) from tasks where polling`); n != 2 {
		t.Errorf("%d tasks are polled, want those that wait", n)
	}
	var task progressJSON
	if in.call(http.MethodGet, "/v1/tasks/"+indexed.ID, nil, &task); task.Polls != 1 || task.Progress == nil || *task.Progress.Percent != 100 {
		t.Errorf("the indexed task: %+v", task)
	}
	if in.call(http.MethodGet, "/v1/tasks/"+missing.ID, nil, &task); task.Status != "waiting" || task.LastError == nil || task.LastError.Code != "not_found" {
		t.Errorf("the missing task: %+v", task)
	}
	in.call(http.MethodGet, "/v1/tasks/"+waiting.ID, nil, &task)
	if task.Status != "waiting" || task.Progress == nil || task.Progress.Stages["preprocess"] != "0" {
		t.Errorf("the waiting task: %+v", task)
	}
	v := in.visitor()
	v.signIn()
	if _, page := v.get("/admin/tasks/" + waiting.ID); !strings.Contains(page, "<dt>Progress</dt><dd>0 %") {
		t.Error("the page shows no progress")
	}
	life, _ := b.sim.Life("not ready")
	if len(life.Polls) != 2 || life.Polls[1].Sub(life.Polls[0]) < 2*time.Second {
		t.Errorf("polls after 409 that asks for two seconds: %v", life.Polls)
	}
}

// The key is sent bare until the service asks for Bearer, which fails nobody.
func TestDatalakeAsksForBearer(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.env["MEMORIES_API_KEY"], b.env["MEMORIES_REQUESTS_PER_SECOND"] = "sk-mai-test", "10"
	b.sim.Set(memoriestest.Account{ID: "lake", Keys: []string{"sk-mai-test"}, RequestsPerSecond: 10, Bearer: true})
	in := b.start("")
	for _, id := range []string{"a", "b"} {
		b.sim.Add(readyAfter(id, 0, "VI-"+id))
		in.register(id, nil)
	}
	registered := time.Now()
	for _, got := range b.receiver.await(t, 2, 10*time.Second) {
		if got.event.Type != webhook.TaskReady {
			t.Errorf("event %s", got.body)
		}
	}
	if took := time.Since(registered); took > 5*time.Second || strings.Contains(in.log.String(), "account backs off") {
		t.Errorf("delivered after %s\n%s", took, in.log)
	}
}

func TestDoctorAsksTheRightAPI(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.env["MEMORIES_API_KEY"] = "sk-mai-test"
	b.sim.Set(memoriestest.Account{ID: "lake", Keys: []string{"sk-mai-test"}, RequestsPerSecond: 2, Bearer: true})
	b.start("").kill()
	cmd := exec.Command(binary, "doctor")
	cmd.Env = []string{"MEMHOOK_ADDR=127.0.0.1:0"}
	for k, v := range b.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	raw, err := cmd.CombinedOutput()
	if out := string(raw); err != nil || !strings.Contains(out, "accepts the key of the account default") || b.sim.Stats().Requests != 2 {
		t.Errorf("%v after %d requests\n%s", err, b.sim.Stats().Requests, out)
	}
}

// memories.ai's callback of a direct upload names the video alone.
func TestHintsOfDirectUploads(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.env["MEMORIES_REQUESTS_PER_SECOND"] = "0.2"
	in := b.start("")
	b.sim.Add(memoriestest.Task{TaskID: "direct", Shape: memoriestest.ShapeVideos, Steps: []memoriestest.Step{
		{Videos: []memoriestest.Video{{ID: "VI-7", Status: "SPLITTING"}}},
		{AfterMS: 4000, Videos: []memoriestest.Video{{ID: "VI-7", Status: "PARSE"}}},
	}})
	in.register("direct", map[string]any{"until": "indexed"})
	if got := b.receiver.await(t, 1, 10*time.Second)[0]; got.event.Type != webhook.TaskReady || *got.task.Videos[0].Status != "SPLITTING" {
		t.Errorf("event %s", got.body)
	}
	var hint struct{ URL string }
	in.call(http.MethodGet, "/v1/hint-url", nil, &hint)
	path := hint.URL[strings.Index(hint.URL, "/v1/"):]
	if status := in.callWith("", http.MethodPost, path, `{"videoNo":"VI-7","status":"PARSE"}`, nil); status != http.StatusNoContent {
		t.Fatalf("hint: %d", status)
	}
	if n := b.query(`select count(*) from tasks where hinted_at is not null`); n != 1 {
		t.Errorf("%d tasks are hinted", n)
	}
	if got := b.receiver.await(t, 2, 20*time.Second)[1]; got.event.Type != webhook.TaskIndexed {
		t.Errorf("event %s", got.body)
	}
}
