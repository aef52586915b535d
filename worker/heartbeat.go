package worker

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/memhook/memhook/store"
)

// The job queue records which instance runs a job. That record can be wrong in two ways:
//
//   - The instance has died. Each instance writes a heartbeat; others release the jobs of an instance whose heartbeat is
//     older than [store.InstanceStale] (reap).
//   - The instance never received the job: the statement that fetched it was committed, and its answer was lost with the
//     connection. Each instance compares the record with what it runs (reclaim). River would wait an hour.

// heartbeat writes this instance's heartbeat, and looks for what is due, until ctx is done. It reaps other instances. One that has missed
// a heartbeat of its own reaps nobody for InstanceStale: probably the database was away, or this process was stopped.
func (w *Worker) heartbeat(ctx context.Context, in store.Instance) {
	last := time.Now()
	steadySince := last // since then every heartbeat was on time
	skewed := w.logSkew(false)
	every(ctx, heartbeatInterval, func(ctx context.Context) {
		err := w.cfg.Store.Heartbeat(ctx, in)
		now := time.Now()
		if err != nil || now.Sub(last) > store.InstanceStale/2 {
			steadySince = now
		}
		if warn(ctx, w.log, err, "instance cannot write its heartbeat") {
			return
		}
		skewed = w.logSkew(skewed)
		last = now
		w.look(ctx, now.Sub(steadySince) >= store.InstanceStale)
	})
}

// look wakes those who have something to do. It reaps if this instance's heartbeat is steady.
func (w *Worker) look(ctx context.Context, steady bool) {
	bounded, cancel := context.WithTimeout(ctx, store.InstanceStale/2) // the next heartbeat waits for it
	due, err := w.cfg.Store.Due(bounded)
	cancel()
	warn(ctx, w.log, err, "maintenance cannot look for what is due")
	if due.Backlog {
		trySend(w.limiters.due)
	}
	if due.ExpiredTasks {
		trySend(w.expired)
	}
	if due.Resends {
		trySend(w.resend)
	}
	if due.DeadInstances && steady {
		w.reap(ctx)
	}
}

// clockFits reports whether this instance's clock agrees with the database's well enough to expire and purge.
func (w *Worker) clockFits() bool { return w.cfg.Store.ClockSkew().Abs() <= store.MaxClockSkew }

// logSkew logs when the clock begins or ceases to disagree with the database's, and returns whether it does.
func (w *Worker) logSkew(before bool) (skewed bool) {
	skewed = !w.clockFits()
	if skewed && !before {
		w.log.Error("clock disagrees with the database's: this instance expires and purges nothing; let both machines follow NTP",
			"ahead", w.cfg.Store.ClockSkew().Round(time.Millisecond).String())
	}
	if before && !skewed {
		w.log.Info("clock agrees with the database's again")
	}
	return skewed
}

// reap releases the jobs of dead instances.
func (w *Worker) reap(ctx context.Context) {
	released, err := w.cfg.Store.ReapInstances(ctx)
	warn(ctx, w.log, err, "instance cannot look for dead instances")
	if released > 0 {
		w.log.Warn("instance took over the jobs of a dead instance", "jobs", released)
	}
}

// reclaim releases jobs that are recorded as this instance's and that it is not running, until ctx is done.
func (w *Worker) reclaim(ctx context.Context) {
	var suspects []int64 // not running at the last look
	every(ctx, reclaimInterval, func(ctx context.Context) {
		missing, err := w.cfg.Store.RunningJobs(ctx, w.id, reclaimInterval)
		if err != nil {
			return // the heartbeat logs it
		}
		missing = slices.DeleteFunc(missing, w.running.has)
		// A job that has just completed may still be recorded, so only jobs that are missing twice in a row are lost.
		lost := slices.DeleteFunc(slices.Clone(missing), func(id int64) bool { return !slices.Contains(suspects, id) })
		suspects = missing
		if len(lost) == 0 {
			return
		}
		released, err := w.cfg.Store.ReclaimJobs(ctx, w.id, lost)
		warn(ctx, w.log, err, "instance cannot release jobs that it never received")
		if released > 0 {
			w.log.Warn("instance released jobs that it never received from the database", "jobs", released)
		}
	})
}

// jobSet is the set of jobs that an instance is running.
type jobSet struct{ ids sync.Map }

// add adds a job until remove is called.
func (s *jobSet) add(id int64) (remove func()) {
	s.ids.Store(id, nil)
	return func() { s.ids.Delete(id) }
}

// has reports whether the job is in the set.
func (s *jobSet) has(id int64) bool {
	_, ok := s.ids.Load(id)
	return ok
}
