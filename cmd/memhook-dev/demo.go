package main

import (
	"cmp"
	"context"
	cryptorand "crypto/rand"
	"encoding/base64"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"time"

	"github.com/memhook/memhook/cmd/internal/app"
	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store/localpg"
)

// demoDeadline is when all webhooks of the demo must have arrived, counted from its start.
const demoDeadline = 55 * time.Second

type demoCommand struct {
	Exit bool   `help:"Exit once everything is delivered and verified; fail after a minute."`
	Addr string `default:"127.0.0.1:0" help:"Address of the API; port 0 takes a free one."`
	Key  string `help:"API key of at least 16 characters; if unset, a random one."`
}

// Run shows the bridge: it registers six tasks of v1 and an operation of the Datalake, submits an upload, and prints their progress.
func (c demoCommand) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := &demo{start: time.Now(), byName: make(map[string]*fate), got: make(map[string][]string), secret: "whsec_" + randomBase64(24)}
	d.sayf("", "starting a private PostgreSQL")
	pg, err := localpg.Start(ctx, localpg.Options{Durable: true})
	if err != nil {
		return err
	}
	defer func() { _ = pg.Stop() }()

	sim := memoriestest.New(memoriestest.Config{RequestsPerSecond: 1, Seed: 1, Draw: func(*rand.Rand) (time.Duration, int) {
		return 3 * time.Second, 1 // for tasks that somebody else registers
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
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	service, err := app.Start(ctx, cfg, app.RoleAll, log)
	if err != nil {
		return err
	}
	defer func() { _ = service.Stop() }()
	d.api = "http://" + service.Addr()
	d.sayf("", "memhook is at %s, the simulated memories.ai (1 request/s) at %s, the receiver at %s", d.api, simServer.URL, receiver.URL)

	if err := d.register(ctx, sim, receiver.URL, cfg.APIKey, cfg.AdminToken); err != nil {
		return err
	}
	err = d.wait(ctx)
	stats := sim.Stats()
	d.sayf("", "memories.ai got %d requests; %d of them exceeded its limit", stats.Requests, stats.Violations)
	if c.Exit || err != nil {
		if err == nil && stats.Violations > 0 {
			err = errors.New("the budget was exceeded")
		}
		return err
	}
	d.sayf("", "all delivered and verified. memhook stays up under a live load; press Ctrl-C to stop it")
	d.sayf("", "dashboard   %s/admin/   token %s", d.api, cfg.AdminToken)
	d.sayf("", "API         %s/docs/    key %s", d.api, cfg.APIKey)
	d.load(ctx, sim, receiver.URL, cfg.APIKey)
	return nil
}

// settings ignores the environment.
func (c demoCommand) settings(databaseURL, memoriesURL string) (*app.Settings, error) {
	env := map[string]string{
		"DATABASE_URL": databaseURL, "MEMHOOK_ADDR": c.Addr, "MEMHOOK_ENCRYPTION_KEY": randomBase64(32),
		"MEMHOOK_API_KEY": cmp.Or(c.Key, "demo-"+randomBase64(18)), "MEMHOOK_ADMIN_TOKEN": randomBase64(24),
		"MEMORIES_API_KEY": "sk-mavi-demo", "MEMORIES_BASE_URL": memoriesURL,
		"MEMHOOK_ALLOW_HTTP_CALLBACKS": "true", "MEMHOOK_SHUTDOWN_TIMEOUT": "5s", "MEMHOOK_RETRY_SCHEDULE": "2s,5s,5m",
	}
	cfg, err := app.ReadSettings(func(name string) string { return env[name] })
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
