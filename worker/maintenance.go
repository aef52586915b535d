package worker

import (
	"context"
	"log/slog"
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
			if warn(ctx, w.log, err, "maintenance cannot expire tasks") {
				return
			}
			if from = next; n == 0 {
				return
			}
		}
	}
}

// adopt returns a function that makes jobs for those that orphans finds to have lost theirs.
func (w *Worker) adopt(orphans func(context.Context) (int, error)) func(context.Context) {
	return func(ctx context.Context) {
		n, err := orphans(ctx)
		warn(ctx, w.log, err, "maintenance cannot look for work without a job")
		if n > 0 {
			w.log.Warn("maintenance made jobs for work that had none", "jobs", n)
		}
	}
}

// repeatedly returns a function that calls fn for as long as fn reports that there is more. what is logged where fn fails.
func (w *Worker) repeatedly(what string, fn func(context.Context) (more bool, err error)) func(context.Context) {
	return func(ctx context.Context) {
		for ctx.Err() == nil {
			more, err := fn(ctx)
			if warn(ctx, w.log, err, what) || !more {
				return
			}
		}
	}
}

// addPartitions makes the partitions of the next days.
func (w *Worker) addPartitions(ctx context.Context) {
	warn(ctx, w.log, w.cfg.Store.AddPartitions(ctx), "maintenance cannot make partitions: what belongs to them is stored beside them")
}

// moveMerged moves the deliveries of endpoints that were merged into others.
func (w *Worker) moveMerged(ctx context.Context) {
	warn(ctx, w.log, w.cfg.Store.MoveMerged(ctx), "maintenance cannot move the deliveries of merged endpoints")
}

// purge deletes rows that are older than the retention.
func (w *Worker) purge(ctx context.Context) {
	if !w.clockFits() {
		return
	}
	n, err := w.cfg.Store.Purge(ctx, w.cfg.Retention)
	warn(ctx, w.log, err, "maintenance cannot delete old rows")
	if n > 0 {
		w.log.Info("maintenance deleted old rows", "rows", n)
	}
}

// warn logs what could not be done because of err, if that is not nil, and reports whether it could not. Nothing is logged once
// ctx is done: the worker stops.
func warn(ctx context.Context, log *slog.Logger, err error, what string, args ...any) (failed bool) {
	if err != nil && ctx.Err() == nil {
		log.Warn(what, append(args, "error", err)...)
	}
	return err != nil
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
