package worker

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/worker/polling"
)

// An answer of memories.ai says something about the task (pollOf, recorded before the poller sees the answer), about the account
// (backoffAfter), and about how long tasks take (learn).

// pollOf returns what is recorded of the task.
func pollOf(a *answer) store.Poll {
	p := store.Poll{TaskID: a.target.id, At: a.at, Bare: a.target.bare, Lag: a.lag}
	taskErr := &store.TaskError{Code: cmp.Or(a.status.Code, a.status.Outcome.String()), Message: messageOf(a.status)}
	if progress := a.status.Progress; progress != nil {
		p.Progress = &store.Progress{Percent: progress.Percent, Stages: progress.Stages}
	}
	switch {
	case a.status.Outcome == memories.Listed:
		p.Videos, p.Done = videosOf(a.status.Videos), a.status.Done
	case a.status.Outcome == memories.TaskRefused && !a.failed:
		p.Refusal = taskErr
	case a.status.Outcome == memories.Failed:
		p.Failure = taskErr
	default:
		if a.status.Outcome == memories.ForeignTask || a.status.Outcome == memories.Malformed {
			taskErr.Code = a.status.Outcome.String()
		}
		p.Fault = taskErr
	}
	return p
}

// messageOf returns the answer's message, with its HTTP status if it comes from a proxy in front of memories.ai.
func messageOf(status memories.Status) string {
	if status.Code != "" || status.HTTPStatus == 0 || strings.HasPrefix(status.Message, "HTTP ") {
		return status.Message
	}
	return fmt.Sprintf("HTTP %d %s: %s", status.HTTPStatus, http.StatusText(status.HTTPStatus), status.Message)
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
	if t == nil {
		return
	}
	switch {
	case a.status.Outcome == memories.Listed:
		t.Failures = 0
		t.NotBefore = polling.At(a.at.Add(a.status.RetryAfter))
	case a.status.Outcome == memories.AskAgain: // nobody's failure
	case a.failed:
		t.Failures = 1 // so that the next probe of the account is of another task, though this one may be hinted
	default:
		t.Failures = min(t.Failures+1, math.MaxInt16-1)
	}
	if a.err != nil {
		p.log.Warn("poller cannot record a poll; it will poll the task again", "task", a.target.id, "error", a.err)
		t.Polled = polling.At(a.at)
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
	p.put([]store.PollTarget{a.polled.Target})
}

// learn adds the poll to what is known about how long tasks take and how often lists grow.
func (p *poller) learn(t *polling.Task, a *answer) {
	if a.status.Outcome != memories.Listed {
		return
	}
	at := polling.At(a.at)
	if t.Kind == polling.Settling && t.Polled != 0 {
		grownAt := a.polled.Target.GrownAt
		grew := grownAt != nil && polling.At(grownAt.Add(p.w.cfg.Store.ClockError())) > t.Grown
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
	backoff := p.backoff
	switch {
	case a.failed:
		backoff = backoffAfter(a.status, p.backoff, time.Now())
		// A request that was in flight when the backoff began must not prolong it.
		if p.backoff.Until.After(a.sentAt) && backoff.State == p.backoff.State {
			return
		}
	case answersTask(a.status):
		backoff = store.Backoff{State: store.AccountActive}
	}
	if backoff == p.backoff {
		return
	}
	before := p.backoff.State
	p.backoff = backoff
	switch until := backoff.Until.Format(time.RFC3339); {
	case backoff.State == store.AccountActive:
		p.log.Info("account is active again")
	case backoff.State != before:
		p.log.Warn("account backs off: none of its tasks is polled", "state", backoff.State, "reason", backoff.Reason, "until", until)
	default: // one line for each change of state is enough
		p.log.Debug("account still backs off", "state", backoff.State, "reason", backoff.Reason, "until", until)
	}
	backoff.Until = backoff.Until.Add(-p.w.cfg.Store.ClockError())
	if err := p.w.cfg.Store.SetBackoff(context.Background(), p.lease.Account.ID, p.lease.ID, backoff); err != nil {
		p.log.Warn("poller cannot record the account's backoff", "error", err)
	}
}

// backoffAfter returns the account's backoff after a failure of it, given the one before.
func backoffAfter(status memories.Status, before store.Backoff, now time.Time) store.Backoff {
	b := store.Backoff{Reason: messageOf(status), Count: 1}
	b.State, _ = failureOf(status)
	if before.State == b.State {
		b.Count = before.Count + 1
	}
	if status.Code != "" && b.State != store.AccountRateLimited {
		b.Reason = status.Code + ": " + status.Message
	}
	var pause time.Duration
	switch b.State {
	case store.AccountRateLimited:
		pause = min(limitedMin<<min(b.Count-1, 10), limitedMax)
		if status.RetryAfter > 0 {
			pause = min(status.RetryAfter, retryAfterMax)
		}
	case store.AccountRefused:
		pause = refusedPause
	default:
		longest := min(outageMin<<min(b.Count-1, 10), outageMax)
		pause = longest/2 + rand.N(longest/2+1) // jitter, so that accounts do not return together
	}
	b.Until = now.Add(pause)
	return b
}

// videosOf returns the videos of an answer as the store keeps them: what was not told is nil.
func videosOf(told []memories.Video) []store.Video {
	out := make([]store.Video, len(told))
	for i, v := range told {
		out[i] = store.Video{
			ID: v.ID, Status: orNil(v.Status), Cause: orNil(v.Cause), Name: orNil(v.Name), URL: orNil(v.URL), Duration: v.Duration,
		}
	}
	return out
}

// orNil returns a pointer to s, or nil for "".
func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
