package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/memhook/memhook/store/localpg"
	"github.com/memhook/memhook/store/storetest"
)

var chaosSeed = flag.Uint64("chaos-seed", 0, "seed of the chaos test; 0 draws one")

// chaos is a small world: a PostgreSQL behind a proxy, a simulated memories.ai as a process, three instances of
// the real binary, three apps on three accounts, one of them of the Datalake, with receivers each, a steady load, one who
// follows the feed, and faults drawn from a seed.
type chaos struct {
	t     *testing.T
	rand  *rand.Rand
	begin time.Time

	binary    string
	rps       float64 // the budget of each of the three accounts
	disk      string  // a small file system for PostgreSQL; "" where none could be mounted
	pg        *localpg.Server
	pgAddr    string
	proxy     *toxiproxy.Proxy
	sim       *exec.Cmd
	simURL    string
	instances []*chaosInstance
	apps      []*chaosApp

	follower *follower
	deck     []int // the kinds of fault that are still to come before one comes again

	mu    sync.Mutex
	harms []harm
	tasks []*chaosTask
}

type chaosInstance struct {
	addr string
	skew int // seconds by which its clock is ahead
	mu   sync.Mutex
	cmd  *exec.Cmd
	log  safeBuffer
}

type chaosApp struct {
	name, key string
	datalake  bool // the generation of its account's API
	receivers []*chaosReceiver
}

// chaosTask is a registration that was answered with 200 or 201: what must come of it.
type chaosTask struct {
	app       *chaosApp
	id        string
	fate      string
	videos    []string // the whole list, in order
	receivers []*chaosReceiver
}

// newChaos builds the world, with a binary of memhook that may be a broken one.
func newChaos(t *testing.T, bin string, seed uint64, rps float64) *chaos {
	t.Helper()
	c := &chaos{t: t, rand: rand.New(rand.NewPCG(seed, 3)), begin: time.Now(), binary: bin, rps: rps}
	c.disk = smallDisk(t)
	port := freeAddr(t)
	_, number, _ := net.SplitHostPort(port)
	var err error
	c.pg, err = localpg.Start(t.Context(), localpg.Options{Durable: true, Parent: c.disk, Settings: map[string]string{
		"listen_addresses": "127.0.0.1", "port": number, "max_connections": "100", "shared_buffers": "64MB", "max_wal_size": "128MB", "min_wal_size": "32MB", "wal_keep_size": "0",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.pg.Thaw(); _ = c.pg.Stop() })
	c.pgAddr = port
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	c.proxy = toxiproxy.NewProxy(server, "postgres", freeAddr(t), port)
	if err := c.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.proxy.Stop)

	simAddr := freeAddr(t)
	c.simURL = "http://" + simAddr
	c.sim = exec.Command(devBinary, "sim", "--addr", simAddr, "--requests-per-second", fmt.Sprint(rps), "--unknown", "refuse")
	if err := c.sim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.sim.Process.Signal(syscall.SIGCONT)
		_ = c.sim.Process.Kill()
		_ = c.sim.Wait()
	})
	for range 3 {
		in := &chaosInstance{addr: freeAddr(t)}
		c.instances = append(c.instances, in)
		c.start(in)
	}
	t.Cleanup(func() {
		for _, in := range c.instances {
			c.end(in)
		}
	})
	c.tenants()
	c.follower = c.follow()
	return c
}

func (c *chaos) databaseURL() string {
	return "postgres://memhook@" + c.proxy.Listen + "/postgres?sslmode=disable"
}

