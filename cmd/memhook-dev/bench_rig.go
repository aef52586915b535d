package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/cmd/memhook-dev/proc"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/localpg"
	"github.com/memhook/memhook/worker"
)

// rig is what a benchmark runs on: a private PostgreSQL with durable commits, and processes of memhook and of
// memhook-dev.
type rig struct {
	pg       *localpg.Server
	store    *store.Store
	app      store.App
	account  store.Account
	env      []string
	stderr   io.Writer // gets the processes' log
	children []*exec.Cmd
}

// benchSettings are PostgreSQL settings of a small production server. Commits wait for the disk.
var benchSettings = map[string]string{"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "15min"}

func newRig(ctx context.Context, extra map[string]string) (*rig, error) {
	return newRigWith(ctx, extra, nil)
}

// newRigWith makes a rig whose processes get extra in their environment, and PostgreSQL further settings.
func newRigWith(ctx context.Context, extra, settings map[string]string) (_ *rig, err error) {
	r := &rig{stderr: os.Stderr}
	postgres := maps.Clone(benchSettings)
	maps.Copy(postgres, settings)
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.pg, err = localpg.Start(ctx, localpg.Options{Durable: true, Settings: postgres}); err != nil {
		return nil, err
	}
	env := map[string]string{
		"DATABASE_URL": r.pg.URL("postgres"), "MEMHOOK_ENCRYPTION_KEY": randomBase64(32),
		"MEMHOOK_ALLOW_HTTP_CALLBACKS":      "true",
		"MEMORIES_BASE_URL":                 "http://127.0.0.1:1", // nobody: a benchmark that polls names its own
		"MEMHOOK_ALLOWED_CALLBACK_NETWORKS": "127.0.0.0/8", "MEMHOOK_ADMIN_TOKEN": randomBase64(24), "MEMHOOK_LOG_LEVEL": "warn",
	}
	maps.Copy(env, extra)
	for k, v := range env {
		r.env = append(r.env, k+"="+v)
	}
	pool, err := store.Open(ctx, store.Database{URL: env["DATABASE_URL"], Conns: 10, Patience: 10 * time.Second})
	if err != nil {
		return nil, err
	}
	if err := store.Migrate(ctx, pool, nil); err != nil {
		return nil, err
	}
	keys, err := store.ParseKeyring(env["MEMHOOK_ENCRYPTION_KEY"])
	if err != nil {
		return nil, err
	}
	if r.store, err = store.New(pool, store.Config{Keys: keys, Encode: worker.EncodeEvent, Settle: 10 * time.Minute}); err != nil {
		return nil, err
	}
	if r.account, err = r.store.CreateAccount(ctx, benchAccount); err != nil {
		return nil, err
	}
	r.app, err = r.store.CreateApp(ctx, "bench", r.account.ID)
	return r, err
}

// serve runs `memhook serve` at a free address. The binary must be in the directory of this one.
func (r *rig) serve(ctx context.Context) (addr string, pid int, err error) {
	return r.serveAs(ctx, "memhook", "serve")
}

// serveAs runs a program beside this one, which must serve as `memhook serve` does, at a free address.
func (r *rig) serveAs(ctx context.Context, name string, args ...string) (addr string, pid int, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", 0, err
	}
	program := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(program); err != nil {
		return "", 0, fmt.Errorf("the benchmarks need %s beside memhook-dev (run make build): %w", name, err)
	}
	if addr, err = proc.FreePort(); err != nil {
		return "", 0, err
	}
	cmd, err := r.run(ctx, addr, program, args...)
	if err != nil {
		return "", 0, err
	}
	return addr, cmd.Process.Pid, nil
}

// start runs this program with args and waits until it answers at addr.
func (r *rig) start(ctx context.Context, addr string, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	_, err = r.run(ctx, addr, self, args...)
	return err
}

func (r *rig) run(ctx context.Context, addr, program string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(program, args...) //nolint:gosec // memhook or this program
	cmd.Env = append(slices.Clone(r.env), "MEMHOOK_ADDR="+addr, "HOME="+os.Getenv("HOME"))
	cmd.Stderr = r.stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r.children = append(r.children, cmd)
	for range 200 {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		resp, err := http.Get("http://" + addr + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return cmd, nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, fmt.Errorf("%v did not answer at %s", args, addr)
}

func (r *rig) close() {
	for _, c := range slices.Backward(r.children) { // memhook before what it talks to
		_ = c.Process.Signal(syscall.SIGTERM)
		done := make(chan struct{})
		go func() { _ = c.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			_ = c.Process.Kill()
		}
	}
	if r.store != nil {
		r.store.Pool().Close()
	}
	if r.pg != nil {
		_ = r.pg.Stop()
	}
}

// appsFor returns the rig's app, with n-1 more.
func (r *rig) appsFor(ctx context.Context, n int) ([]uuid.UUID, error) {
	apps := []uuid.UUID{r.app.ID}
	for i := 1; i < n; i++ {
		app, err := r.store.CreateApp(ctx, fmt.Sprintf("bench-%d", i), r.account.ID)
		if err != nil {
			return nil, err
		}
		apps = append(apps, app.ID)
	}
	return apps, nil
}

// registerAll registers n tasks in batches, each for the app and the callback URL that to returns for its number. Their
// poll job stays, so that memhook makes no other, but is due only after the benchmark.
func (r *rig) registerAll(ctx context.Context, n int, to func(i int) (app uuid.UUID, url string)) ([]store.Registered, error) {
	all := make([]store.Registered, 0, n)
	for len(all) < n {
		batch := make([]store.Registration, min(1000, n-len(all)))
		for i := range batch {
			k := len(all) + i
			app, url := to(k)
			batch[i] = store.Registration{
				AppID:      app,
				UpstreamID: fmt.Sprintf("bench-%s-%d", randomBase64(6), k), UniqueID: "default",
				CallbackURL: url, Until: store.UntilDownloaded,
				Metadata: map[string]string{"order": strconv.Itoa(k)}, ExpiresIn: 24 * time.Hour,
			}
		}
		out, err := r.store.RegisterTasks(ctx, batch)
		if err != nil {
			return nil, err
		}
		all = append(all, out...)
	}
	_, err := r.store.Pool().Exec(ctx, `
		update river_job set state = 'scheduled', scheduled_at = now() + interval '1 day' where kind = 'poll'`)
	return all, err
}

// cpuOfAll returns the CPU seconds that each process has used so far; PostgreSQL's include its backends.
func cpuOfAll(pids []int, postgres int) ([]float64, error) {
	out := make([]float64, len(pids))
	for i, pid := range pids {
		used := proc.CPUAlone
		if pid == postgres {
			used = proc.CPU
		}
		var err error
		if out[i], err = used(pid); err != nil {
			return nil, err
		}
	}
	return out, nil
}

var benchAccount = store.NewAccount{Name: "bench", APIKey: "sk-mavi-bench", RequestsPerSecond: 1} //nolint:gosec // of the simulator
