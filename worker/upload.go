package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/riverqueue/river"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
)

// uploadWorker submits the uploads of one account, one after the other and within the account's budget of submissions.
type uploadWorker struct {
	river.WorkerDefaults[store.UploadArgs]
	*Worker
}

// Work submits until nothing is queued, the next upload is not due soon, another job has the account, uploads are paused, or the
// worker stops.
func (w *uploadWorker) Work(ctx context.Context, job *river.Job[store.UploadArgs]) error {
	defer w.running.add(job.ID)()
	lease, err := w.cfg.Store.AcquireUploadLease(ctx, job.Args.AccountID)
	if errors.Is(err, store.ErrNotFound) {
		return nil // the account was deleted
	}
	if err != nil {
		return err
	}
	// The job ends from time to time, so that other instances get the account, too.
	for end := time.Now().Add(uploadSnooze); ctx.Err() == nil && !w.stopped(&w.uploadsPaused) && time.Now().Before(end); {
		next, err := w.cfg.Store.TakeUpload(ctx, lease)
		switch {
		case err != nil:
			return err
		case next.Lost || next.Idle:
			return nil
		case next.Stale:
			return river.JobSnooze(0)
		case next.Wait > uploadPause:
			return river.JobSnooze(min(next.Wait-uploadPause, uploadSnooze))
		case next.Wait > 0:
			if !w.pause(ctx, next.Wait) {
				return river.JobSnooze(0)
			}
		default:
			if err := w.submit(ctx, lease, &next); err != nil {
				return err
			}
		}
	}
	return river.JobSnooze(0)
}

// pause waits. It returns false if the worker stops meanwhile.
func (w *Worker) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-w.stopping:
		return false
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// submit submits an upload and records the outcome. It continues until the outcome is recorded, even if the worker is stopping.
func (w *Worker) submit(ctx context.Context, lease *store.UploadLease, next *store.NextUpload) error {
	u := &next.Upload
	account := memories.Account{API: memories.API(lease.Account.API), Key: string(lease.Account.Key)}
	receipt := w.cfg.Memories.Submit(ctx, account, memories.Submission{
		URLs: u.Request.URLs, CallbackURL: u.Request.HintURL,
		SourceURL: u.Request.SourceURL, CollectionID: u.Request.CollectionID, IdempotencyKey: u.ID.String(),
	})
	w.metrics.uploads.WithLabelValues(receipt.Outcome.String()).Inc()
	result := uploadResult(account.API, next, receipt)
	w.log.Debug("submitted", "account", lease.Account.Name, "upload", u.ID, "outcome", receipt.Outcome.String(), "task_id", receipt.TaskID)
	recording := context.WithoutCancel(ctx)
	for {
		err := w.cfg.Store.RecordUpload(recording, lease, u.ID, result)
		if err == nil || errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if errors.Is(err, store.ErrConflict) {
			w.log.Error("an upload was settled by another instance while it was being submitted", "upload", u.ID,
				"outcome", receipt.Outcome.String(), "task_id", receipt.TaskID)
			return nil
		}
		w.log.Warn("cannot record what became of an upload; trying again", "upload", u.ID, "error", err)
		if !w.pause(ctx, errorPause) {
			return fmt.Errorf("record upload: %w", err)
		}
	}
}

// uploadResult returns what is recorded of an upload, given the answer to its submission.
func uploadResult(api memories.API, next *store.NextUpload, r memories.Receipt) store.UploadResult {
	u := &next.Upload
	why := &store.TaskError{Code: cmp.Or(r.Code, r.Outcome.String()), Message: r.Message}
	again := func(pause time.Duration) store.UploadResult {
		return store.UploadResult{Status: store.UploadQueued, Error: why, RetryIn: max(pause, r.RetryAfter)}
	}
	backoff := min(submitMin<<min(u.Attempts, 10), submitMax)
	tried := u.Attempts+1 >= submitMost
	switch r.Outcome {
	case memories.Accepted:
		return store.UploadResult{Status: store.UploadSubmitted, TaskID: r.TaskID}
	case memories.Unknown:
		if api == memories.Datalake && !tried { // under the same idempotency key
			return again(backoff)
		}
		return store.UploadResult{Status: store.UploadUnknown, Error: why}
	case memories.TaskRefused:
		enough := refusalsOfUpload
		if passing(r.Code) && !next.Well {
			enough = refusalsUnclear
		}
		if u.Refusals+1 < enough {
			res := again(refusedUploadPause)
			res.Refused = true
			return res
		}
	case memories.AskAgain:
		return again(0)
	default: // a failure of the account or of the way to the service
		if !tried {
			pause := backoff
			if r.Outcome == memories.AccountRefused || r.Outcome == memories.OutOfCredits || r.Outcome == memories.Blocked {
				pause = refusedPause
			}
			res := again(pause)
			res.Pause = true
			return res
		}
	}
	return store.UploadResult{Status: store.UploadFailed, Error: why}
}
