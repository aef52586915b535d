package worker

import (
	"context"
	"time"
)

// Every instance expires tasks, makes jobs for work that has none, and deletes old rows. The store's statements allow
// several instances to do so at once.

// expire returns a function that ends the tasks whose time is over. It looks at all of them once in reviewInterval, and
// otherwise at those that have expired since.
func (w *Worker) expire() func(context.Context) {
	var from, reviewed time.Time
	return func(ctx context.Context) {
		if now := time.Now(); now.Sub(reviewed) >= reviewInterval {
			from, reviewed = time.Time{}, now
		}
		for {
			n, next, err := w.cfg.Store.ExpireTasks(ctx, from, expireBatch)
			if err != nil {
				if ctx.Err() == nil {
					w.log.Warn("maintenance cannot expire tasks", "error", err)
				}
				return
			}
			from = next
			if n < expireBatch {
				return
			}
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

// resends works off bulk resends, a batch at a time.
func (w *Worker) resends(ctx context.Context) {
	for ctx.Err() == nil {
		found, err := w.cfg.Store.WorkResends(ctx)
		if err != nil && ctx.Err() == nil {
			w.log.Warn("maintenance cannot work off a bulk resend", "error", err)
		}
		if err != nil || !found {
			return
		}
	}
}

// purge deletes rows that are older than the retention.
func (w *Worker) purge(ctx context.Context) {
	n, err := w.cfg.Store.Purge(ctx, time.Now().Add(-w.cfg.Retention))
	if err != nil && ctx.Err() == nil {
		w.log.Warn("maintenance cannot delete old rows", "error", err)
	}
	if n > 0 {
		w.log.Info("maintenance deleted old rows", "rows", n)
	}
}

// every calls fn at an interval until ctx is done.
func every(ctx context.Context, interval time.Duration, fn func(context.Context)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			fn(ctx)
		}
	}
}