// start runs an instance, without waiting for it.
func (c *chaos) start(in *chaosInstance) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.cmd = exec.Command(c.binary, "serve")
	in.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "DATABASE_URL=" + c.databaseURL(), "MEMHOOK_ADDR=" + in.addr, "MEMHOOK_ENCRYPTION_KEY=" + storetest.EncryptionKey, "MEMHOOK_ADMIN_TOKEN=" + testAdminToken,
		"MEMORIES_BASE_URL=" + c.simURL, "MEMHOOK_ALLOW_HTTP_CALLBACKS=true", "MEMHOOK_ALLOWED_CALLBACK_NETWORKS=127.0.0.0/8", "MEMHOOK_DELIVERY_TIMEOUT=" + chaosTimeout.String(), "MEMHOOK_SETTLE_WINDOW=20s",
		"MEMHOOK_RETRY_SCHEDULE=" + strings.TrimSuffix(strings.Repeat("1s,2s,4s,8s,", 50), ","), "MEMHOOK_LOG_LEVEL=info", "MEMHOOK_LOG_FORMAT=text",
		skewVariable + "=" + fmt.Sprint(in.skew),
	}
	in.cmd.Stderr = &in.log
	if err := in.cmd.Start(); err != nil {
		c.t.Error(err)
	}
}

func (c *chaos) end(in *chaosInstance) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.cmd != nil && in.cmd.Process != nil {
		_ = in.cmd.Process.Signal(syscall.SIGCONT)
		_ = in.cmd.Process.Kill()
		_ = in.cmd.Wait()
		in.cmd = nil
	}
}

func (c *chaos) signal(in *chaosInstance, sig syscall.Signal) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.cmd != nil {
		_ = in.cmd.Process.Signal(sig)
	}
}

// call asks any instance until one answers in time; a status of 0 means that none did.
func (c *chaos) call(token, method, path string, body any) (status int, answer []byte) {
	return c.callWithin(5*time.Second, token, method, path, body)
}

// callWithin is call with another patience.
func (c *chaos) callWithin(patience time.Duration, token, method, path string, body any) (status int, answer []byte) {
	var raw []byte
	if body != nil {
		raw, _ = json.Marshal(body)
	}
	client := &http.Client{Timeout: patience}
	first := rand.IntN(len(c.instances))
	for i := range c.instances {
		in := c.instances[(first+i)%len(c.instances)]
		req, err := http.NewRequest(method, "http://"+in.addr+path, bytes.NewReader(raw))
		if err != nil {
			return 0, nil
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			continue
		}
		answer, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err == nil && resp.StatusCode < 500 {
			return resp.StatusCode, answer
		}
	}
	return 0, nil
}

// tenants makes three apps on three accounts, with four receivers each.
func (c *chaos) tenants() {
	c.t.Helper()
	for _, in := range c.instances { // a slow start would look like a lost answer
		until(c.t, time.Minute, "the instance is ready", func() bool {
			resp, err := http.Get("http://" + in.addr + "/readyz")
			if err != nil {
				return false
			}
			_ = resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		})
	}
	for _, name := range []string{"red", "blue", "green"} {
		app := &chaosApp{name: name, datalake: name == "green"}
		apiKey := "sk-mavi-" + name
		if app.datalake {
			apiKey = "sk-mai-" + name
		}
		var account, made, key struct{ ID, Key string }
		must := func(want int, path string, body, out any) {
			c.t.Helper()
			status, answer := c.callWithin(30*time.Second, testAdminToken, http.MethodPost, path, body)
			if status != want || json.Unmarshal(answer, out) != nil {
				c.t.Fatalf("%s: %d %s", path, status, answer)
			}
		}
		must(201, "/admin/v1/accounts", map[string]any{"name": name, "api_key": apiKey, "requests_per_second": c.rps}, &account)
		must(201, "/admin/v1/apps", map[string]any{"name": name, "account_id": account.ID}, &made)
		must(201, "/admin/v1/apps/"+made.ID+"/keys", nil, &key)
		app.key = key.Key
		for i := range 4 {
			app.receivers = append(app.receivers, newChaosReceiver(c.t, fmt.Sprintf("%s-%d", name, i)))
		}
		c.apps = append(c.apps, app)
	}
}

// control tells the simulator something.
func (c *chaos) control(path string, body any) {
	raw, _ := json.Marshal(body)
	client := &http.Client{Timeout: 20 * time.Second}
	resp, err := client.Post(c.simURL+"/control/"+path, "application/json", bytes.NewReader(raw))
	if err != nil {
		c.t.Errorf("simulator: %v", err)
		return
	}
	_ = resp.Body.Close()
}
