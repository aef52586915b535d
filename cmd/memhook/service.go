package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/memhook/memhook/api"
	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
	"github.com/memhook/memhook/worker"
)

const (
	// databasePatience is how long a start waits for a database that is away.
	databasePatience = 30 * time.Second
	// connections is the size of the pool: the work comes in groups, so few are needed.
	connections = 20
)

// The roles of an instance.
const (
	roleAll    = "all"
	roleAPI    = "api"
	roleWorker = "worker"
)

// service is one running instance.
type service struct {
	log      *slog.Logger
	timeout  time.Duration
	pool     *pgxpool.Pool
	worker   *worker.Worker // nil in the role api
	memories *memories.Client
	sender   *webhook.Sender
	http     *http.Server
	listener net.Listener
	metrics  net.Listener // where it has its own address
	failed   chan error   // the HTTP server's end, if it was not asked for
	activity sync.WaitGroup
	quit     context.CancelFunc // of what runs in the background beside the workers
	draining atomic.Bool
	migrated atomic.Bool
}

// startService opens, constructs and starts everything an instance has.
func startService(ctx context.Context, cfg *settings, role string, log *slog.Logger) (_ *service, err error) {
	s := &service{log: log, timeout: cfg.ShutdownTimeout, failed: make(chan error, 1)}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	// The address first: who holds it is this host's only memhook of that name.
	if s.listener, err = listen(cfg); err != nil {
		return nil, err
	}
	if s.pool, err = openDatabase(ctx, cfg.DatabaseURL, log); err != nil {
		return nil, err
	}
	if cfg.AutoMigrate {
		err = store.Migrate(ctx, s.pool, func(what string) { log.Info("migrating the database", "migration", what) })
	} else {
		err = store.CheckSchema(ctx, s.pool)
	}
	if err != nil {
		return nil, err
	}
	st, err := store.New(s.pool, store.Config{Keys: cfg.EncryptionKey, Encode: worker.EncodeEvent, Settle: cfg.SettleWindow, Logger: log})
	if err != nil {
		return nil, err
	}
	if err = st.CheckKeys(ctx); err != nil {
		return nil, err
	}
	if err = st.EnsureDefaults(ctx, cfg.MemoriesAPIKey, cfg.RequestsPerSecond, cfg.APIKey); err != nil {
		return nil, err
	}
	background, quit := context.WithCancel(context.WithoutCancel(ctx))
	s.quit = quit
	s.activity.Go(func() {
		st.KeepActivity(background, func(err error) { log.Warn("activity could not be kept", "error", err) })
	})
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector())
	guard, err := newGuard(cfg, s.listener.Addr())
	if err != nil {
		return nil, err
	}
	if role != roleAPI {
		s.memories = memories.New(cfg.MemoriesBaseURL, 1000, "memhook/"+version())
		s.sender = newSender(cfg, guard, cfg.DeliveryTimeout)
		s.worker, err = worker.New(worker.Config{
			Store: st, Memories: s.memories, Sender: s.sender, Schedule: cfg.RetrySchedule, Retention: cfg.Retention,
			Name: instanceName(s.listener.Addr()), Version: version(), Metrics: registry, Logger: log,
		})
		if err == nil {
			err = s.worker.Start(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "memhook_build_info", Help: "1, with the version that runs.", ConstLabels: prometheus.Labels{"version": version(), "role": role},
	}, func() float64 { return 1 }))
	exposed := api.Metrics(registry, st)
	if cfg.MetricsAddr != "" {
		if s.metrics, err = net.Listen("tcp", cfg.MetricsAddr); err != nil {
			return nil, fmt.Errorf("MEMHOOK_METRICS_ADDR: %w", err)
		}
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", exposed)
		go func() { _ = http.Serve(s.metrics, mux) }() //nolint:gosec // for Prometheus alone; ends with its listener
		exposed = nil
	}
	if role == roleWorker {
		cfg.AdminToken = "" // it serves probes alone
	}
	handler, err := api.New(background, api.Config{
		Store: st, Guard: guard, AdminToken: cfg.AdminToken, PublicURL: cfg.PublicURL, ExpiresIn: cfg.TaskExpiresIn, Version: version(),
		KeyLimit: cfg.KeyRateLimit, Proxies: prefixes(cfg.TrustedProxies),
		Ready: s.ready, Metrics: exposed, Registry: registry, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	s.serve(handler, role)
	log.Info("memhook is up", "version", version(), "role", role, "address", s.listener.Addr().String())
	return s, nil
}

func openDatabase(ctx context.Context, url string, log *slog.Logger) (*pgxpool.Pool, error) {
	return store.Open(ctx, url, connections, databasePatience, func(err error) {
		log.Warn("waiting for the database", "error", err)
	})
}

// serve answers HTTP; in the role worker the probes alone.
func (s *service) serve(handler http.Handler, role string) {
	if role == roleWorker {
		all := handler
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/healthz", "/readyz", "/metrics":
				all.ServeHTTP(w, r)
			default:
				http.NotFound(w, r)
			}
		})
	}
	s.http = &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 32 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	go func() {
		if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	}()
}

// ready tells whether requests can be served.
func (s *service) ready(ctx context.Context) error {
	if s.draining.Load() {
		return errors.New("shutting down")
	}
	if err := s.pool.Ping(ctx); err != nil {
		return err
	}
	if s.migrated.Load() {
		return nil
	}
	err := store.CheckSchema(ctx, s.pool)
	s.migrated.Store(err == nil)
	return err
}

// stop takes no new work and lets what is in flight end, or gives it back when the time is up.
func (s *service) stop() error {
	s.draining.Store(true)
	// A tenth of the time is kept for giving back what has not ended.
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout*9/10)
	defer cancel()
	httpDone := make(chan error, 1)
	go func() { httpDone <- s.http.Shutdown(ctx) }()
	var err error
	if s.worker != nil {
		err = s.worker.Stop(ctx)
	}
	if e := <-httpDone; e != nil {
		_ = s.http.Close()
	}
	s.close()
	s.log.Info("memhook has stopped")
	return err
}

func (s *service) close() {
	for _, l := range []net.Listener{s.listener, s.metrics} {
		if l != nil {
			_ = l.Close()
		}
	}
	if s.quit != nil {
		s.quit()
		s.activity.Wait()
	}
	if s.memories != nil {
		s.memories.Close()
	}
	if s.sender != nil {
		s.sender.Close()
	}
	if s.pool != nil {
		s.pool.Close()
	}
}

func prefixes(list []netip.Prefix) []string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = p.String()
	}
	return out
}

// instanceName names this instance by its host, its network and its address, which only one process can
// hold: one that starts with the same name is the successor of one that has ended.
func instanceName(addr net.Addr) string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	network, err := os.Readlink("/proc/self/ns/net") // where there are network namespaces
	if err != nil {
		network = "net"
	}
	return host + " " + network + " " + addr.String()
}
