package main

import (
	"bytes"
	"cmp"
	"context"
	cryptorand "crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/localpg"
	"github.com/memhook/memhook/webhook"
)

// demoDeadline is when a demo that should end must have.
const demoDeadline = 55 * time.Second

type demoCommand struct {
	Exit bool   `help:"End once all is delivered and verified; fail if that takes a minute."`
	Addr string `default:"127.0.0.1:0" help:"Where the API listens; port 0 takes a free one."`
	Key  string `help:"The API key of at least 16 characters; without it a new one is made."`
}

// fate is one task of the demo: what memories.ai will do, and the events that must follow.
type fate struct {
	name     string
	script   memoriestest.Task
	extra    map[string]any // of the registration
	expected []string
}

func videos(status string, ids ...string) []memoriestest.Video {
	list := make([]memoriestest.Video, len(ids))
	for i, id := range ids {
		list[i] = memoriestest.Video{ID: id, Status: status}
	}
	return list
}

// fates are the lives that the demo shows.
func fates() []fate {
	return []fate{
		{"ready at once", memoriestest.Task{Steps: []memoriestest.Step{{AfterMS: 0, Videos: videos("", "PI-100000000000000001", "PI-100000000000000002")}}}, nil, []string{webhook.TaskReady}},
		{"ready later", memoriestest.Task{Steps: []memoriestest.Step{{AfterMS: 6000, Videos: videos("", "PI-200000000000000001")}}}, map[string]any{"metadata": map[string]string{"order": "42"}}, []string{webhook.TaskReady}},
		{"growing list", memoriestest.Task{Steps: []memoriestest.Step{
			{AfterMS: 2000, Videos: videos("", "PI-300000000000000001")},
			{AfterMS: 8000, Videos: videos("", "PI-300000000000000001", "PI-300000000000000002", "PI-300000000000000003")},
		}}, nil, []string{webhook.TaskReady, webhook.TaskUpdated}},
		{"faults on the way", memoriestest.Task{
			Faults: []memoriestest.Fault{{Kind: memoriestest.FaultHTML}, {Kind: memoriestest.FaultForeign}, {Kind: memoriestest.FaultRateLimited}},
			Steps:  []memoriestest.Step{{AfterMS: 3000, Videos: videos("", "PI-400000000000000001")}},
		}, nil, []string{webhook.TaskReady}},
		{"until indexed", memoriestest.Task{Shape: memoriestest.ShapeVideos, Steps: []memoriestest.Step{
			{AfterMS: 3000, Videos: videos("UNPARSE", "VI500000000000000001")},
			{AfterMS: 9000, Videos: videos("PARSE", "VI500000000000000001")},
		}}, map[string]any{"until": "indexed"}, []string{webhook.TaskReady, webhook.TaskIndexed}},
		{"never", memoriestest.Task{}, map[string]any{"expires_in": "15s"}, []string{webhook.TaskExpired}},
	}
}

// Run shows the bridge.
func (c demoCommand) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := &demo{start: time.Now(), byTask: make(map[string]*fate), got: make(map[string][]string)}
	d.sayf("", "starting a private PostgreSQL")
	pg, err := localpg.Start(ctx, localpg.Options{Durable: true})
	if err != nil {
		return err
	}
	defer func() { _ = pg.Stop() }()

	sim := memoriestest.New(memoriestest.Config{RequestsPerSecond: 1, Seed: 1, Draw: func(*rand.Rand) (time.Duration, int) {
		return 3 * time.Second, 1 // of the tasks that the watcher registers
	}})
	simServer := httptest.NewServer(sim)
	defer simServer.Close()
	defer sim.Close()
	receives := http.NewServeMux()
	receives.HandleFunc("/", d.receive)
	receives.HandleFunc("/load/", receiveLoad)
	receiver := httptest.NewServer(receives)
	defer receiver.Close()

	cfg, err := c.settings(pg.URL("postgres"), simServer.URL)
	if err != nil {
		return err
	}
	service, err := startService(ctx, cfg, roleAll, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return err
	}
	defer func() { _ = service.stop() }()
	d.api = "http://" + service.listener.Addr().String()
	d.key = cfg.APIKey
	d.sayf("", "memhook is at %s, the simulated memories.ai (1 request/s) at %s, a receiver at %s", d.api, simServer.URL, receiver.URL)

	if err := d.register(ctx, sim, receiver.URL); err != nil {
		return err
	}
	err = d.wait(ctx)
	stats := sim.Stats()
	d.sayf("", "memories.ai was asked %d times; %d requests were over its limit", stats.Requests, stats.Violations)
	if c.Exit || err != nil {
		if err == nil && stats.Violations > 0 {
			err = errors.New("the budget was exceeded")
		}
		return err
	}
	d.sayf("", "all delivered and verified. memhook stays up under a live load; Ctrl-C ends it")
	d.sayf("", "dashboard   %s/admin/   token %s", d.api, cfg.AdminToken)
	d.sayf("", "API         %s/docs/    key %s", d.api, cfg.APIKey)
	d.load(ctx, sim, receiver.URL)
	return nil
}

