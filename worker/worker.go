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

	"github.com/memhook/memhook/internal/warnings"
	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

// Config is what a Worker needs.
type Config struct {
	Store    *store.Store
	Memories *memories.Client
	Sender   *webhook.Sender

	Schedule  []time.Duration // delays after the first attempt, the second, …
	Retention time.Duration   // of finished work; 0 keeps it for ever

	Name    string // of this instance: host, network and address
	Version string

	Alerts Alerts

	Metrics prometheus.Registerer // nil for none
	Logger  *slog.Logger
}

// Worker does one instance's part of the background work.
type Worker struct {
	cfg           Config
	id            uuid.UUID
	river         *river.Client[pgx.Tx]
	notifier      *notifier
	limiters      *limiters
	metrics       *metrics
	log           *slog.Logger
	pacers        pacers
	running       jobSet
	firstAttempts chan func()   // for goroutines that are idle, see goAttempt
	loading       chan struct{} // one for each job that looks for places
	pollsPaused   atomic.Bool   // on all instances
	uploadsPaused atomic.Bool   // on all instances
	expired       chan struct{} // gets a value when there are tasks to expire
	resend        chan struct{} // gets a value when there is a bulk resend
	stopping      chan struct{} // closed by Stop
	background    sync.WaitGroup
	stop          context.CancelFunc // ends what runs in the background
}

// New returns the Worker of one instance. It does nothing until Start is called.
func New(cfg Config) (*Worker, error) {
	w := &Worker{
		cfg: cfg, id: uuid.Must(uuid.NewV7()), log: cfg.Logger, metrics: newMetrics(cfg.Metrics, cfg.Store.ClockSkew),
		notifier: newNotifier(cfg.Store, cfg.Logger), limiters: newLimiters(cfg.Store, inFlight, cfg.Logger),
		firstAttempts: make(chan func()), loading: make(chan struct{}, loadingJobs), stopping: make(chan struct{}),
		expired: make(chan struct{}, 1), resend: make(chan struct{}, 1),
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, &pollWorker{Worker: w})
	river.AddWorker(workers, &uploadWorker{Worker: w})
	river.AddWorker(workers, &firstWorker{Worker: w})
	river.AddWorker(workers, &deliverWorker{Worker: w})
	listens, fetch, notified, fetchPolls := cfg.Store.Listens(), fetchPoll, fetchPollNotified, fetchPollJobs
	if !listens {
		fetch, notified, fetchPolls = fetchPollOnly, fetchPollOnly, fetchPollOnly
	}
	client, err := river.NewClient(riverpgxv5.New(cfg.Store.Pool()), &river.Config{
		ID: w.id.String(),
		Queues: map[string]river.QueueConfig{
			store.QueueFirst:   {MaxWorkers: deliverWorkers, FetchPollInterval: notified},
			store.QueueDeliver: {MaxWorkers: deliverWorkers},
			store.QueuePoll:    {MaxWorkers: pollWorkers, FetchPollInterval: fetchPolls},
			store.QueueUpload:  {MaxWorkers: uploadWorkers, FetchPollInterval: notified},
		},
		Workers:                     workers,
		FetchCooldown:               fetchCooldown,
		FetchPollInterval:           fetch,
		PollOnly:                    !listens,
		CompletedJobRetentionPeriod: keepCompleted,
		ReindexerSchedule:           river.NeverSchedule(), // memhook drops the indexes that it is for
		RetryPolicy:                 retryPolicy{},
		JobTimeout:                  -1,
		ErrorHandler:                failing{w.log},
		Logger:                      warnings.Only(w.log),
	})
	if err != nil {
		return nil, fmt.Errorf("job client: %w", err)
	}
	w.river = client
	return w, nil
}

