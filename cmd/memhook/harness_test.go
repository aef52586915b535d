package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/memhook/memhook/cmd/memhook-dev/proc"
	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store/storetest"
	"github.com/memhook/memhook/webhook"
)

// binary is the real memhook and devBinary the real memhook-dev, each built once for all tests.
var binary, devBinary string

// coverDir is where processes leave what of them was run; empty unless `make cover` asks.
var coverDir = os.Getenv("MEMHOOK_COVER")

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "memhook-test-")
	if err != nil {
		panic(err)
	}
	binary, devBinary = filepath.Join(dir, "memhook"), filepath.Join(dir, "memhook-dev")
	build := []string{"build", "-o", dir + "/"}
	if coverDir != "" {
		build = append(build, "-cover", "-covermode=atomic", "-coverpkg=github.com/memhook/memhook/...")
	}
	if out, err := exec.Command("go", append(build, ".", "../memhook-dev")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %s: %s\n", err, out)
		os.Exit(1)
	}
	storetest.Main(m, func() { _ = os.RemoveAll(dir) })
}

const (
	testAPIKey     = "test-api-key-0123456789"
	testAdminToken = "test-admin-token-0123456789"
)

// bench is everything around an instance: database, simulated memories.ai and receiver.
type bench struct {
	t        *testing.T
	database string
	sim      *memoriestest.Server
	env      map[string]string
	receiver *receiver
}

func newBench(t *testing.T, simulated memoriestest.Config) *bench {
	t.Helper()
	b := &bench{t: t, database: storetest.URL(t), sim: memoriestest.New(simulated), receiver: newReceiver(t)}
	server := httptest.NewServer(b.sim)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close(); b.sim.Close() })
	through, pooler := storetest.Pooled(t, b.database)
	b.env = map[string]string{
		"DATABASE_URL": through, "MEMHOOK_DATABASE_POOLER": pooler, "MEMHOOK_ENCRYPTION_KEY": storetest.EncryptionKey, "MEMHOOK_API_KEY": testAPIKey, "MEMHOOK_ADMIN_TOKEN": testAdminToken,
		"MEMORIES_API_KEY": "sk-mavi-test", "MEMORIES_BASE_URL": server.URL, "MEMHOOK_ALLOW_HTTP_CALLBACKS": "true",
		"MEMHOOK_ALLOWED_CALLBACK_NETWORKS": "127.0.0.0/8", "MEMHOOK_RETRY_SCHEDULE": "500ms,500ms,500ms,5m", "MEMHOOK_LOG_LEVEL": "info",
		"MEMHOOK_PUBLIC_URL": "http://127.0.0.1", "MEMHOOK_DRAIN_TIME": "0s",
	}
	return b
}

// instance is one process of the real binary.
type instance struct {
	*bench
	cmd  *exec.Cmd
	url  string
	log  *safeBuffer
	done chan error
}

// start runs `memhook serve` on an address; an empty one takes a free port.
func (b *bench) start(addr string, args ...string) *instance {
	b.t.Helper()
	return b.startBinary(binary, addr, args...)
}

