package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/localpg"
	"github.com/memhook/memhook/worker"
)

// rig is what a benchmark runs on: a private PostgreSQL with durable commits, and processes of this
// binary beside it.
type rig struct {
	pg       *localpg.Server
	store    *store.Store
	app      store.App
	account  store.Account
	env      []string
	stderr   io.Writer // of the processes
	children []*exec.Cmd
}

// benchSettings are PostgreSQL's, as a small production server has them. Commits wait for the disk.
var benchSettings = map[string]string{"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "15min"}

func newRig(ctx context.Context, extra map[string]string) (_ *rig, err error) {
	r := &rig{stderr: os.Stderr}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.pg, err = localpg.Start(ctx, localpg.Options{Durable: true, Settings: benchSettings}); err != nil {
		return nil, err
	}
	env := map[string]string{
		"DATABASE_URL": r.pg.URL("postgres"), "MEMHOOK_ENCRYPTION_KEY": randomBase64(32), "MEMHOOK_ALLOW_HTTP_CALLBACKS": "true",
		"MEMHOOK_ALLOWED_CALLBACK_NETWORKS": "127.0.0.0/8", "MEMHOOK_ADMIN_TOKEN": randomBase64(24), "MEMHOOK_LOG_LEVEL": "warn",
	}
	maps.Copy(env, extra)
	for k, v := range env {
		r.env = append(r.env, k+"="+v)
	}
	pool, err := store.Open(ctx, env["DATABASE_URL"], 10, 10*time.Second, func(error) {})
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
	if r.account, err = r.store.CreateAccount(ctx, store.NewAccount{Name: "bench", APIKey: "sk-mavi-bench", RequestsPerSecond: 1}); err != nil {
		return nil, err
	}
	r.app, err = r.store.CreateApp(ctx, "bench", r.account.ID)
	return r, err
}

// start runs this binary with args and waits until it answers at addr.
func (r *rig) start(ctx context.Context, addr string, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, args...) //nolint:gosec // itself
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
	for _, c := range r.children {
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

// registerAll registers n tasks on the rig's app in batches, spread over the given callback URLs, without
// poll jobs. It returns their ids.
func (r *rig) registerAll(ctx context.Context, n int, urls []string) ([]store.Registered, error) {
	all := make([]store.Registered, 0, n)
	for len(all) < n {
		batch := make([]store.Registration, min(1000, n-len(all)))
		for i := range batch {
			k := len(all) + i
			batch[i] = store.Registration{
				AppID: r.app.ID, UpstreamID: fmt.Sprintf("bench-%s-%d", randomBase64(6), k), UniqueID: "default",
				CallbackURL: urls[k%len(urls)], Until: store.UntilDownloaded, Metadata: map[string]string{"order": strconv.Itoa(k)}, ExpiresAt: time.Now().Add(24 * time.Hour),
			}
		}
		out, err := r.store.RegisterTasks(ctx, batch)
		if err != nil {
			return nil, err
		}
		all = append(all, out...)
	}
	_, err := r.store.Pool().Exec(ctx, `delete from river_job where kind = 'poll'`)
	return all, err
}

// Ports for our own processes lie below those that operating systems give to connections and to listeners on port 0:
// such a port may be taken again before the process for which it was found gets to it, or while that process restarts.
const firstPort, ports = 20_000, 10_000

var portsGiven atomic.Uint32

// freePort gives an address on loopback for a process to listen on, each only once.
func freePort() (string, error) {
	start := os.Getpid() * 61 // another process of ours gives others
	for range ports {
		port := firstPort + (start+int(portsGiven.Add(1)))%ports
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			return l.Addr().String(), l.Close()
		}
	}
	return "", fmt.Errorf("no port from %d to %d is free on 127.0.0.1", firstPort, firstPort+ports-1)
}

// cpu gives the CPU seconds that a process has used, of the operating system's account, with those of its
// children, running or ended.
func cpu(pid int) (float64, error) {
	own, _, err := cpuOf(pid)
	if err != nil {
		return 0, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if used, parent, err := cpuOf(child); err == nil && parent == pid {
			own += used
		}
	}
	return own, nil
}

// cpuOf reads /proc/PID/stat: user and system time of the process and of its ended children, and its parent.
func cpuOf(pid int) (seconds float64, parent int, err error) {
	const ticksPerSecond = 100 // USER_HZ, the same on all Linux systems that Go runs on
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	_, rest, _ := strings.Cut(string(raw[bytes.LastIndexByte(raw, ')'):]), " ")
	fields := strings.Fields(rest) // from the third field on
	if len(fields) < 15 {
		return 0, 0, errors.New("unexpected /proc/PID/stat")
	}
	if parent, err = strconv.Atoi(fields[1]); err != nil {
		return 0, 0, err
	}
	for _, f := range fields[11:15] {
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return 0, 0, err
		}
		seconds += n / ticksPerSecond
	}
	return seconds, parent, nil
}

// peakMemory gives the most memory that a process has had resident, in MiB.
func peakMemory(pid int) float64 { return memoryOf(pid, "VmHWM:") }

// residentMemory gives the memory that a process has resident now, in MiB.
func residentMemory(pid int) float64 { return memoryOf(pid, "VmRSS:") }

// memoryOf reads a line of /proc/PID/status, in MiB.
func memoryOf(pid int, which string) float64 {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if value, ok := strings.CutPrefix(line, which); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kib / 1024
		}
	}
	return 0
}
