package worker

import (
	"context"
	"time"
)

// maintain expires tasks, gives jobs to work that has none, and deletes old rows, until ctx is done. Every instance does
// so; the store's statements allow it.
func (w *Worker) maintain(ctx context.Context) {
	adopted, purged := time.Now(), time.Now()
	every(ctx, expireInterval, func() {
		if time.Since(adopted) > adoptInterval {
			adopted = time.Now()
			w.adopt(ctx)
		}
		if time.Since(purged) > min(purgeInterval, w.cfg.Retention/10) {
			purged = time.Now()
			w.purge(ctx)
		}
		w.expire(ctx)
	})
}

// expire ends the tasks whose time is over.
func (w *Worker) expire(ctx context.Context) {
	for {
		n, err := w.cfg.Store.ExpireTasks(ctx, expireBatch)
		if err != nil && ctx.Err() == nil {
			w.log.Warn("maintenance cannot expire tasks", "error", err)
		}
		if err != nil || n < expireBatch {
			return
		}
	}
}

// adopt makes jobs for accounts and deliveries that have lost theirs.
func (w *Worker) adopt(ctx context.Context) {
	n, err := w.cfg.Store.AdoptOrphans(ctx)
	if err != nil && ctx.Err() == nil {
		w.log.Warn("maintenance cannot look for work without a job", "error", err)
	}
	if n > 0 {
		w.log.Warn("maintenance made jobs for work that had none", "jobs", n)
	}
}

// purge deletes rows that are older than the retention.
func (w *Worker) purge(ctx context.Context) {
	if w.cfg.Retention <= 0 {
		return
	}
	n, err := w.cfg.Store.Purge(ctx, time.Now().Add(-w.cfg.Retention))
	if err != nil && ctx.Err() == nil {
		w.log.Warn("maintenance cannot delete old rows", "error", err)
	}
	if n > 0 {
		w.log.Info("maintenance deleted old rows", "rows", n)
	}
}

// every calls fn at an interval until ctx is done.
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