// startBinary is start with another build of memhook.
func (b *bench) startBinary(program, addr string, args ...string) *instance {
	b.t.Helper()
	if addr == "" {
		addr = freeAddr(b.t)
	}
	in := &instance{bench: b, url: "http://" + addr, log: &safeBuffer{}, done: make(chan error, 1)}
	in.cmd = exec.Command(program, append([]string{"serve"}, args...)...)
	in.cmd.Env = append(in.cmd.Env, "PATH="+os.Getenv("PATH"), "HOME="+os.Getenv("HOME"), "MEMHOOK_ADDR="+addr)
	if coverDir != "" {
		in.cmd.Env = append(in.cmd.Env, "GOCOVERDIR="+coverDir)
	}
	for k, v := range b.env {
		in.cmd.Env = append(in.cmd.Env, k+"="+v)
	}
	in.cmd.Stderr = in.log
	if err := in.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	go func() { in.done <- in.cmd.Wait() }()
	b.t.Cleanup(func() {
		if coverDir != "" { // what is killed leaves nothing
			_ = in.cmd.Process.Signal(syscall.SIGTERM)
			time.AfterFunc(25*time.Second, func() { _ = in.cmd.Process.Kill() })
			in.done <- <-in.done
		}
		_ = in.cmd.Process.Kill()
		select {
		case <-in.done:
		case <-time.After(5 * time.Second):
		}
		if b.t.Failed() {
			b.t.Logf("log of the instance at %s:\n%s", addr, in.log)
		}
	})
	until(b.t, 20*time.Second, "the instance is ready", func() bool {
		resp, err := http.Get(in.url + "/readyz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return in
}

// kill ends the instance as kill -9 does and waits until it is gone.
func (in *instance) kill() {
	in.t.Helper()
	if err := in.cmd.Process.Kill(); err != nil {
		in.t.Fatal(err)
	}
	in.done <- <-in.done
}

// terminate sends SIGTERM and returns the exit status and how long it took.
func (in *instance) terminate(within time.Duration) (status int, took time.Duration) {
	in.t.Helper()
	start := time.Now()
	if err := in.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		in.t.Fatal(err)
	}
	select {
	case err := <-in.done:
		in.done <- err
	case <-time.After(within):
		in.t.Fatalf("not stopped within %s", within)
	}
	return in.cmd.ProcessState.ExitCode(), time.Since(start)
}

// call makes a request with the app's key and returns the status, reading the answer into out.
func (in *instance) call(method, path string, body, out any) int {
	in.t.Helper()
	return in.callWith(testAPIKey, method, path, body, out)
}

func (in *instance) admin(method, path string, body, out any) int {
	in.t.Helper()
	return in.callWith(testAdminToken, method, path, body, out)
}

func (in *instance) callWith(token, method, path string, body, out any) int {
	in.t.Helper()
	var reader io.Reader
	switch v := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(v)
	default:
		raw, err := json.Marshal(v)
		if err != nil {
			in.t.Fatal(err)
		}
		reader = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(in.t.Context(), method, in.url+path, reader)
	if err != nil {
		in.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		in.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		in.t.Fatal(err)
	}
	if out != nil {
		if err := json.Unmarshal(raw, out); err != nil {
			in.t.Fatalf("%s %s: %d %s: %v", method, path, resp.StatusCode, raw, err)
		}
	}
	return resp.StatusCode
}

type taskJSON struct {
	ID            string
	TaskID        string `json:"task_id"`
	Status        string
	VideoIDs      []string `json:"video_ids"`
	Polls         int
	Subscriptions []struct {
		EndpointID string `json:"endpoint_id"`
	}
}

// register registers a task for the bench's receiver.
func (in *instance) register(taskID string, extra map[string]any) taskJSON {
	in.t.Helper()
	body := map[string]any{"task_id": taskID, "callback_url": in.receiver.URL}
	maps.Copy(body, extra)
	var task taskJSON
	if status := in.call(http.MethodPost, "/v1/tasks", body, &task); status != http.StatusCreated {
		in.t.Fatalf("register %s: %d", taskID, status)
	}
	return task
}

// secret reads the signing secret of a task's endpoint.
func (in *instance) secret(task taskJSON) string {
	in.t.Helper()
	var out struct{ Secret string }
	if status := in.call(http.MethodGet, "/v1/endpoints/"+task.Subscriptions[0].EndpointID+"/secret", nil, &out); status != http.StatusOK {
		in.t.Fatalf("secret: %d", status)
	}
	return out.Secret
}

// query reads one value from the instance's database.
func (b *bench) query(sql string, args ...any) (n int) {
	b.t.Helper()
	conn, err := pgx.Connect(b.t.Context(), b.database)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if err := conn.QueryRow(b.t.Context(), sql, args...).Scan(&n); err != nil {
		b.t.Fatal(err)
	}
	return n
}

// scan reads one value of any kind from the instance's database.
func (b *bench) scan(into any, sql string, args ...any) {
	b.t.Helper()
	conn, err := pgx.Connect(b.t.Context(), b.database)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if err := conn.QueryRow(b.t.Context(), sql, args...).Scan(into); err != nil {
		b.t.Fatal(err)
	}
}

// exec runs a statement in the instance's database.
func (b *bench) exec(sql string, args ...any) {
	b.t.Helper()
	conn, err := pgx.Connect(b.t.Context(), b.database)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(b.t.Context(), sql, args...); err != nil {
		b.t.Fatal(err)
	}
}

// locked runs fn while a table is locked against everybody.
func (b *bench) locked(table string, fn func()) {
	b.t.Helper()
	conn, err := pgx.Connect(b.t.Context(), b.database)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(b.t.Context(), "begin; lock table "+table+" in access exclusive mode"); err != nil {
		b.t.Fatal(err)
	}
	fn()
	if _, err := conn.Exec(b.t.Context(), "rollback"); err != nil {
		b.t.Fatal(err)
	}
}

// receiver is a customer's system: it keeps what it gets and answers as told.
type receiver struct {
	*httptest.Server

	mu     sync.Mutex
	got    []received
	answer func(n int, r received) int // n counts from 1; nil answers 204
}

type received struct {
	at     time.Time
	id     string
	query  string
	header http.Header
	body   []byte
	event  webhook.Event
	task   webhook.Task
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(r)
	t.Cleanup(func() { r.CloseClientConnections(); r.Close() })
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	got := received{at: time.Now(), id: req.Header.Get(webhook.HeaderID), query: req.URL.RawQuery, header: req.Header}
	got.body, _ = io.ReadAll(req.Body)
	if json.Unmarshal(got.body, &got.event) == nil {
		_ = json.Unmarshal(got.event.Data, &got.task)
	}
	r.mu.Lock()
	r.got = append(r.got, got)
	n, answer := len(r.got), r.answer
	r.mu.Unlock()
	status := http.StatusNoContent
	if answer != nil {
		status = answer(n, got)
	}
	w.WriteHeader(status)
}

func (r *receiver) answers(fn func(n int, got received) int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = fn
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]received(nil), r.got...)
}

// await waits until n webhooks have come.
func (r *receiver) await(t *testing.T, n int, within time.Duration) []received {
	t.Helper()
	until(t, within, fmt.Sprintf("%d webhooks have come", n), func() bool { return len(r.all()) >= n })
	return r.all()
}

// until waits for a condition, at most within.
func until(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// freeAddr gives an address for a process of the test's.
func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := proc.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// safeBuffer collects a process's output while it runs.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// readyAfter scripts a task whose list is non-empty after some time.
func readyAfter(id string, after time.Duration, ids ...string) memoriestest.Task {
	videos := make([]memoriestest.Video, len(ids))
	for i, video := range ids {
		videos[i].ID = video
	}
	return memoriestest.Task{TaskID: id, Steps: []memoriestest.Step{{AfterMS: after.Milliseconds(), Videos: videos}}}
}
