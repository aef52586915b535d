package worker

import (
	"context"
	"time"

	"github.com/memhook/memhook/store"
)

const (
	beatInterval   = time.Second
	sweepInterval  = time.Second
	expireBatch    = 500
	orphanInterval = time.Minute
	purgeInterval  = 10 * time.Minute
)

// keep beats, and frees the jobs of instances that no longer do. An instance that could not beat itself
// for a while judges nobody: it was the database that was away, or this process that was stopped.
func (w *Worker) keep(ctx context.Context, in store.Instance) {
	ticker := time.NewTicker(beatInterval)
	defer ticker.Stop()
	steady := time.Now() // since when every beat was on time
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		beating, cancel := context.WithTimeout(ctx, store.InstanceStale)
		err := w.cfg.Store.Beat(beating, in)
		cancel()
		now := time.Now()
		if err != nil || now.Sub(last) > store.InstanceStale/2 {
			steady = now
		}
		if err != nil {
			if ctx.Err() == nil {
				w.log.Warn("no heartbeat", "error", err)
			}
			continue
		}
		last = now
		if now.Sub(steady) < store.InstanceStale {
			continue
		}
		freed, err := w.cfg.Store.Reap(ctx)
		if err != nil {
			w.log.Warn("dead instances could not be looked for", "error", err)
		}
		if freed > 0 {
			w.log.Warn("took over the jobs of an instance that has stopped beating", "jobs", freed)
		}
	}
}

// every calls fn at an interval until ctx ends.
func every(ctx context.Context, interval time.Duration, fn func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			fn()
		}
	}
}

// sweep ends what is past its time, and adopts what has lost its job.
func (w *Worker) sweep(ctx context.Context) {
	adopted, purged := time.Now(), time.Now()
	every(ctx, sweepInterval, func() {
		if time.Since(adopted) > orphanInterval {
			adopted = time.Now()
			w.adopt(ctx)
		}
		if time.Since(purged) > purgeInterval {
			purged = time.Now()
			w.purge(ctx)
		}
		for {
			n, err := w.cfg.Store.ExpireTasks(ctx, expireBatch)
			if err != nil && ctx.Err() == nil {
				w.log.Warn("tasks could not be expired", "error", err)
			}
			if err != nil || n < expireBatch {
				break
			}
		}
	})
}

func (w *Worker) adopt(ctx context.Context) {
	n, err := w.cfg.Store.AdoptOrphans(ctx)
	if err != nil && ctx.Err() == nil {
		w.log.Warn("orphans could not be looked for", "error", err)
	}
	if n > 0 {
		w.log.Warn("gave new jobs to work that had lost its own", "jobs", n)
	}
}

func (w *Worker) purge(ctx context.Context) {
	if w.cfg.Retention <= 0 {
		return
	}
	n, err := w.cfg.Store.Purge(ctx, w.cfg.Now().Add(-w.cfg.Retention))
	if err != nil && ctx.Err() == nil {
		w.log.Warn("what is past its retention could not be purged", "error", err)
	}
	if n > 0 {
		w.log.Info("purged", "rows", n)
	}
}
