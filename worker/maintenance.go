package worker

import (
	"context"
	"time"
)

// Every instance expires tasks, makes jobs for work that has none, makes partitions, and deletes old rows. The store's
// statements allow several instances to do so at once. An instance whose clock is off by more than maxSkew leaves to the
// others what cannot be undone.

// maintain starts what runs at intervals until ctx is done.
func (w *Worker) maintain(ctx context.Context) {
	addPartitions := func(ctx context.Context) {
		if err := w.cfg.Store.AddPartitions(ctx); err != nil && ctx.Err() == nil {
			w.log.Warn("maintenance cannot make partitions: what belongs to them is stored beside them", "error", err)
		}
	}
	addPartitions(ctx)
	w.background.Go(func() { every(ctx, partitionInterval, addPartitions) })
	w.background.Go(func() { every(ctx, expireInterval, w.punctual(w.expire)) })
	w.background.Go(func() { every(ctx, adoptInterval, sparing(w.adopt)) })
	if w.cfg.Retention > 0 {
		interval := max(expireInterval, min(purgeInterval, w.cfg.Retention/10))
		w.background.Go(func() { every(ctx, interval, w.punctual(w.purge)) })
	}
}

// punctual returns fn, which does nothing while this machine's clock differs from the database's by more than maxSkew.
func (w *Worker) punctual(fn func(context.Context)) func(context.Context) {
	var checked time.Time
	var off bool
	return func(ctx context.Context) {
		if time.Since(checked) >= skewInterval {
			skew, err := w.cfg.Store.ClockSkew(ctx)
			if err != nil {
				return // the heartbeat logs it
			}
			checked = time.Now()
			was := off
			if off = skew.Abs() > maxSkew; off && !was && !w.skewed.Swap(true) {
				w.log.Warn("this machine's clock differs from the database's: this instance neither expires tasks nor deletes old rows",
					"ahead", skew.Round(time.Millisecond))
			}
			if was && !off && w.skewed.Swap(false) {
				w.log.Info("this machine's clock is right again")
			}
		}
		if !off {
			fn(ctx)
		}
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
	n, err := w.cfg.Store.Purge(ctx, w.cfg.Retention)
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
