package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/webhook"
)

// commandLine runs client commands of the real binary against an instance.
type commandLine struct {
	t   *testing.T
	env []string
}

func (in *instance) commandLine() commandLine {
	return commandLine{in.t, []string{"MEMHOOK_URL=" + in.url, "MEMHOOK_API_KEY=" + testAPIKey}}
}

// run runs a command and returns its exit status and what it printed.
func (c commandLine) run(args ...string) (status int, stdout, stderr string) {
	c.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(c.t.Context(), binary, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = c.env, &out, &errs
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		c.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// ok runs a command that must succeed and returns what it printed.
func (c commandLine) ok(args ...string) string {
	c.t.Helper()
	status, out, errs := c.run(args...)
	if status != 0 {
		c.t.Fatalf("%s: exit status %d: %s", strings.Join(args, " "), status, errs)
	}
	return out
}

// read runs a command with --json that must succeed.
func (c commandLine) read(into any, args ...string) {
	c.t.Helper()
	out := c.ok(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		c.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// listen runs `memhook listen` until the test is over and returns its output and its callback URL.
func (c commandLine) listen(addr string) (said *safeBuffer, stop func()) {
	c.t.Helper()
	said = &safeBuffer{}
	cmd := exec.Command(binary, "listen", "--addr", addr)
	cmd.Env, cmd.Stdout, cmd.Stderr = c.env, said, said
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	ended := false
	stop = func() {
		if !ended {
			ended = true
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
		}
	}
	c.t.Cleanup(stop)
	until(c.t, 10*time.Second, "the receiver is registered", func() bool { return strings.Contains(said.String(), "registered at") })
	return said, stop
}

// listen takes a webhook as long as memhook sends any.
func TestListenTakesALongWebhook(t *testing.T) {
	t.Parallel()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
	key, err := webhook.ParseSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	var out safeBuffer
	handler := listenCommand{Status: http.StatusNoContent}.handler(&out, func(bool) []string { return []string{secret} })
	body, at := `{"type":"`+strings.Repeat("x", 7<<20)+`"}`, time.Now()
	req := httptest.NewRequest(http.MethodPost, "/hooks", strings.NewReader(body))
	req.Header.Set(webhook.HeaderID, "evt_1")
	req.Header.Set(webhook.HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	req.Header.Set(webhook.HeaderSignature, webhook.Sign("evt_1", at, []byte(body), [][]byte{key}))
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, req)
	if answer.Code != http.StatusNoContent {
		t.Errorf("listen answers %d and prints %.200s", answer.Code, out.String())
	}
}

type deliveryJSON struct {
	ID, Status   string
	AttemptCount int    `json:"attempt_count"`
	EventType    string `json:"event_type"`
	CallbackURL  string `json:"callback_url"`
	Attempts     []struct {
		ResponseStatus int `json:"response_status"`
	}
}

// From a task's registration to a verified webhook and back again, with client commands alone.
func TestTheClientCommands(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	b.env["MEMHOOK_RETRY_SCHEDULE"] = "100ms"
	in := b.start("")
	c := in.commandLine()
	addr := freeAddr(t)
	said, stop := c.listen(addr)
	callback := "http://" + addr + "/hooks"

	b.sim.Add(readyAfter("cli-task", 1500*time.Millisecond, "PI-1"))
	var task taskJSON
	c.read(&task, "tasks", "register", "cli-task", callback+"?customer=7", "--metadata", "order=42", "--metadata", "note=a=b,c")
	if task.Status != "waiting" || task.TaskID != "cli-task" {
		t.Fatalf("registered %+v", task)
	}
	if out := c.ok("tasks", "wait", "cli-task", "--timeout", "30s"); !strings.Contains(out, "ready") || !strings.Contains(out, "PI-1") {
		t.Errorf("wait printed %s", out)
	}
	until(t, 20*time.Second, "the webhook is verified", func() bool { return strings.Contains(said.String(), ": verified") })
	if !strings.Contains(said.String(), `"note": "a=b,c"`) {
		t.Errorf("the webhook's metadata: %s", said)
	}
	for _, id := range []string{task.ID, "cli-task"} {
		if out := c.ok("tasks", "get", id); !strings.Contains(out, task.ID) || !strings.Contains(out, callback) {
			t.Errorf("get %s printed %s", id, out)
		}
	}
	if out := c.ok("tasks", "list", "--status", "ready"); !strings.HasPrefix(out, "ID ") || !strings.Contains(out, "cli-task") {
		t.Errorf("list printed %s", out)
	}
	var none []taskJSON
	if c.read(&none, "tasks", "list", "--status", "failed"); none == nil || len(none) != 0 {
		t.Errorf("no failed tasks: %v", none)
	}

	var deliveries []deliveryJSON
	c.read(&deliveries, "deliveries", "list", "--task", "cli-task", "--status", "delivered")
	if len(deliveries) != 1 || deliveries[0].EventType != "task.ready" || deliveries[0].CallbackURL != callback+"?customer=7" {
		t.Fatalf("deliveries: %+v", deliveries)
	}
	id := deliveries[0].ID
	c.ok("deliveries", "resend", id)
	until(t, 20*time.Second, "it was sent again", func() bool { return strings.Count(said.String(), ": verified") == 2 })
	until(t, 20*time.Second, "its second attempt is kept", func() bool {
		var d deliveryJSON
		c.read(&d, "deliveries", "get", id) // in the table a port could read as a status
		return len(d.Attempts) == 2 && d.Attempts[1].ResponseStatus == http.StatusNoContent
	})

	var endpoints []struct{ ID, URL string }
	c.read(&endpoints, "endpoints", "list")
	if len(endpoints) != 1 || endpoints[0].URL != callback {
		t.Fatalf("endpoints: %+v", endpoints)
	}
	if out := c.ok("endpoints", "test", endpoints[0].ID); !strings.Contains(out, "webhook.test") || !strings.Contains(out, "delivered") {
		t.Errorf("test printed %s", out)
	}
	stop()
	if status, out, _ := c.run("endpoints", "test", endpoints[0].ID); status != 1 || !strings.Contains(out, "refused") {
		t.Errorf("a test of a receiver that is gone: exit status %d: %s", status, out)
	}
	until(t, 20*time.Second, "its retries are used up", func() bool {
		c.read(&deliveries, "deliveries", "list", "--status", "failed")
		return len(deliveries) == 1
	})
	if out := c.ok("endpoints", "recover", endpoints[0].ID, "--since", "1h"); !strings.Contains(out, "recovered: 1") {
		t.Errorf("recover printed %s", out)
	}
	if status, _, errs := c.run("endpoints", "recover", endpoints[0].ID, "--since", "yesterday"); status != 1 || !strings.Contains(errs, "--since") {
		t.Errorf("a wrong --since: exit status %d: %s", status, errs)
	}

	said, _ = c.listen(strings.TrimPrefix(addr, "127.0.0.1")) // at all interfaces it finds its endpoint, and gets what has waited
	until(t, 20*time.Second, "what has waited is sent", func() bool { return strings.Count(said.String(), ": verified") >= 1 })
	if n := b.query(`select count(*) from endpoints`); n != 1 {
		t.Errorf("%d endpoints after listening twice", n)
	}
	if status := in.call(http.MethodPost, "/v1/endpoints/"+endpoints[0].ID+"/secret/rotate", map[string]any{"overlap": "0s"}, nil); status != http.StatusOK {
		t.Fatalf("rotate: %d", status)
	}
	c.ok("endpoints", "test", endpoints[0].ID) // it reads the new secret
}

func TestWaitTellsByItsExitStatusWhatBecameOfTheTask(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	in := b.start("")
	c := in.commandLine()
	for _, task := range []string{"expires", "fails", "is-cancelled", "stays"} {
		b.sim.Add(memoriestest.Task{TaskID: task})
	}
	in.register("expires", map[string]any{"expires_in": "1s"})
	for _, task := range []string{"fails", "is-cancelled", "stays"} {
		in.register(task, nil)
	}
	c.ok("tasks", "cancel", "is-cancelled")
	b.exec(`update tasks set status = 'failed', polling = false where task_id = 'fails'`)
	for task, want := range map[string]int{"expires": 4, "fails": 3, "is-cancelled": 5, "stays": 6} {
		if status, _, errs := c.run("tasks", "wait", task, "--timeout", map[bool]string{true: "1500ms", false: "20s"}[want == 6]); status != want {
			t.Errorf("%s: exit status %d, want %d: %s", task, status, want, errs)
		}
	}
}

func TestTailPrintsEventsOnceInTheirOrder(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	in := b.start("")
	c := in.commandLine()
	in.registerAt("before", b.receiver.URL)
	until(t, 20*time.Second, "it stands in the feed", func() bool {
		return strings.Contains(c.ok("events", "tail", "--no-follow", "--since", "1m"), "before")
	})
	var said safeBuffer
	tail := exec.Command(binary, "events", "tail", "--json")
	tail.Env, tail.Stdout, tail.Stderr = c.env, &said, &said
	time.Sleep(1100 * time.Millisecond) // the Date header, from which the tail begins, has whole seconds
	if err := tail.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tail.Process.Kill(); _ = tail.Wait() })
	for _, task := range []string{"first", "second"} {
		time.Sleep(1100 * time.Millisecond)
		in.registerAt(task, b.receiver.URL)
	}
	until(t, 20*time.Second, "both are printed", func() bool { return strings.Contains(said.String(), `"second"`) })
	lines := strings.Split(strings.TrimSpace(said.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"first"`) || !strings.Contains(lines[1], `"second"`) {
		t.Errorf("tail printed %s", said.String())
	}
}

func TestTheClientsErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in := b.start("")
	c := in.commandLine()
	for _, test := range []struct {
		args   []string
		env    []string
		status int
		says   []string
	}{
		{args: []string{"tasks", "register", "x", "ftp://x", "--expires-in", "long"}, status: 1, says: []string{"invalid-request (422)", "callback_url must", "expires_in must"}},
		{args: []string{"tasks", "get", "unknown"}, status: 1, says: []string{"no task unknown"}},
		{args: []string{"deliveries", "get", "01993c1e-6f3a-7cc0-9d4e-0a4ab7f3c1d2"}, status: 1, says: []string{"not-found (404)", "no delivery"}},
		{args: []string{"tasks", "list", "--status", "done"}, status: 2, says: []string{"--status", "waiting"}},
		{args: []string{"tasks", "list"}, env: []string{"MEMHOOK_URL=" + in.url}, status: 2, says: []string{"MEMHOOK_API_KEY"}},
		{args: []string{"tasks", "list"}, env: []string{"MEMHOOK_URL=memhook", "MEMHOOK_API_KEY=x"}, status: 2, says: []string{"MEMHOOK_URL"}},
		{args: []string{"tasks", "list"}, env: []string{"MEMHOOK_URL=" + in.url, "MEMHOOK_API_KEY=wrong-key-0123456789"}, status: 1, says: []string{"unauthorized (401)"}},
		{args: []string{"tasks", "list"}, env: []string{"MEMHOOK_URL= " + in.url + "\n", "MEMHOOK_API_KEY=" + testAPIKey + "\r\n"}, status: 0},
	} {
		with := c
		if test.env != nil {
			with.env = test.env
		}
		status, out, errs := with.run(test.args...)
		if status != test.status {
			t.Errorf("%v: exit status %d, want %d: %s%s", test.args, status, test.status, out, errs)
		}
		for _, want := range test.says {
			if !strings.Contains(errs, want) {
				t.Errorf("%v: %q does not say %q", test.args, errs, want)
			}
		}
	}
}
