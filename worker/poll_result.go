package worker

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/worker/polling"
)

// An answer of memories.ai says something about the task (pollOf, recorded before the poller sees the answer), about the
// account (backoffAfter), and about how long tasks take (learn).

// pollOf returns what is recorded of the task.
func pollOf(a *answer) store.Poll {
	p := store.Poll{TaskID: a.target.id, SentAt: a.sentAt, At: a.at, Bare: a.target.bare, Lag: a.lag}
	taskErr := &store.TaskError{Code: a.status.Code, Message: a.status.Message}
	switch a.status.Outcome {
	case memories.Listed:
		p.Videos = make([]store.Video, len(a.status.Videos))
		for i, v := range a.status.Videos {
			p.Videos[i].ID = v.ID
			if v.Status != "" {
				p.Videos[i].Status = &v.Status
			}
		}
	case memories.TaskRefused:
		p.Refusal = taskErr
	default:
		if a.status.Outcome == memories.ForeignTask || a.status.Outcome == memories.Malformed || taskErr.Code == "" {
			taskErr.Code = a.status.Outcome.String()
		}
		p.Fault = taskErr
	}
	return p
}

// handle updates the poller by an answer.
func (p *poller) handle(a answer) {
	p.inFlight--
	t := p.tasks.find(a.target.id)
	if t != nil {
		t.Busy = false
	}
	if a.dropped {
		p.w.metrics.lost.Inc()
		p.log.Debug("poller lost a slot: the process was held up", "task", a.target.id)
		return
	}
	p.answered = append(p.answered, a.at)
	p.w.metrics.polls.WithLabelValues(a.status.Outcome.String()).Inc()
	p.setBackoff(&a)
	p.log.Debug("polled", "task", a.target.id, "task_id", a.target.upstreamID, "outcome", a.status.Outcome.String(),
		"videos", len(a.status.Videos), "took", a.at.Sub(a.sentAt))
	if a.err != nil {
		p.log.Warn("poller cannot record a poll; it will poll the task again", "task", a.target.id, "error", a.err)
		if t != nil {
			t.Polled = polling.At(a.at)
		}
		return
	}
	if t == nil {
		return
	}
	if a.polled.Ready {
		p.w.metrics.lag.Observe(a.lag.Seconds())
	}
	p.learn(t, &a)
	if !a.polled.Polling {
		p.tasks.drop(a.target.id)
		return
	}
	switch a.status.Outcome {
	case memories.Listed:
		t.Failures = 0
	case memories.TaskRefused, memories.Malformed, memories.ForeignTask: // other failures are the account's
		t.Failures++
	}
	p.tasks.put(a.polled.Target)
}

// learn adds the poll to what is known about how long tasks take and how often lists grow.
func (p *poller) learn(t *polling.Task, a *answer) {
	if a.status.Outcome != memories.Listed {
		return
	}
	at := polling.At(a.at)
	if t.Kind == polling.Settling && t.Polled != 0 {
		grownAt := a.polled.Target.GrownAt
		grew := grownAt != nil && polling.At(*grownAt) > t.Grown
		p.survival.ObserveGrowth(t.Polled.Sub(t.Grown), at.Sub(t.Grown), grew)
	}
	if t.Kind != polling.Waiting {
		return
	}
	var last time.Duration
	if t.Polled != 0 {
		last = t.Polled.Sub(t.Registered)
	}
	p.survival.Observe(last, at.Sub(t.Registered), a.polled.Ready)
}

// setBackoff updates the account's backoff by an answer, and records a change.
func (p *poller) setBackoff(a *answer) {
	if a.status.Outcome == memories.ForeignTask || a.status.Outcome == memories.Malformed {
		p.log.Error("memories.ai sent a wrong answer", "outcome", a.status.Outcome.String(), "task", a.target.id, "reason", a.status.Message)
	}
	backoff, changed := backoffAfter(a.status, p.backoff, time.Now())
	// A request that was in flight when the backoff began must not prolong it.
	if p.backoff.Until.After(a.sentAt) && backoff.State == p.backoff.State {
		return
	}
	p.backoff = backoff
	if !changed {
		return
	}
	if backoff.State == store.AccountActive {
		p.log.Info("account is active again")
	} else {
		p.log.Warn("account backs off", "state", backoff.State, "reason", backoff.Reason, "until", backoff.Until.Format(time.RFC3339))
	}
	if err := p.w.cfg.Store.SetBackoff(context.Background(), p.lease.Account.ID, p.lease.ID, backoff); err != nil {
		p.log.Warn("poller cannot record the account's backoff", "error", err)
	}
}

// backoffAfter returns the account's backoff after an answer, given the one before, and whether the change must be
// recorded.
func backoffAfter(status memories.Status, before store.Backoff, now time.Time) (after store.Backoff, changed bool) {
	b := store.Backoff{Reason: status.Message, Count: before.Count + 1}
	if before.State == store.AccountActive {
		b.Count = 1
	}
	var pause time.Duration
	switch status.Outcome {
	case memories.Listed, memories.TaskRefused:
		return store.Backoff{State: store.AccountActive}, before.State != store.AccountActive || before.Count > 0
	case memories.ForeignTask:
		return before, false // a fault of one answer, which says nothing about the account
	case memories.RateLimited:
		b.State = store.AccountRateLimited
		if before.State != b.State {
			b.Count = 1
		}
		pause = min(limitedMin<<min(b.Count-1, 10), limitedMax)
		if status.RetryAfter > 0 {
			pause = status.RetryAfter
		}
	case memories.AccountRefused, memories.OutOfCredits:
		b.State, pause = store.AccountRefused, refusedPause
		if status.Code != "" {
			b.Reason = status.Code + ": " + status.Message
		}
	default:
		b.Count = before.Count + 1
		if b.Count <= toleratedFaults {
			return store.Backoff{State: before.State, Count: b.Count}, false
		}
		b.State = store.AccountUnavailable
		longest := min(outageMin<<min(b.Count-1-toleratedFaults, 10), outageMax)
		pause = longest/2 + rand.N(longest/2+1) // jitter, so that accounts do not return together
	}
	b.Until = now.Add(pause)
	return b, true
}
