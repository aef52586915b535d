package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store/localpg"
)

// firstLanded is the first version that had users: upgrades from it must work.
const firstLanded = "e847d0f050b7a09c81b80b063b984341d53efdca"

// buildVersion builds the memhook of a commit and returns the program.
func buildVersion(t *testing.T, commit string) string {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "tree")
	root := repository(t, ".")
	if out, err := exec.Command("sh", "-c", `mkdir -p "$1" && git -C "$2" archive "$3" | tar -x -C "$1"`, "sh", tree, root, commit).CombinedOutput(); err != nil {
		t.Fatalf("version %s (a shallow clone does not have it): %v: %s", commit, err, out)
	}
	program := filepath.Join(tree, "memhook")
	build := exec.Command("go", "build", "-o", program, "./cmd/memhook")
	build.Dir = tree
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build version %s: %v: %s", commit, err, out)
	}
	return program
}

// The first landed version and this one run side by side on one database, while it is migrated under load.
func TestUpgradeFromTheFirstVersion(t *testing.T) {
	t.Parallel()
	old := buildVersion(t, firstLanded)
	b := newBench(t, memoriestest.Config{})
	b.fast()
	pg, err := localpg.Start(t.Context(), localpg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pg.Stop() })
	b.database = pg.URL("postgres")
	b.env["DATABASE_URL"] = b.database
	before := b.startBinary(old, "")
	b.sim.Add(memoriestest.Task{TaskID: "first"})
	before.register("first", nil)
	n := pick(20_000, 100_000)
	b.query(`
		with made as (
			insert into tasks (id, app_id, account_id, task_id, unique_id, status, polling, urgent, created_at, expires_at)
			select (lpad(to_hex((extract(epoch from now()) * 1000)::bigint - 1000000 - i), 12, '0') || '7000' || right(md5(i::text), 16))::uuid,
				a.id, a.account_id, 'seeded-' || i, 'default', 'ready', false, false, now(), now()
			from apps a, generate_series(1, $1::int) i where a.name = 'default'
			returning 1
		)
		select count(*)::int from made`, n)

	// Load on the old one, then on both, then on the new one alone.
	var stop atomic.Bool
	var accepted []string
	var failed []string
	var mu sync.Mutex
	targets := []*instance{before}
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; !stop.Load(); i++ {
			mu.Lock()
			in := targets[i%len(targets)]
			mu.Unlock()
			id := fmt.Sprintf("live-%d", i)
			b.sim.Add(readyAfter(id, 0, "PI-"+id))
			status := in.call(http.MethodPost, "/v1/tasks", map[string]any{"task_id": id, "callback_url": b.receiver.URL + "/?task=" + id}, nil)
			mu.Lock()
			if status == http.StatusCreated {
				accepted = append(accepted, id)
			} else {
				failed = append(failed, fmt.Sprintf("%s: %d", id, status))
			}
			mu.Unlock()
			time.Sleep(10 * time.Millisecond)
		}
	})
	time.Sleep(2 * time.Second)
	migrate := exec.Command(binary, "migrate", "up")
	migrate.Env = append(os.Environ(), "DATABASE_URL="+b.database)
	start := time.Now()
	out, err := migrate.CombinedOutput()
	if err != nil {
		t.Fatalf("migrate: %v: %s", err, out)
	}
	t.Logf("migrated %d tasks under load in %s:\n%s", n, time.Since(start), out)
	after := b.start("")
	mu.Lock()
	targets = []*instance{before, after}
	mu.Unlock()
	time.Sleep(3 * time.Second)
	mu.Lock()
	targets = []*instance{after}
	mu.Unlock()
	time.Sleep(200 * time.Millisecond)
	if status, _ := before.terminate(20 * time.Second); status != 0 {
		t.Errorf("the first version ended with %d", status)
	}
	time.Sleep(2 * time.Second)
	stop.Store(true)
	wg.Wait()
	if len(failed) > 0 {
		t.Errorf("%d registrations failed: %v", len(failed), failed[:min(len(failed), 5)])
	}
	until(t, 30*time.Second, "every accepted task's event has come", func() bool {
		got := make(map[string]bool)
		for _, r := range b.receiver.all() {
			if r.task.TaskID != "first" && r.query != "task="+r.task.TaskID {
				t.Fatalf("%s came with the query %q", r.task.TaskID, r.query)
			}
			got[r.task.TaskID] = true
		}
		for _, id := range accepted {
			if !got[id] {
				return false
			}
		}
		return true
	})
	for name, log := range map[string]string{"first": before.log.String(), "new": after.log.String()} {
		for line := range strings.Lines(log) {
			if strings.Contains(line, `"level":"ERROR"`) {
				t.Errorf("the %s version: %s", name, line)
			}
		}
	}
	t.Logf("%d registrations, none failed, all delivered", len(accepted))

	// The first version refuses the newer schema.
	refuses := exec.Command(old, "serve")
	for k, v := range b.env {
		refuses.Env = append(refuses.Env, k+"="+v)
	}
	refuses.Env = append(refuses.Env, "MEMHOOK_ADDR=127.0.0.1:0")
	if out, err := refuses.CombinedOutput(); err == nil || !strings.Contains(string(out), "newer") {
		t.Errorf("the first version on the newer schema: %v: %s", err, out)
	}
}

