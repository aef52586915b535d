package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
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

// memoriesConns and receiverConns bound the connections to memories.ai and to one receiver.
const memoriesConns, receiverConns = 1000, 500

// The roles of an instance.
const (
	RoleAll    = "all"
	roleAPI    = "api"
	roleWorker = "worker"
)

// Service is a running instance of memhook.
type Service struct {
	cfg  *Settings
	role string
	log  *slog.Logger

	listener net.Listener
	metrics  net.Listener // nil if MEMHOOK_ADDR serves the metrics
	changes  *prometheus.CounterVec
	pool     *pgxpool.Pool
	store    *store.Store
	guard    *webhook.Guard
	registry *prometheus.Registry
	memories *memories.Client // nil in the role api, as are sender and worker
	sender   *webhook.Sender
	worker   *worker.Worker
	http     *http.Server

	failed   chan error         // gets the HTTP server's error if it ends unasked
	cancel   context.CancelFunc // ends what runs beside the workers
	activity sync.WaitGroup
	started  atomic.Bool // the workers have started
	draining atomic.Bool
	migrated atomic.Bool
}

// Start runs an instance in a role until [Service.Stop]. It opens the addresses and the database,
// constructs everything, serves HTTP, and starts the workers last; until then /readyz answers 503. If a step fails, or ctx ends,
// Start stops what it has started and returns the step's error.
func Start(ctx context.Context, cfg *Settings, role string, log *slog.Logger) (_ *Service, err error) {
	s := &Service{cfg: cfg, role: role, log: log, failed: make(chan error, 1)}
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	for _, step := range []func() error{
		s.listen,
		func() error { return s.openStore(ctx) },
		func() error { return s.upgrade(ctx, background) },
		s.newWorker,
		func() error { return s.serve(background) },
		func() error { return s.startWorker(ctx, background) },
	} {
		if err = step(); err != nil {
			return nil, err
		}
	}
	s.started.Store(true)
	log.Info("memhook is up", "version", Version(), "role", role, "address", s.Addr())
	return s, nil
}

// Addr returns the address that the API listens on.
func (s *Service) Addr() string { return s.listener.Addr().String() }

// Failed gets the error of an HTTP server that ended before Stop was called.
func (s *Service) Failed() <-chan error { return s.failed }

// listen opens the addresses before anything else: an address that is open proves that no other process
// has this instance's name (see instanceName).
func (s *Service) listen() (err error) {
	if s.listener, err = listen(s.cfg); err != nil || s.cfg.MetricsAddr == "" {
		return err
	}
	if s.metrics, err = net.Listen("tcp", s.cfg.MetricsAddr); err != nil {
		return fmt.Errorf("MEMHOOK_METRICS_ADDR: %w", err)
	}
	return nil
}

// changed logs and counts a change of state, on the instance whose attempt has caused it.
func (s *Service) changed(c store.Change) {
	s.changes.WithLabelValues(c.Kind).Inc()
	logChange(s.log, c)
}

// newWorker constructs the workers, which the role api does not have, and the metrics.
func (s *Service) newWorker() (err error) {
	s.registry = prometheus.NewRegistry()
	s.registry.MustRegister(
		s.changes,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector(),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "memhook_build_info", Help: "1, labelled with the version and the role of this instance.",
			ConstLabels: prometheus.Labels{"version": Version(), "role": s.role},
		}, func() float64 { return 1 }),
	)
	s.guard = NewGuard(s.cfg, s.listener.Addr())
	if s.role == roleAPI {
		return nil
	}
	s.memories = memories.New(s.cfg.MemoriesBaseURL, memoriesConns, "memhook/"+Version())
	s.sender = NewSender(s.cfg, s.guard, s.cfg.DeliveryTimeout)
	s.worker, err = worker.New(worker.Config{
		Store: s.store, Memories: s.memories, Sender: s.sender, Schedule: s.cfg.RetrySchedule, Retention: s.cfg.Retention,
		Name: instanceName(s.listener.Addr()), Version: Version(), Metrics: s.registry, Logger: s.log,
		Alerts: worker.Alerts{URL: s.cfg.AlertURL, Secret: s.cfg.AlertSecret, PublicURL: s.cfg.PublicURL},
	})
	return err
}

