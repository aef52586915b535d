package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/webhook"
)

// The simulator runs as a process of its own, as memories.ai does.
func TestServeDeliversWithinTwoSecondsOfReady(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	addr := freeAddr(t)
	sim := exec.Command(devBinary, "sim", "--addr", addr, "--requests-per-second", "1")
	if err := sim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Process.Kill(); _ = sim.Wait() })
	b.env["MEMORIES_BASE_URL"] = "http://" + addr
	until(t, 20*time.Second, "the simulator answers", func() bool {
		resp, err := http.Get("http://" + addr + "/control/stats")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil
	})
	in := b.start("")
	control := &instance{bench: b, url: "http://" + addr}
	const after = 3500 * time.Millisecond
	uploaded := time.Now()
	if status := control.call(http.MethodPost, "/control/tasks", readyAfter("later", after, "PI-1", "PI-2"), nil); status != http.StatusNoContent {
		t.Fatalf("script: %d", status)
	}
	task := in.register("later", map[string]any{"metadata": map[string]string{"order": "42"}})
	got := b.receiver.await(t, 1, 15*time.Second)[0]

	lag := got.at.Sub(uploaded.Add(after))
	t.Logf("received %s after the list was non-empty", lag)
	if lag > 2100*time.Millisecond { // the least interval of two seconds, and the way
		t.Errorf("lag %s, want at most 2 s", lag)
	}
	verifier, err := standardwebhooks.NewWebhook(in.secret(task))
	if err != nil {
		t.Fatal(err)
	}
	if err := verifier.Verify(got.body, got.header); err != nil {
		t.Errorf("the official library: %v", err)
	}
	if got.event.Type != webhook.TaskReady || !slices.Equal(got.task.VideoIDs, []string{"PI-1", "PI-2"}) || got.task.Metadata["order"] != "42" || got.task.ID != task.ID {
		t.Errorf("event %s", got.body)
	}
	verifyWithNode(t, []nodeCheck{checkWithNode(in.secret(task), got)})
}

func TestShapesOfAnswers(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.env["MEMORIES_REQUESTS_PER_SECOND"] = "20"
	in := b.start("")
	for _, empty := range []string{"list", "null", "object"} {
		task := readyAfter("empty-"+empty, time.Hour, "PI-1")
		task.Empty = empty
		b.sim.Add(task)
		in.register(task.TaskID, nil)
	}
	for _, shape := range []string{memoriestest.ShapeIDs, memoriestest.ShapeVideos, memoriestest.ShapeBoth} {
		task := readyAfter("shape-"+shape, 0, "PI-603068775285264430", "PI-603068775285264431")
		task.Shape = shape
		b.sim.Add(task)
		in.register(task.TaskID, nil)
	}
	for _, got := range b.receiver.await(t, 3, 10*time.Second) {
		if !slices.Equal(got.task.VideoIDs, []string{"PI-603068775285264430", "PI-603068775285264431"}) || !strings.HasPrefix(got.task.TaskID, "shape-") {
			t.Errorf("event %s", got.body)
		}
	}
	until(t, 20*time.Second, "empty lists are polled on", func() bool {
		for _, empty := range []string{"list", "null", "object"} {
			if life, ok := b.sim.Life("empty-" + empty); !ok || len(life.Polls) < 2 {
				return false
			}
		}
		return true
	})
	if n := len(b.receiver.all()); n != 3 {
		t.Errorf("%d webhooks, want 3", n)
	}
}

func TestRegisteringAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in := b.start("")
	other := newReceiver(t)
	b.sim.Add(readyAfter("twice", 1500*time.Millisecond, "PI-1"))
	first := in.register("twice", nil)
	body := map[string]any{"task_id": "twice", "callback_url": b.receiver.URL}
	var again taskJSON
	if status := in.call(http.MethodPost, "/v1/tasks", body, &again); status != http.StatusOK || again.ID != first.ID || len(again.Subscriptions) != 1 {
		t.Errorf("the same again: %d %+v", status, again)
	}
	body["callback_url"] = other.URL
	if status := in.call(http.MethodPost, "/v1/tasks", body, &again); status != http.StatusCreated || again.ID != first.ID || len(again.Subscriptions) != 2 {
		t.Errorf("another callback: %d %+v", status, again)
	}
	b.receiver.await(t, 1, 10*time.Second)
	other.await(t, 1, 10*time.Second)
	if a, b := b.receiver.all()[0].id, other.all()[0].id; a != b {
		t.Errorf("one event has two ids: %s and %s", a, b)
	}
	if life, _ := b.sim.Life("twice"); len(life.Polls) > 4 {
		t.Errorf("polled %d times in two seconds for two subscribers", len(life.Polls))
	}
	late := newReceiver(t)
	body["callback_url"] = late.URL
	registered := time.Now()
	if status := in.call(http.MethodPost, "/v1/tasks", body, &again); status != http.StatusCreated {
		t.Errorf("a ready task: %d", status)
	}
	if took := late.await(t, 1, time.Second)[0].at.Sub(registered); took > time.Second {
		t.Errorf("the event of a ready task took %s", took)
	}
}