// load registers a task every two seconds until ctx ends, so that there is something to watch: most are ready
// after a while, some never, some of the receivers fail.
func (d *demo) load(ctx context.Context, sim *memoriestest.Server, callback string) {
	ticker := time.NewTicker(2 * time.Second)
	defer ticker.Stop()
	for i := 1; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		task := memoriestest.Task{TaskID: fmt.Sprintf("load-%04d", i)}
		if rand.IntN(10) > 0 {
			after := time.Duration(float64(8*time.Second) * math.Exp(0.8*rand.NormFloat64()))
			task.Steps = []memoriestest.Step{{AfterMS: after.Milliseconds(), Videos: videos("", fmt.Sprintf("PI-%018d", rand.Int64N(1e18)))}}
		}
		sim.Add(task)
		body := map[string]any{"task_id": task.TaskID, "callback_url": fmt.Sprintf("%s/load/%d", callback, i%4), "expires_in": "2m", "metadata": map[string]string{"order": strconv.Itoa(i)}}
		var out struct{ ID string }
		if err := d.call(ctx, http.MethodPost, "/v1/tasks", body, &out); err != nil && ctx.Err() == nil {
			d.sayf("", "register: %v", err)
		}
	}
}

// receiveLoad answers the load's webhooks: one of four receivers fails half of the time.
func receiveLoad(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	time.Sleep(rand.N(40 * time.Millisecond))
	if r.URL.Path == "/load/3" && rand.IntN(2) == 0 {
		http.Error(w, "the receiver of this demo fails half of the time", http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// settings are the demo's own: nothing of the environment counts.
func (c demoCommand) settings(databaseURL, memoriesURL string) (*settings, error) {
	env := map[string]string{
		"DATABASE_URL": databaseURL, "MEMHOOK_ADDR": c.Addr, "MEMHOOK_ENCRYPTION_KEY": randomBase64(32), "MEMHOOK_API_KEY": cmp.Or(c.Key, "demo-"+randomBase64(18)),
		"MEMHOOK_ADMIN_TOKEN": randomBase64(24), "MEMORIES_API_KEY": "sk-mavi-demo", "MEMORIES_BASE_URL": memoriesURL,
		"MEMHOOK_ALLOW_HTTP_CALLBACKS": "true", "MEMHOOK_SHUTDOWN_TIMEOUT": "5s", "MEMHOOK_RETRY_SCHEDULE": "2s,5s,5m",
	}
	cfg, err := readSettings(func(name string) string { return env[name] })
	if err != nil {
		return nil, err
	}
	cfg.AllowedNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	return cfg, nil
}

func randomBase64(n int) string {
	b := make([]byte, n)
	_, _ = cryptorand.Read(b)
	return base64.StdEncoding.EncodeToString(b)
}

// demo watches the tasks of a demonstration.
type demo struct {
	start    time.Time
	api, key string

	mu      sync.Mutex
	secret  string
	byTask  map[string]*fate // by memories.ai's task id
	ids     []string         // memhook's
	got     map[string][]string
	refused bool
	wrong   error
}

// sayf prints a step with its time since the start.
func (d *demo) sayf(name, format string, args ...any) {
	if name != "" {
		name = fmt.Sprintf("%-18s", name)
	}
	fmt.Printf("%6.2fs  %s%s\n", time.Since(d.start).Seconds(), name, fmt.Sprintf(format, args...))
}

func (d *demo) register(ctx context.Context, sim *memoriestest.Server, callback string) error {
	all := fates()
	for i := range all {
		f := &all[i]
		f.script.TaskID = fmt.Sprintf("demo-%d-%s", i+1, strings.ReplaceAll(f.name, " ", "-"))
		sim.Add(f.script)
		d.mu.Lock()
		d.byTask[f.script.TaskID] = f
		d.mu.Unlock()
		body := map[string]any{"task_id": f.script.TaskID, "callback_url": callback}
		maps.Copy(body, f.extra)
		var task struct {
			ID            string
			Subscriptions []struct {
				EndpointID string `json:"endpoint_id"`
			}
		}
		if err := d.call(ctx, http.MethodPost, "/v1/tasks", body, &task); err != nil {
			return err
		}
		d.sayf(f.name, "registered")
		d.mu.Lock()
		d.ids = append(d.ids, task.ID)
		known := d.secret != ""
		d.mu.Unlock()
		if known {
			continue
		}
		var secret struct{ Secret string }
		if err := d.call(ctx, http.MethodGet, "/v1/endpoints/"+task.Subscriptions[0].EndpointID+"/secret", nil, &secret); err != nil {
			return err
		}
		d.mu.Lock()
		d.secret = secret.Secret
		d.mu.Unlock()
	}
	return nil
}

func (d *demo) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, d.api+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+d.key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, raw)
	}
	return json.Unmarshal(raw, out)
}