// A dump that is taken under load and restored into a new server goes on there: what waited is polled, and
// what was due is sent.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	b.env["MEMHOOK_RETRY_SCHEDULE"] = strings.TrimSuffix(strings.Repeat("1s,", 200), ",")
	in := b.start("")
	b.sim.Add(memoriestest.Task{TaskID: "waits"})
	in.register("waits", nil)
	b.receiver.answers(func(_ int, got received) int {
		if strings.HasPrefix(got.task.TaskID, "due-") {
			return http.StatusInternalServerError // until after the restore
		}
		return http.StatusNoContent
	})
	for i := range 5 {
		in.registerAt(fmt.Sprintf("due-%d", i), b.receiver.URL)
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; !stop.Load(); i++ {
			in.registerAt(fmt.Sprintf("load-%d", i), b.receiver.URL)
			time.Sleep(5 * time.Millisecond)
		}
	})
	b.receiver.await(t, 50, 20*time.Second)
	file := filepath.Join(t.TempDir(), "memhook.dump")
	dump, err := localpg.Program("pg_dump")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(dump, "--format=custom", "--file="+file, b.database).CombinedOutput(); err != nil {
		t.Fatalf("pg_dump: %v: %s", err, out)
	}
	stop.Store(true)
	wg.Wait()
	in.kill()
	dumped := len(b.receiver.all())

	pg, err := localpg.Start(t.Context(), localpg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pg.Stop() })
	restore, err := localpg.Program("pg_restore")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(restore, "--no-owner", "--dbname="+pg.URL("postgres"), file).CombinedOutput(); err != nil {
		t.Fatalf("pg_restore: %v: %s", err, out)
	}
	b.database = pg.URL("postgres")
	b.env["DATABASE_URL"] = b.database
	b.receiver.answers(nil)
	b.sim.Add(readyAfter("waits", 0, "PI-1"))
	in = b.start("")
	// The endpoint may rest, and a probe that was lost with the old server counts as such after a minute.
	until(t, 100*time.Second, "what waited and what was due has come", func() bool {
		got := make(map[string]bool)
		for _, r := range b.receiver.all()[dumped:] {
			got[r.task.TaskID] = true
		}
		for i := range 5 {
			if !got[fmt.Sprintf("due-%d", i)] {
				return false
			}
		}
		return got["waits"]
	})
	until(t, 20*time.Second, "nothing is left", func() bool { return b.query(`select count(*) from deliveries where status = 'pending'`) == 0 })
	if status := in.call(http.MethodGet, "/v1/tasks?limit=1", nil, nil); status != http.StatusOK {
		t.Errorf("the API after the restore: %d", status)
	}
	// What was under way at the dump may come twice, under its id.
	ids := make(map[string]int)
	for _, r := range b.receiver.all() {
		if !strings.HasPrefix(r.task.TaskID, "due-") {
			ids[r.id]++
		}
	}
	twice := 0
	for _, n := range ids {
		if n > 1 {
			twice++
		}
	}
	t.Logf("%d webhooks before the loss, %d after the restore, %d events twice", dumped, len(b.receiver.all())-dumped, twice)
}

// The binary as the Dockerfile builds it is static, small, starts fast, and runs as nobody on a file system that
// it cannot write to.
func TestTheReleaseBinary(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "memhook-release-") // where another user can read it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	release := filepath.Join(dir, "memhook")
	// The short form goes without -trimpath, for which everything would be compiled anew.
	build := exec.Command("go", append([]string{"build", "-ldflags", "-s -w -X github.com/memhook/memhook/cmd/internal/app.release=1.2.3", "-o", release}, pick([]string{"."}, []string{"-trimpath", "."})...)...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	info, err := os.Stat(release)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MB", float64(info.Size())/1e6)
	if info.Size() > 40e6 {
		t.Errorf("%d bytes", info.Size())
	}
	if out, _ := exec.Command("ldd", release).CombinedOutput(); !strings.Contains(string(out), "not a dynamic executable") && !strings.Contains(string(out), "statically linked") {
		t.Errorf("ldd: %s", out)
	}
	if out, err := exec.Command(release, "version").Output(); err != nil || string(out) != "memhook 1.2.3\n" {
		t.Errorf("version: %v %q", err, out)
	}
	b := newBench(t, memoriestest.Config{})
	// Over TCP: the private server's socket is its owner's alone.
	_, port, _ := strings.Cut(freeAddr(t), ":")
	pg, err := localpg.Start(t.Context(), localpg.Options{Settings: map[string]string{"listen_addresses": "127.0.0.1", "port": port}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pg.Stop() })
	b.database = "postgres://memhook@127.0.0.1:" + port + "/postgres"
	b.env["DATABASE_URL"] = b.database
	b.start("").terminate(10 * time.Second) // the database is migrated
	var took []time.Duration
	for range 3 {
		addr := freeAddr(t)
		cmd := exec.Command(release, "serve")
		for k, v := range b.env {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
		cmd.Env = append(cmd.Env, "MEMHOOK_ADDR="+addr)
		var log safeBuffer
		cmd.Stderr = &log
		if os.Geteuid() == 0 {
			// Nobody, on a read-only root: a mount namespace of its own in which / is read-only.
			cmd.Args = []string{"unshare", "--mount", "sh", "-c", `mount -o remount,bind,ro / && exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs "$0" serve`, release}
			cmd.Path = "/usr/bin/unshare"
		}
		start := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ready := false
		for deadline := time.Now().Add(10 * time.Second); !ready && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if resp, err := http.Get("http://" + addr + "/readyz"); err == nil {
				ready = resp.StatusCode == http.StatusOK
				_ = resp.Body.Close()
			}
		}
		took = append(took, time.Since(start))
		if ready {
			health := exec.Command(release, "health")
			health.Env = []string{"MEMHOOK_ADDR=" + addr}
			if out, err := health.CombinedOutput(); err != nil {
				t.Errorf("health: %v: %s", err, out)
			}
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if !ready {
			t.Fatalf("not ready: %s", log.String())
		}
	}
	t.Logf("ready after %v", took)
	if best := min(took[0], took[1], took[2]); best > pick(2*time.Second, 300*time.Millisecond) {
		t.Errorf("ready after %v", took)
	}
}
