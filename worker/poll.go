package worker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/riverqueue/river"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
)

const (
	// A job polls an account for a time between these before the next takes over: short enough that new
	// instances soon have their share, long enough that the change costs nothing, and not the same for all
	// accounts that began together.
	shiftMin, shiftMax = 5 * time.Second, 210 * time.Second
	// refusedPause is how long a refused account rests before its key is tried again.
	refusedPause = time.Minute
	// A rate-limited account rests a second, then two, up to 32 (as memories.ai's documentation asks).
	limitedPause, limitedPauseMax = time.Second, 32 * time.Second
	// A service that is down is left alone from a second up to a minute.
	outagePause, outagePauseMax = time.Second, time.Minute
	// toleratedFaults is how many answers in a row may be missing or garbage before the account rests.
	toleratedFaults = 1
)

// pollWorker polls an account for a shift.
type pollWorker struct {
	river.WorkerDefaults[store.PollArgs]
	*Worker
}

// Work polls the job's account until the shift is over, nothing is left to poll, or the worker stops.
// Then the same job goes on, on whichever instance takes it.
func (w *pollWorker) Work(ctx context.Context, job *river.Job[store.PollArgs]) error {
	defer w.working.enter(job.ID)()
	sh, err := w.cfg.Store.AcquireLease(ctx, job.Args.AccountID)
	if errors.Is(err, store.ErrNotFound) {
		return nil // the account was deleted
	}
	if err != nil {
		return err
	}
	// What the shift has learnt is worth keeping even when the worker is being stopped.
	end, mine := newShift(w.Worker, sh).run(ctx)
	if !mine {
		return nil
	}
	goOn, err := w.cfg.Store.ReleaseLease(context.WithoutCancel(ctx), sh, end)
	if err != nil {
		return fmt.Errorf("account %s: %w", sh.Account.Name, err)
	}
	if goOn {
		return river.JobSnooze(max(0, end.ResumeAt.Sub(w.cfg.Now())))
	}
	return nil
}

// pollOf translates an answer into what is recorded of the task.
func pollOf(t *polledTask, status memories.Status, sentAt, at time.Time) store.Poll {
	p := store.Poll{TaskID: t.id, SentAt: sentAt, At: at, Bare: t.bare}
	said := &store.TaskError{Code: status.Code, Message: status.Message}
	switch status.Outcome {
	case memories.Listed:
		p.Videos = make([]store.Video, len(status.Videos))
		for i, v := range status.Videos {
			p.Videos[i].ID = v.ID
			if v.Status != "" {
				p.Videos[i].Status = &v.Status
			}
		}
	case memories.TaskRefused:
		p.Refusal = said
	default:
		if status.Outcome == memories.ForeignTask || status.Outcome == memories.Malformed || said.Code == "" {
			said.Code = status.Outcome.String()
		}
		p.Fault = said
	}
	return p
}

// troubleOf judges an answer by what it says of the account: the trouble it is in now, given the one
// before, and whether that is a change worth recording.
func troubleOf(status memories.Status, before store.Backoff, now time.Time) (store.Backoff, bool) {
	t := store.Backoff{Reason: status.Message, Count: before.Count + 1}
	if before.State == store.AccountActive {
		t.Count = 1
	}
	var pause time.Duration
	switch status.Outcome {
	case memories.Listed, memories.TaskRefused:
		return store.Backoff{State: store.AccountActive}, before.State != store.AccountActive || before.Count > 0
	case memories.ForeignTask:
		return before, false // a fault of one answer; it says nothing of the account
	case memories.RateLimited:
		t.State = store.AccountRateLimited
		if before.State != t.State {
			t.Count = 1
		}
		pause = min(limitedPause<<min(t.Count-1, 10), limitedPauseMax)
		if status.RetryAfter > 0 {
			pause = status.RetryAfter
		}
	case memories.AccountRefused, memories.OutOfCredits:
		t.State, pause = store.AccountRefused, refusedPause
		if status.Code != "" {
			t.Reason = status.Code + ": " + status.Message
		}
	default:
		t.Count = before.Count + 1
		if t.Count <= toleratedFaults {
			return store.Backoff{State: before.State, Count: t.Count}, false
		}
		t.State = store.AccountUnavailable
		most := min(outagePause<<min(t.Count-1-toleratedFaults, 10), outagePauseMax)
		pause = most/2 + rand.N(most/2+1) // jitter, so that accounts do not return together
	}
	t.Until = now.Add(pause)
	return t, true
}