func TestRetriesAndResend(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in := b.start("")
	b.receiver.answers(func(n int, _ received) int {
		if n <= 3 {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	})
	b.sim.Add(readyAfter("stubborn", 0, "PI-1"))
	task := in.register("stubborn", nil)
	all := b.receiver.await(t, 4, 15*time.Second)
	secret := in.secret(task)
	verify := func(got received, id string) {
		t.Helper()
		if err := webhook.Verify(got.body, got.header, secret); err != nil || got.id != id {
			t.Errorf("%s, want %s: %v", got.id, id, err)
		}
	}
	for _, got := range all {
		verify(got, all[0].id)
	}
	if all[0].header.Get(webhook.HeaderTimestamp) == all[3].header.Get(webhook.HeaderTimestamp) {
		t.Error("the timestamp is not each attempt's own")
	}
	var list struct {
		Data []struct {
			ID     string
			Status string
		}
	}
	until(t, 20*time.Second, "the delivery is recorded as delivered", func() bool {
		in.call(http.MethodGet, "/v1/deliveries?task="+task.ID, nil, &list)
		return len(list.Data) == 1 && list.Data[0].Status == "delivered"
	})
	var delivery struct {
		AttemptCount int `json:"attempt_count"`
		Attempts     []struct {
			Number         int
			Outcome        string
			ResponseStatus int `json:"response_status"`
		}
	}
	in.call(http.MethodGet, "/v1/deliveries/"+list.Data[0].ID, nil, &delivery)
	if delivery.AttemptCount != 4 || len(delivery.Attempts) != 4 || delivery.Attempts[0].ResponseStatus != 500 || delivery.Attempts[3].ResponseStatus != 200 {
		t.Errorf("delivery %+v", delivery)
	}
	if status := in.call(http.MethodPost, "/v1/deliveries/"+list.Data[0].ID+"/resend", nil, nil); status != http.StatusAccepted {
		t.Errorf("resend: %d", status)
	}
	verify(b.receiver.await(t, 5, 5*time.Second)[4], all[0].id)
}

func TestKillAndRestart(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		// break gets the instance to the point at which it is killed.
		breakAt func(t *testing.T, b *bench, in *instance)
		most    int // webhooks: one more than one where the first may have arrived unrecorded
	}{
		{"after the 201", func(_ *testing.T, b *bench, in *instance) {
			b.sim.Add(readyAfter("task", time.Second, "PI-1"))
			in.register("task", nil)
			in.kill()
		}, 1},
		{"during a poll", func(t *testing.T, b *bench, in *instance) {
			task := readyAfter("task", 0, "PI-1")
			task.Faults = []memoriestest.Fault{{Kind: memoriestest.FaultHang}}
			b.sim.Add(task)
			in.register("task", nil)
			until(t, 20*time.Second, "the poll is under way", func() bool { return b.sim.Stats().Faults[memoriestest.FaultHang] == 1 })
			in.kill()
		}, 1},
		{"after the event's commit and before the POST", func(t *testing.T, b *bench, in *instance) {
			b.sim.Add(readyAfter("task", 500*time.Millisecond, "PI-1"))
			in.register("task", nil)
			b.locked("apps", func() { // the sender reads the signing key there
				until(t, 20*time.Second, "the event is committed", func() bool { return b.query("select count(*) from deliveries") == 1 })
				in.kill()
			})
			if n := len(b.receiver.all()); n != 0 {
				t.Fatalf("%d webhooks before the kill", n)
			}
		}, 1},
		{"after the receiver's 200 and before its record", func(t *testing.T, b *bench, in *instance) {
			b.sim.Add(readyAfter("task", 500*time.Millisecond, "PI-1"))
			in.register("task", nil)
			b.locked("attempts", func() {
				b.receiver.await(t, 1, 10*time.Second)
				in.kill()
			})
		}, 2},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, memoriestest.Config{})
			in := b.start("")
			c.breakAt(t, b, in)
			restarted := time.Now()
			b.start(strings.TrimPrefix(in.url, "http://"))
			b.receiver.await(t, c.most, 15*time.Second)
			until(t, 20*time.Second, "the delivery is recorded", func() bool { return b.query("select count(*) from deliveries where status = 'delivered'") == 1 })
			t.Logf("delivered %s after the restart", time.Since(restarted))
			all := b.receiver.all()
			if len(all) > c.most {
				t.Errorf("%d webhooks, want at most %d", len(all), c.most)
			}
			for _, got := range all {
				if got.id != all[0].id || !slices.Equal(got.task.VideoIDs, []string{"PI-1"}) {
					t.Errorf("%s: %s", got.id, got.body)
				}
			}
		})
	}
}