// Start takes over the jobs that an instance of the same name has left running, and starts the work. The work ends with
// Stop, not with ctx.
func (w *Worker) Start(ctx context.Context) error {
	in := store.Instance{ID: w.id, Name: w.cfg.Name, Version: w.cfg.Version, StartedAt: time.Now()}
	released, err := w.cfg.Store.RegisterInstance(ctx, in)
	if err != nil {
		return err
	}
	if released > 0 {
		w.log.Info("instance took over the jobs of its predecessor, which was not stopped properly", "jobs", released)
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	w.stop = stop
	if err := w.river.Start(background); err != nil {
		stop()
		return fmt.Errorf("start workers: %w", err)
	}
	w.background.Go(func() { w.followPauses(background) })
	w.background.Go(func() { w.heartbeat(background, in) })
	w.background.Go(func() { w.reclaim(background) })
	w.background.Go(func() { on(background, w.expired, w.expire()) })
	w.background.Go(func() { every(background, adoptInterval, w.adopt(w.cfg.Store.AdoptJobs)) })
	w.background.Go(func() { every(background, adoptInterval, sparing(w.adopt(w.cfg.Store.AdoptOrphans))) })
	checkFeed := w.repeatedly("maintenance cannot put the feed in order", w.cfg.Store.CheckFeed)
	w.background.Go(func() { checkFeed(background); every(background, feedInterval, checkFeed) })
	w.background.Go(func() { w.addPartitions(background); every(background, partitionInterval, w.addPartitions) })
	resends := w.repeatedly("maintenance cannot work off a bulk resend", w.cfg.Store.WorkResends)
	w.background.Go(func() { on(background, w.resend, resends) })
	w.background.Go(func() { every(background, mergedInterval, w.moveMerged) })
	if w.cfg.Alerts.URL != nil {
		w.background.Go(func() { w.sendAlerts(background) })
	}
	if w.cfg.Retention > 0 {
		interval := max(time.Second, min(purgeInterval, w.cfg.Retention/10))
		w.background.Go(func() { every(background, interval, w.purge) })
	}
	w.background.Go(func() { w.limiters.run(background) })
	w.background.Go(func() { w.notifier.run(background) })
	return nil
}

// Stop takes no new jobs, waits until ctx is done for those in progress, and releases the rest, which other instances
// run at once.
func (w *Worker) Stop(ctx context.Context) error {
	close(w.stopping)
	stopped := w.river.Stop(ctx)
	// The caller's context may be done; what is left must be given back all the same. Each step has a time of its own.
	leaving := context.WithoutCancel(ctx)
	if stopped != nil {
		w.log.Warn("instance cancels jobs that did not end in time")
		cancelling, cancel := context.WithTimeout(leaving, leaveTimeout)
		defer cancel()
		if err := w.river.StopAndCancel(cancelling); err != nil {
			w.log.Warn("some jobs did not end after they were cancelled", "error", err)
		}
	}
	w.stop()
	w.background.Wait()
	releasing, cancel := context.WithTimeout(leaving, leaveTimeout)
	defer cancel()
	released, err := w.cfg.Store.DeregisterInstance(releasing, w.id)
	if released > 0 {
		w.log.Info("instance released its remaining jobs", "jobs", released)
	}
	return err
}

// followPauses keeps w.pollsPaused and w.uploadsPaused, so that the jobs of a queue that is paused end: River only stops
// fetching them.
func (w *Worker) followPauses(ctx context.Context) {
	events, cancel := w.river.Subscribe(river.EventKindQueuePaused, river.EventKindQueueResumed)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return
		case ev := <-events:
			if ev == nil || ev.Queue == nil {
				continue
			}
			switch ev.Queue.Name {
			case store.QueuePoll:
				w.pollsPaused.Store(ev.Kind == river.EventKindQueuePaused)
			case store.QueueUpload:
				w.uploadsPaused.Store(ev.Kind == river.EventKindQueuePaused)
			}
		}
	}
}

// stopped reports whether the jobs that a pause concerns must end: Stop was called, or they are paused.
func (w *Worker) stopped(paused *atomic.Bool) bool {
	select {
	case <-w.stopping:
		return true
	default:
		return paused.Load()
	}
}

// retryPolicy retries jobs that have failed with an error of memhook's own, such as an unavailable database.
type retryPolicy struct{}

// NextRetry returns a time one second away, doubled for each failure of the last minute, at most half a minute away.
// Older failures do not count: a poll job lives as long as its account has tasks to poll.
func (retryPolicy) NextRetry(job *rivertype.JobRow) time.Time {
	now, recent := time.Now(), 0
	for _, e := range job.Errors {
		if now.Sub(e.At) < time.Minute {
			recent++
		}
	}
	return now.Add(min(time.Second<<min(recent, 5), 30*time.Second))
}