// receive verifies webhooks as a customer would. The first one is refused, to show a retry.
func (d *demo) receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var ev webhook.Event
	var task webhook.Task
	if json.Unmarshal(body, &ev) != nil || json.Unmarshal(ev.Data, &task) != nil {
		d.fail(fmt.Errorf("not an event: %s", body))
		return
	}
	secret := d.awaitSecret(r.Context())
	d.mu.Lock()
	f := d.byTask[task.TaskID]
	first := !d.refused
	d.refused = true
	d.mu.Unlock()
	if err := webhook.Verify(body, r.Header, secret); err != nil || f == nil {
		d.fail(fmt.Errorf("webhook for %s: %w", task.TaskID, err))
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if first {
		d.sayf(f.name, "webhook  %s refused with 500, to show a retry", ev.Type)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
	d.sayf(f.name, "webhook  %s verified %s", ev.Type, strings.Join(task.VideoIDs, " "))
	d.mu.Lock()
	d.got[task.TaskID] = append(d.got[task.TaskID], ev.Type)
	d.mu.Unlock()
}

// awaitSecret waits for the secret: the first webhook can come before the secret was asked for.
func (d *demo) awaitSecret(ctx context.Context) string {
	for ctx.Err() == nil {
		d.mu.Lock()
		secret := d.secret
		d.mu.Unlock()
		if secret != "" {
			return secret
		}
		time.Sleep(10 * time.Millisecond)
	}
	return ""
}

func (d *demo) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wrong = errors.Join(d.wrong, err)
}

// wait follows the tasks until every fate has its events.
func (d *demo) wait(ctx context.Context) error {
	deadline := time.After(demoDeadline - time.Since(d.start))
	seen := make(map[string]string)
	for {
		for _, id := range d.ids {
			var t struct {
				TaskID    string `json:"task_id"`
				Status    string
				Polls     int
				LastError *store.TaskError `json:"last_error"`
				VideoIDs  []string         `json:"video_ids"`
			}
			if err := d.call(ctx, http.MethodGet, "/v1/tasks/"+id, nil, &t); err != nil {
				return err
			}
			state := fmt.Sprintf("%s, %d videos", t.Status, len(t.VideoIDs))
			if t.LastError != nil {
				state += ", memories.ai: " + t.LastError.Code + " " + t.LastError.Message
			}
			if seen[id] != state && t.Polls > 0 {
				seen[id] = state
				d.sayf(d.byTask[t.TaskID].name, "poll %-3d %s", t.Polls, state)
			}
		}
		d.mu.Lock()
		missing, wrong := d.missing(), d.wrong
		d.mu.Unlock()
		if wrong != nil {
			return wrong
		}
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return fmt.Errorf("not delivered in time: %s", strings.Join(missing, ", "))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// missing lists the events that have not come yet.
func (d *demo) missing() (list []string) {
	for id, f := range d.byTask {
		for _, want := range f.expected {
			found := false
			for _, got := range d.got[id] {
				found = found || got == want
			}
			if !found {
				list = append(list, f.name+": "+want)
			}
		}
	}
	return list
}
