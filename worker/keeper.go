package worker

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/memhook/memhook/store"
)

const (
	beatInterval   = time.Second
	sweepInterval  = time.Second
	expireBatch    = 500
	orphanInterval = time.Minute
	// purgeInterval is how often old rows are looked for, at most; a tenth of the retention where that is less.
	purgeInterval = 10 * time.Minute
	// reclaimInterval is how often an instance looks for jobs that are said to be its own and are not; one that is found
	// twice is freed.
	reclaimInterval = 5 * time.Second
)

// jobSet is the jobs that an instance works on.
type jobSet struct {
	mu  sync.Mutex
	ids map[int64]struct{}
}

// enter notes that the job is worked on, until leave.
func (s *jobSet) enter(id int64) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids == nil {
		s.ids = make(map[int64]struct{})
	}
	s.ids[id] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.ids, id)
	}
}

// missing gives those of the jobs that are not worked on.
func (s *jobSet) missing(jobs []int64) (out []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range jobs {
		if _, ok := s.ids[id]; !ok {
			out = append(out, id)
		}
	}
	return out
}

// reclaim frees jobs that the queue says this instance runs and that it never got: the statement that fetched them was
// committed, and its answer was lost with the connection. River would free them after an hour.
func (w *Worker) reclaim(ctx context.Context) {
	var suspects []int64 // of the time before
	every(ctx, reclaimInterval, func() {
		running, err := w.cfg.Store.RunningJobs(ctx, w.id, reclaimInterval)
		if err != nil {
			return // the heartbeat tells
		}
		missing := w.working.missing(running)
		// What has just ended may not be told to the queue yet: it is only freed if it is missing twice.
		lost := slices.DeleteFunc(slices.Clone(missing), func(id int64) bool { return !slices.Contains(suspects, id) })
		suspects = missing
		if len(lost) == 0 {
			return
		}
		freed, err := w.cfg.Store.ReclaimJobs(ctx, w.id, lost)
		if err != nil && ctx.Err() == nil {
			w.log.Warn("lost jobs could not be freed", "error", err)
		}
		if freed > 0 {
			w.log.Warn("freed jobs that were lost on their way from the database", "jobs", freed)
		}
	})
}

// keep beats, and frees the jobs of instances that no longer do. An instance that could not beat itself
// for a while judges nobody: it was the database that was away, or this process that was stopped.
func (w *Worker) keep(ctx context.Context, in store.Instance) {
	ticker := time.NewTicker(beatInterval)
	defer ticker.Stop()
	steady := time.Now() // since when every beat was on time
	last := time.Now()
	skewed := w.tellClock(false)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		beating, cancel := context.WithTimeout(ctx, store.InstanceStale)
		err := w.cfg.Store.Heartbeat(beating, in)
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
		skewed = w.tellClock(skewed)
		last = now
		if now.Sub(steady) < store.InstanceStale {
			continue
		}
		freed, err := w.cfg.Store.ReapInstances(ctx)
		if err != nil {
			w.log.Warn("dead instances could not be looked for", "error", err)
		}
		if freed > 0 {
			w.log.Warn("took over the jobs of an instance that has stopped beating", "jobs", freed)
		}
	}
}

// clockFits reports whether the instance's clock agrees with the database's well enough to end what is past its time.
func (w *Worker) clockFits() bool { return w.cfg.Store.ClockSkew().Abs() <= store.MaxClockSkew }

// tellClock logs when the clock begins or ceases to disagree with the database's, and returns whether it does.
func (w *Worker) tellClock(before bool) (skewed bool) {
	skewed = !w.clockFits()
	if skewed && !before {
		w.log.Error("the clock disagrees with the database's: this instance expires and purges nothing; let both machines follow NTP",
			"ahead", w.cfg.Store.ClockSkew().Round(time.Millisecond).String())
	}
	if before && !skewed {
		w.log.Info("the clock agrees with the database's again")
	}
	return skewed
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
		if !w.clockFits() {
			return
		}
		if time.Since(purged) > min(purgeInterval, w.cfg.Retention/10) {
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
