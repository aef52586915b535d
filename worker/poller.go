package worker

import (
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/worker/polling"
)

// A poller polls one account under a lease. Its loop does the first of these that applies:
//
//	the account backs off                        wait until the backoff ends, or end if that is after the lease
//	as many polls in flight as the budget has    wait for an answer
//	more answers in a second than the budget has wait until they are a second old
//	the next slot is not due                     wait for it
//	the task list may be incomplete              read it again
//	otherwise                                    take a slot for the most urgent task and send its poll
//
// Taking a slot also admits tasks that were registered or hinted since the last slot. If no task may be polled yet, the
// poller waits for the first that may, or for the notifier. While it waits it handles answers (poll_result.go). It ends
// when its time is over, its list is empty, another lease has the account, or the worker stops.

// poller owns its fields in one goroutine. Polls run beside it and come back as answers.
type poller struct {
	w         *Worker
	lease     *store.Lease
	account   memories.Account
	log       *slog.Logger
	tasks     taskList
	shares    polling.Shares
	survival  *polling.Survival
	backoff   store.Backoff
	suspicion *suspicion

	interval    time.Duration // between slots
	lead        time.Duration // how long before its time a slot is asked for
	maxInFlight int           // polls: a second's budget and one more
	inFlight    int
	answers     chan answer
	answered    []time.Time // the answers of the last window, see budgetFreeAt
	nextSlot    time.Time   // no slot is asked for before
	pacer       *pacer
	stale       bool // the task list may be incomplete
	lost        bool // another lease has the account
}

func newPoller(w *Worker, lease *store.Lease) *poller {
	account := lease.Account
	p := &poller{
		w: w, lease: lease, log: w.log.With("account", account.Name),
		account:     memories.Account{API: memories.API(account.API), Key: string(account.Key)},
		interval:    store.SlotInterval(account.RequestsPerSecond),
		maxInFlight: min(int(math.Ceil(account.RequestsPerSecond))+1, maxPollsInFlight),
		backoff:     store.Backoff{State: account.State, Count: account.Troubles},
		tasks:       newTaskList(len(lease.Targets)),
	}
	p.lead = min(slotLead, p.interval/2)
	p.pacer = w.pacers.of(account.ID, p.interval)
	p.answers = make(chan answer, p.maxInFlight) // no more: an answer is large, and there are thousands of pollers
	if account.StateReason != nil {
		p.backoff.Reason = *account.StateReason
	}
	if account.PausedUntil != nil {
		p.backoff.Until = account.PausedUntil.Add(w.cfg.Store.ClockError())
		if latest := time.Now().Add(retryAfterMax); p.backoff.Until.After(latest) {
			p.backoff.Until = latest // an older version believed whatever Retry-After said
		}
	}
	p.suspicion = newSuspicion(p.backoff)
	var err error
	if p.survival, err = polling.Restore(account.Survival); err != nil {
		p.log.Warn("poller discards what was learnt about the account's tasks", "error", err)
		p.survival = polling.NewSurvival()
	}
	p.putTargets()
	return p
}

// putTargets moves the lease's tasks into the list.
func (p *poller) putTargets() {
	p.put(p.lease.Targets)
	p.lease.Targets = nil
}

// put adds tasks to the list, or updates them, by this instance's clock.
func (p *poller) put(targets []store.PollTarget) {
	ahead := p.w.cfg.Store.ClockError()
	for _, target := range targets {
		p.tasks.put(target, ahead)
	}
}

// run polls until the poller ends. held is false if another lease has the account.
func (p *poller) run(ctx context.Context) (end store.LeaseEnd, held bool) {
	endAt := time.Now().Add(leaseMin + rand.N(leaseMax-leaseMin))
	for more := true; more && !p.lost && !p.w.stopped(&p.w.pollsPaused) && ctx.Err() == nil; {
		now := time.Now()
		if !now.Before(endAt) || p.backoff.Until.After(endAt) {
			break
		}
		free := p.budgetFreeAt(now)
		switch {
		case p.backoff.Until.After(now):
			p.wait(ctx, p.backoff.Until, nil)
		case p.inFlight >= p.maxInFlight:
			p.wait(ctx, endAt, nil)
		case !free.IsZero():
			p.wait(ctx, free, nil)
		case now.Before(p.nextSlot):
			p.wait(ctx, p.nextSlot, nil)
		case p.stale:
			p.reload(ctx)
		default:
			more = p.takeSlot(ctx, endAt)
		}
	}
	for p.inFlight > 0 {
		p.handle(<-p.answers)
	}
	if p.backingOff() {
		end.ResumeAt = p.backoff.Until
	}
	end.Survival = p.survival.Values()
	return end, !p.lost
}

func (p *poller) backingOff() bool { return p.backoff.Until.After(time.Now()) }

// budgetFreeAt returns when the next request may be sent if the last second has brought more answers than the budget
// allows requests, else zero. When memories.ai was slow and then works off a queue of requests, it may count all of
// them in that second, whenever they were sent.
func (p *poller) budgetFreeAt(now time.Time) time.Time {
	window := max(time.Second, p.interval)
	for len(p.answered) > 0 && now.Sub(p.answered[0]) >= window {
		p.answered = p.answered[1:]
	}
	excess := len(p.answered) - int(p.lease.Account.RequestsPerSecond*window.Seconds()+1e-9)
	if excess <= 0 {
		return time.Time{}
	}
	return p.answered[excess-1].Add(window)
}

