package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/riverqueue/river"

	"github.com/memhook/memhook/store"
)

// Each account with tasks to poll has one poll job. The job holds the account's lease for up to leaseMax, polls
// (poller.go), releases the lease and is snoozed, so that it continues on whichever instance fetches it next.

// pollWorker polls one account.
type pollWorker struct {
	river.WorkerDefaults[store.PollArgs]
	*Worker
}

// Work polls the job's account until its time is over, nothing is left to poll, the lease is lost, or the worker stops.
func (w *pollWorker) Work(ctx context.Context, job *river.Job[store.PollArgs]) error {
	defer w.running.add(job.ID)()
	lease, err := w.cfg.Store.AcquireLease(ctx, job.Args.AccountID)
	if errors.Is(err, store.ErrNotFound) {
		return nil // the account was deleted
	}
	if err != nil {
		return err
	}
	end, held := newPoller(w.Worker, lease).run(ctx)
	if !held {
		return nil
	}
	// What the poller has learnt is kept even if the worker is stopping.
	reschedule, err := w.cfg.Store.ReleaseLease(context.WithoutCancel(ctx), lease, end)
	if err != nil {
		return fmt.Errorf("account %s: %w", lease.Account.Name, err)
	}
	if reschedule {
		return river.JobSnooze(max(0, time.Until(end.ResumeAt)))
	}
	return nil
}