// serve begins to serve HTTP: everything, or in the role worker the probes and the metrics.
func (s *Service) serve(background context.Context) error {
	metrics := api.Metrics(s.registry, s.store, s.metrics != nil)
	if s.metrics != nil {
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", metrics)
		go func() { _ = http.Serve(s.metrics, mux) }() //nolint:gosec // Prometheus is the only client; Serve ends when the listener closes
		metrics = nil
	}
	token := s.cfg.AdminToken
	if s.role == roleWorker {
		token = "" // no admin API, no dashboard
	}
	handler, err := api.New(background, api.Config{
		Store: s.store, Guard: s.guard, AdminToken: token, PublicURL: s.cfg.PublicURL, ExpiresIn: s.cfg.TaskExpiresIn, Version: Version(),
		KeyLimit: s.cfg.KeyRateLimit, Proxies: s.cfg.TrustedProxies,
		Ready: s.ready, Metrics: metrics, Registry: s.registry, Logger: s.log,
	})
	if err != nil {
		return err
	}
	if s.role == roleWorker {
		handler = probesOnly(handler)
	}
	s.http = &http.Server{
		Handler: handler, MaxHeaderBytes: 32 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
	}
	go func() {
		if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	}()
	return nil
}

func probesOnly(all http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz", "/readyz", "/metrics":
			all.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	})
}

// startWorker starts the workers and the goroutine that flushes the statistics until background ends.
func (s *Service) startWorker(ctx, background context.Context) error {
	s.activity.Go(func() {
		s.store.KeepActivity(background, func(err error) { s.log.Warn("could not store the activity statistics", "error", err) })
	})
	if s.worker == nil {
		return nil
	}
	return s.worker.Start(ctx)
}

// ready returns an error if this instance cannot serve requests.
func (s *Service) ready(ctx context.Context) error {
	if s.draining.Load() {
		return api.ErrStopping
	}
	if !s.started.Load() {
		return api.ErrStarting
	}
	if err := store.CheckWritable(ctx, s.pool); err != nil {
		return err
	}
	if s.migrated.Load() {
		return nil
	}
	err := store.CheckSchema(ctx, s.pool)
	s.migrated.Store(err == nil)
	return err
}

// Drain makes /readyz answer 503 and serves requests for MEMHOOK_DRAIN_TIME, in which load balancers stop sending new ones. It
// returns at once in the role worker, which serves none.
func (s *Service) Drain() {
	s.draining.Store(true)
	if s.role == roleWorker {
		return
	}
	select {
	case <-time.After(s.cfg.DrainTime):
	case err := <-s.failed: // nothing is served any more
		s.failed <- err
	}
}

// Stop accepts no new work, waits up to MEMHOOK_SHUTDOWN_TIMEOUT for work in flight, and releases the
// jobs that have not finished by then.
func (s *Service) Stop() error {
	s.draining.Store(true)
	// A tenth of the time is for releasing unfinished jobs.
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.ShutdownTimeout*9/10)
	defer cancel()
	served := make(chan struct{})
	go func() {
		_ = s.http.Shutdown(ctx) // close ends what is left
		close(served)
	}()
	var err error
	if s.worker != nil {
		err = s.worker.Stop(ctx)
	}
	<-served
	s.close()
	s.log.Info("memhook has stopped")
	return err
}

// close closes whatever is open. The workers must have stopped.
func (s *Service) close() {
	if s.http != nil {
		_ = s.http.Close()
	}
	for _, l := range []net.Listener{s.listener, s.metrics} {
		if l != nil {
			_ = l.Close()
		}
	}
	s.cancel()
	s.activity.Wait()
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

// instanceName names an instance by its host, network namespace and address. Only one process can hold
// that address, so an instance that starts under a name succeeds one that has ended.
func instanceName(addr net.Addr) string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	network, err := os.Readlink("/proc/self/ns/net") // Linux only
	if err != nil {
		network = "net"
	}
	return host + " " + network + " " + addr.String()
}
