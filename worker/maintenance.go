package worker

import (
	"context"
	"time"
)

// Every instance expires tasks, makes jobs for work that has none, makes partitions, and deletes old rows. The store's
// statements allow several instances to do so at once.

// expire returns a function that ends the tasks whose time is over. It looks at all of them once in reviewInterval, and
// otherwise at those that have expired since.
func (w *Worker) expire() func(context.Context) {
	var from, reviewed time.Time
	return func(ctx context.Context) {
		if !w.clockFits() {
			return
		}
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
			if n == 0 {
				return
			}
		}
	}
}

// adopt returns a function that makes jobs for those that orphans finds to have lost theirs.
func (w *Worker) adopt(orphans func(context.Context) (int, error)) func(context.Context) {
	return func(ctx context.Context) {
		n, err := orphans(ctx)
		if err != nil && ctx.Err() == nil {
			w.log.Warn("maintenance cannot look for work without a job", "error", err)
		}
		if n > 0 {
			w.log.Warn("maintenance made jobs for work that had none", "jobs", n)
		}
	}
}

// checkFeed puts the feed in order after its database was restored.
func (w *Worker) checkFeed(ctx context.Context) {
	for ctx.Err() == nil {
		more, err := w.cfg.Store.CheckFeed(ctx)
		if err != nil && ctx.Err() == nil {
			w.log.Warn("maintenance cannot put the feed in order", "error", err)
		}
		if err != nil || !more {
			return
		}
	}
}

// addPartitions makes the partitions of the next days.
func (w *Worker) addPartitions(ctx context.Context) {
	if err := w.cfg.Store.AddPartitions(ctx); err != nil && ctx.Err() == nil {
		w.log.Warn("maintenance cannot make partitions: what belongs to them is stored beside them", "error", err)
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

// moveMerged moves the deliveries of endpoints that were merged into others.
func (w *Worker) moveMerged(ctx context.Context) {
	if err := w.cfg.Store.MoveMerged(ctx); err != nil && ctx.Err() == nil {
		w.log.Warn("maintenance cannot move the deliveries of merged endpoints", "error", err)
	}
}

// purge deletes rows that are older than the retention.
func (w *Worker) purge(ctx context.Context) {
	if !w.clockFits() {
		return
	}
	n, err := w.cfg.Store.Purge(ctx, w.cfg.Retention)
	if err != nil && ctx.Err() == nil {
		w.log.Warn("maintenance cannot delete old rows", "error", err)
	}
	if n > 0 {
		w.log.Info("maintenance deleted old rows", "rows", n)
	}
}

// sparing returns fn, which runs for at most a twentieth of the time.
func sparing(fn func(context.Context)) func(context.Context) {
	var next time.Time
	return func(ctx context.Context) {
		start := time.Now()
		if start.Before(next) {
			return
		}
		fn(ctx)
		next = start.Add(20 * time.Since(start))
	}
}

// on calls fn after each value of wake until ctx is done.
func on(ctx context.Context, wake <-chan struct{}, fn func(context.Context)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
			fn(ctx)
		}
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