// reload reads the account's tasks again. A task that is no longer polled stays in the list until its next answer.
func (p *poller) reload(ctx context.Context) {
	held, err := p.w.cfg.Store.ReloadLease(ctx, p.lease)
	if err != nil {
		p.log.Warn("poller cannot read the account's tasks", "error", err)
		p.wait(ctx, time.Now().Add(errorPause), nil)
		return
	}
	p.lost, p.stale = !held, false
	p.putTargets()
}

// takeSlot takes the next slot and sends a poll, or waits until a task may be polled. It returns false if the list is
// empty.
func (p *poller) takeSlot(ctx context.Context, endAt time.Time) bool {
	now := time.Now()
	choice, due := p.shares.Choose(p.survival, p.tasks.policy, polling.At(now))
	slot, err := p.w.cfg.Store.TakeSlot(ctx, store.SlotRequest{
		Account: p.lease.Account.ID, Lease: p.lease.ID, Any: choice >= 0,
		Early: choice >= 0 && p.nextSlot.Add(p.lead).Sub(now) >= 2*store.SlotLinger,
	})
	switch {
	case err != nil:
		// The statement may have been committed and its answer lost, and with it the admitted tasks.
		p.stale = true
		p.log.Warn("poller cannot take a slot", "error", err)
		p.wait(ctx, now.Add(errorPause), nil)
	case slot.Lost:
		p.lost = true
	case slot.Granted:
		p.put(slot.Admitted)
		if len(slot.Admitted) > 0 {
			choice, _ = p.shares.Choose(p.survival, p.tasks.policy, polling.At(time.Now()))
		}
		if choice >= 0 { // else the admitted tasks are being polled already: the slot is unused
			p.send(ctx, choice, slot.Asked.Add(slot.Wait), slot.Took)
		}
		p.nextSlot = slot.Asked.Add(slot.Wait + p.interval - p.lead)
	case choice >= 0: // another lease's slot comes first
		p.nextSlot = slot.Asked.Add(max(slot.Wait-p.lead, p.lead/2))
	case len(p.tasks.policy) == 0:
		return false
	default: // no task may be polled yet
		wake := endAt
		if due != 0 && due.Time().Before(endAt) {
			wake = due.Time()
		}
		urgent, cancel := p.w.notifier.listen(p.lease.Account.ID)
		p.wait(ctx, wake, urgent)
		cancel()
	}
	return true
}

// wait handles answers until the time, until urgent gets a value, or until the worker stops. It returns early when an
// answer has changed what may be done next.
func (p *poller) wait(ctx context.Context, until time.Time, urgent <-chan struct{}) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		select {
		case a := <-p.answers:
			p.handle(a)
			if urgent != nil || p.inFlight == p.maxInFlight-1 || p.backingOff() {
				return
			}
		case <-urgent:
			return
		case <-timer.C:
			return
		case <-p.w.stopping:
			return
		case <-ctx.Done():
			return
		}
	}
}

// answer is a poll that has come back and was recorded, unless it was dropped.
type answer struct {
	target  pollTarget
	status  memories.Status
	failed  bool // the account, not the task
	sentAt  time.Time
	at      time.Time
	lag     time.Duration // if the task was ready: how long it had probably been
	dropped bool          // nothing was sent
	polled  store.Polled
	err     error // of recording it
}

// send polls task i at the time of the slot, in a goroutine. The slot is between due and due+took, took being the time in
// which the database answered.
func (p *poller) send(ctx context.Context, i int, due time.Time, took time.Duration) {
	slot := due.Add(min(took, maxSlotWait) / 2)
	p.shares.Serve(&p.tasks.policy[i])
	p.tasks.policy[i].Busy = true
	p.inFlight++
	target := p.tasks.targets[i]
	was := asked{task: target.id, well: target.well, others: p.tasks.othersWell(&target)}
	expires := p.tasks.policy[i].Expires
	round := max(polling.MinInterval, time.Duration(len(p.tasks.policy))*p.interval)
	lag := polling.Lag(p.survival, &p.tasks.policy[i], polling.At(slot))
	go func() {
		a := answer{target: target}
		defer func() { p.answers <- a }()
		time.Sleep(time.Until(slot))
		if !p.pacer.wait(slot.Add(maxLateness)) || ctx.Err() != nil {
			a.dropped = true
			return
		}
		ctx, span := traced(ctx, target.traceparent, "poll", trace.SpanKindClient)
		defer span.End()
		a.sentAt = time.Now()
		a.status = p.w.cfg.Memories.TaskStatus(ctx, p.account, target.upstreamID, target.uniqueID.Value())
		defer func() { a.status.Release() }() // when it is recorded
		a.at = time.Now()
		a.lag = lag + a.at.Sub(a.sentAt)
		a.failed = p.suspicion.judge(a.status, was, a.at)
		a.target.bare = a.target.bare && polling.At(a.at) < expires
		poll := pollOf(&a)
		poll.At = a.at.Add(-p.w.cfg.Store.ClockError())
		poll.NextPollAt = poll.At.Add(max(round, a.status.RetryAfter))
		poll.Traceparent = traceparent(ctx, span)
		// The answer is recorded even if the worker is stopping.
		a.polled, a.err = p.w.cfg.Store.RecordPoll(context.WithoutCancel(ctx), poll)
		if span.IsRecording() {
			span.SetAttributes(attribute.String("memhook.task", target.id.String()),
				attribute.String("memhook.outcome", a.status.Outcome.String()), attribute.Int("memhook.videos", len(a.status.Videos)))
			if a.polled.Ready {
				span.AddEvent(store.EventReady)
			}
		}
	}()
}