func TestSIGTERMUnderLoad(t *testing.T) {
	t.Parallel()
	const tasks = 200
	b := newBench(t, memoriestest.Config{})
	b.env["MEMORIES_REQUESTS_PER_SECOND"] = "100"
	b.env["MEMHOOK_SHUTDOWN_TIMEOUT"] = "4s"
	b.receiver.answers(func(int, received) int {
		time.Sleep(100 * time.Millisecond)
		return http.StatusNoContent
	})
	in := b.start("")
	for i := range tasks {
		id := fmt.Sprintf("task-%d", i)
		b.sim.Add(readyAfter(id, 0, "PI-"+id))
		in.register(id, nil)
	}
	b.receiver.await(t, 20, 10*time.Second)
	status, took := in.terminate(6 * time.Second)
	after := len(b.receiver.all())
	t.Logf("stopped in %s with %d of %d delivered", took, after, tasks)
	if status != 0 || took > 4*time.Second {
		t.Errorf("exit status %d after %s\n%s", status, took, in.log)
	}
	if n := b.query("select count(*) from river_job where state = 'running'"); n != 0 {
		t.Errorf("%d jobs are still marked as running", n)
	}
	b.start("")
	until(t, 30*time.Second, "all are delivered", func() bool { return b.query("select count(*) from deliveries where status = 'delivered'") == tasks })
	ids := make(map[string]bool)
	for _, got := range b.receiver.all() {
		ids[got.id] = true
	}
	if len(ids) != tasks {
		t.Errorf("%d events arrived, want %d", len(ids), tasks)
	}
}

func TestBadSettingsEndWithStatusTwo(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), binary, "serve")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "GOCOVERDIR=" + cmp.Or(coverDir, os.DevNull), "MEMHOOK_ADMIN_TOKEN=short", "MEMHOOK_RETRY_SCHEDULE=5s,soon"}
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != 2 {
		t.Errorf("exit status %d", cmd.ProcessState.ExitCode())
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i, want := range []string{"DATABASE_URL: missing", "MEMHOOK_ADMIN_TOKEN: must have at least 16", "MEMHOOK_ENCRYPTION_KEY: missing", "MEMHOOK_RETRY_SCHEDULE: \"soon\""} {
		if len(lines) != 4 || !strings.HasPrefix(lines[i], want) || !strings.Contains(lines[i], "for example") {
			t.Fatalf("line %d of %q, want %q", i, lines, want)
		}
	}
}

func TestDatabaseAwayAtTheStart(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "serve")
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "DATABASE_URL=postgres://nobody@" + freeAddr(t) + "/none", "MEMHOOK_ADDR=127.0.0.1:0",
		"MEMHOOK_ENCRYPTION_KEY=bWVtaG9vayB0ZXN0cyBzZWFsIHdpdGggdGhpcyBrZXk=",
	}
	start := time.Now()
	out, _ := cmd.CombinedOutput()
	if took := time.Since(start); cmd.ProcessState.ExitCode() != 1 || took < 29*time.Second || took > 40*time.Second {
		t.Errorf("exit status %d after %s", cmd.ProcessState.ExitCode(), took)
	}
	if n := strings.Count(string(out), "waiting for the database"); n < 20 || !strings.Contains(string(out), "could not be reached within 30s") {
		t.Errorf("%d lines of waiting:\n%s", n, out)
	}
}
