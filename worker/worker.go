package worker

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

const (
	// fetchCooldown is the least time between two fetches of a queue; River's default of 100 ms would be
	// the median latency of a delivery.
	fetchCooldown = 5 * time.Millisecond
	// fetchPoll is how soon a job whose time has come is found without a notification.
	fetchPoll = 250 * time.Millisecond
	// fetchPollOnly is fetchPoll where a pooler lets nothing be notified: the price is some sixty small queries a second.
	fetchPollOnly = 50 * time.Millisecond
	// keepCompleted is how long River's pages show what is done; memhook's own tables have it for long.
	keepCompleted = 30 * time.Second

	// leaveTimeout bounds the giving back of what did not end in time.
	leaveTimeout = time.Second

	deliverWorkers = 500    // they wait on sockets; so many first attempts go on beside them
	pollWorkers    = 10_000 // one an account; they sleep between slots. River's maximum
)

// Config is what the workers need.
type Config struct {
	Store    *store.Store
	Memories *memories.Client
	Sender   *webhook.Sender

	Schedule    []time.Duration // delays after the first attempt, the second, …
	MaxInFlight int             // attempts under way to one endpoint; 0 means 20
	Retention   time.Duration

	Name    string // of this instance: host, network and address
	Version string

	Metrics prometheus.Registerer // nil for none
	Now     func() time.Time      // nil means time.Now
	Logger  *slog.Logger
}

// Worker is one instance's share of the background work.
type Worker struct {
	cfg      Config
	id       uuid.UUID
	river    *river.Client[pgx.Tx]
	bell     *bell
	gates    *gates
	metrics  *metrics
	log      *slog.Logger
	stopping chan struct{}
	paused   atomic.Bool // polling, everywhere
	working  jobSet
	pacers   pacers
	turns    chan func() // first attempts, for takeTurns
	keepers  sync.WaitGroup
	stop     context.CancelFunc
}

// New makes the workers of one instance; Start starts them.
func New(cfg Config) (*Worker, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.MaxInFlight == 0 {
		cfg.MaxInFlight = 20
	}
	w := &Worker{cfg: cfg, id: uuid.Must(uuid.NewV7()), log: cfg.Logger, stopping: make(chan struct{}), turns: make(chan func())}
	w.metrics = newMetrics(cfg.Metrics, cfg.Store.ClockSkew)
	w.bell = newBell(cfg.Store, w.log)
	w.gates = newGates(cfg.Store, cfg.MaxInFlight, w.log)
	workers := river.NewWorkers()
	river.AddWorker(workers, &pollWorker{Worker: w})
	river.AddWorker(workers, &firstWorker{Worker: w})
	river.AddWorker(workers, &deliverWorker{Worker: w})
	listens, polling := cfg.Store.Listens(), fetchPoll
	if !listens {
		polling = fetchPollOnly
	}
	client, err := river.NewClient(riverpgxv5.New(cfg.Store.Pool()), &river.Config{
		ID: w.id.String(),
		Queues: map[string]river.QueueConfig{
			store.QueueFirst:   {MaxWorkers: deliverWorkers},
			store.QueueDeliver: {MaxWorkers: deliverWorkers},
			store.QueuePoll:    {MaxWorkers: pollWorkers},
		},
		Workers:                     workers,
		FetchCooldown:               fetchCooldown,
		FetchPollInterval:           polling,
		PollOnly:                    !listens,
		CompletedJobRetentionPeriod: keepCompleted,
		ReindexerSchedule:           river.NeverSchedule(), // the indexes that it is for are dropped
		RetryPolicy:                 retryPolicy{},
		JobTimeout:                  -1,
		Logger:                      quiet(w.log),
	})
	if err != nil {
		return nil, fmt.Errorf("job client: %w", err)
	}
	w.river = client
	return w, nil
}

// River gives the job client, for pausing queues and for River's pages.
func (w *Worker) River() *river.Client[pgx.Tx] { return w.river }

// Start frees what a predecessor of the same name left running and begins to work. The work ends with
// Stop, not with ctx.
func (w *Worker) Start(ctx context.Context) error {
	in := store.Instance{ID: w.id, Name: w.cfg.Name, Version: w.cfg.Version, StartedAt: time.Now()}
	freed, err := w.cfg.Store.RegisterInstance(ctx, in)
	if err != nil {
		return err
	}
	if freed > 0 {
		w.log.Info("took over the jobs of a predecessor that had not stopped in good order", "jobs", freed)
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	w.stop = stop
	for range deliverWorkers {
		w.keepers.Go(func() { w.takeTurns(running) })
	}
	if err := w.river.Start(running); err != nil {
		stop()
		return fmt.Errorf("start workers: %w", err)
	}
	w.keepers.Go(func() { w.followPauses(running) })
	w.keepers.Go(func() { w.keep(running, in) })
	w.keepers.Go(func() { w.sweep(running) })
	w.keepers.Go(func() { w.reclaim(running) })
	w.keepers.Go(func() { w.gates.run(running) })
	w.keepers.Go(func() { w.bell.run(running) })
	return nil
}

// Stop takes no new work, waits for what is in flight until ctx ends, and gives back the rest: the jobs
// that did not end in time go to other instances at once.
func (w *Worker) Stop(ctx context.Context) error {
	close(w.stopping)
	// The caller's context may be done; what is left must be given back all the same.
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	if err := w.river.Stop(ctx); err != nil {
		w.log.Warn("giving back what did not end in time")
		if err := w.river.StopAndCancel(leaving); err != nil {
			w.log.Warn("some jobs did not end", "error", err)
		}
	}
	w.stop()
	w.keepers.Wait()
	freed, err := w.cfg.Store.DeregisterInstance(leaving, w.id)
	if freed > 0 {
		w.log.Info("gave back jobs", "jobs", freed)
	}
	return err
}

// followPauses learns whether polling is paused, so that the shifts under way end too.
func (w *Worker) followPauses(ctx context.Context) {
	events, cancel := w.river.Subscribe(river.EventKindQueuePaused, river.EventKindQueueResumed)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return
		case ev := <-events:
			if ev != nil && ev.Queue != nil && ev.Queue.Name == store.QueuePoll {
				w.paused.Store(ev.Kind == river.EventKindQueuePaused)
			}
		}
	}
}

// stopped tells whether Stop was called or polling is paused.
func (w *Worker) stopped() bool {
	if w.paused.Load() {
		return true
	}
	select {
	case <-w.stopping:
		return true
	default:
		return false
	}
}

// retryPolicy is for jobs that end with an error of ours, such as the database being away: soon again.
type retryPolicy struct{}

// NextRetry is a second away, twice as long for each failure of the last minute, and at most half a minute. Failures
// of long ago do not count: a poll job lives as long as its account has something to poll.
func (retryPolicy) NextRetry(job *rivertype.JobRow) time.Time {
	now, recent := time.Now(), 0
	for _, e := range job.Errors {
		if now.Sub(e.At) < time.Minute {
			recent++
		}
	}
	return now.Add(min(time.Second<<min(recent, 5), 30*time.Second))
}

// quiet gives River a logger that says what operators need: its warnings and errors.
func quiet(log *slog.Logger) *slog.Logger { return slog.New(atLeast{log.Handler(), slog.LevelWarn}) }

type atLeast struct {
	slog.Handler
	level slog.Level
}

func (h atLeast) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= h.level && h.Handler.Enabled(ctx, l)
}
