package worker

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/worker/polling"
)

const (
	// slotLead is how long before its time the next slot is asked for, at most half the interval: what a busy
	// database takes to answer. A slot that is asked for late is late, and so are all after it.
	slotLead = 100 * time.Millisecond
	// maxPollsInFlight bounds the requests of one account that wait for their answers, where the account's budget
	// does not bound them more tightly.
	maxPollsInFlight = 100
	// errorPause is the rest after an error of our own, such as the database being away.
	errorPause = time.Second
)

// shift polls one account. Its loop is one goroutine, which owns all its fields; requests run beside it
// and come back as answers.
type shift struct {
	w        *Worker
	sh       *store.Shift
	log      *slog.Logger
	survival *polling.Survival
	interval time.Duration // between slots
	lead     time.Duration
	trouble  store.Trouble

	tasks    []polling.Task // what the policy chooses from
	rows     []polledTask
	index    map[uuid.UUID]int
	inFlight int
	most     int         // in flight at once: a second's worth of the budget, and one
	answered []time.Time // answers within the last window
	answers  chan answer
	nextSlot time.Time // not to be asked for before
	pacer    *pacer
	stale    bool // there may be tasks that it was not told of
	lost     bool
}

// polledTask is what a poll needs of a task. There can be a hundred thousand of them.
type polledTask struct {
	id               uuid.UUID
	taskID, uniqueID string
	bare             bool    // see store.Poll
	traceparent      *string // of the registration, where it was traced
}

// answer is a poll that has come back and, unless it was dropped, is recorded.
type answer struct {
	task    polledTask
	status  memories.Status
	sentAt  time.Time
	at      time.Time
	lag     time.Duration // if it was ready: how long it probably had been
	dropped bool
	polled  store.Polled
	err     error
}

func newShift(w *Worker, sh *store.Shift) *shift {
	s := &shift{
		w: w, sh: sh, log: w.log.With("account", sh.Account.Name), survival: polling.NewSurvival(),
		interval: store.SlotInterval(sh.Account.RequestsPerSecond),
		trouble:  store.Trouble{State: sh.Account.State, Count: sh.Account.Troubles},
		index:    make(map[uuid.UUID]int, len(sh.Waiting)),
		tasks:    make([]polling.Task, 0, len(sh.Waiting)),
		rows:     make([]polledTask, 0, len(sh.Waiting)),
	}
	s.lead = min(slotLead, s.interval/2)
	s.pacer = w.pacers.of(sh.Account.ID, s.interval)
	s.most = min(int(math.Ceil(sh.Account.RequestsPerSecond))+1, maxPollsInFlight)
	s.answers = make(chan answer, s.most) // no more: an answer is large, and there are thousands of shifts
	if sh.Account.PausedUntil != nil {
		s.trouble.Until = *sh.Account.PausedUntil
	}
	if learnt, err := polling.Restore(sh.Account.Survival); err == nil {
		s.survival = learnt
	} else {
		s.log.Warn("starting anew to learn how long tasks take", "error", err)
	}
	s.putAll()
	return s
}

// putAll takes in what was read of the account.
func (s *shift) putAll() {
	for _, row := range s.sh.Waiting {
		s.put(row)
	}
	s.sh.Waiting = nil
}

// run polls until the shift is over. mine is false where another shift has taken the account.
func (s *shift) run(ctx context.Context) (end store.ShiftEnd, mine bool) {
	over := s.w.cfg.Now().Add(shiftMin + rand.N(shiftMax-shiftMin))
	for s.w.cfg.Now().Before(over) && !s.lost && !s.w.stopped() && ctx.Err() == nil {
		if s.resting() {
			if until := s.trouble.Until; until.After(over) {
				end.ResumeAt = until
				break
			}
			s.wait(ctx, s.trouble.Until, nil)
			continue
		}
		if s.inFlight >= s.most {
			s.wait(ctx, over, nil)
			continue
		}
		if at := s.clearAt(s.w.cfg.Now()); !at.IsZero() {
			s.wait(ctx, at, nil)
			continue
		}
		if s.w.cfg.Now().Before(s.nextSlot) {
			s.wait(ctx, s.nextSlot, nil)
			continue
		}
		if s.stale {
			s.reread(ctx)
			continue
		}
		if !s.step(ctx, over) {
			break
		}
	}
	for s.inFlight > 0 {
		s.take(<-s.answers)
	}
	if s.resting() {
		end.ResumeAt = s.trouble.Until
	}
	end.Survival = s.survival.Values()
	return end, !s.lost
}

func (s *shift) resting() bool { return s.trouble.Until.After(s.w.cfg.Now()) }

// clearAt gives the time from which on the next request may be sent although more answers have come within a
// second than the budget allows requests; zero where that is not so. When memories.ai was slow and then works off
// what has piled up, it may count all of it in that second, whenever it was sent.
func (s *shift) clearAt(now time.Time) time.Time {
	rps := s.sh.Account.RequestsPerSecond
	window := max(time.Second, s.interval)
	for len(s.answered) > 0 && now.Sub(s.answered[0]) >= window {
		s.answered = s.answered[1:]
	}
	excess := len(s.answered) - int(rps*window.Seconds()+1e-9)
	if excess <= 0 {
		return time.Time{}
	}
	return s.answered[excess-1].Add(window)
}

// reread reads anew what there is to poll. A task that is polled no more stays until the answer of its next poll
// says so.
func (s *shift) reread(ctx context.Context) {
	mine, err := s.w.cfg.Store.ReadShift(ctx, s.sh)
	if err != nil {
		s.log.Warn("the waiting tasks could not be read", "error", err)
		s.wait(ctx, s.w.cfg.Now().Add(errorPause), nil)
		return
	}
	s.lost, s.stale = !mine, false
	s.putAll()
}

// step takes the next slot, if there is a task for it, or waits for one. It returns false when nothing is left to
// poll.
func (s *shift) step(ctx context.Context, over time.Time) bool {
	now := s.w.cfg.Now()
	choice, due := polling.Choose(s.survival, s.tasks, polling.At(now))
	asked := time.Now()
	slot, err := s.w.cfg.Store.TakeSlot(ctx, store.SlotRequest{Account: s.sh.Account.ID, Shift: s.sh.ID, Any: choice >= 0})
	took := time.Since(asked)
	switch {
	case err != nil:
		// The statement may have been committed although its answer was lost, and with it the news that it told.
		s.stale = true
		s.log.Warn("no slot could be taken", "error", err)
		s.wait(ctx, now.Add(errorPause), nil)
	case slot.Lost:
		s.lost = true
	case slot.Granted:
		for _, row := range slot.News {
			s.put(row)
		}
		if len(slot.News) > 0 {
			choice, _ = polling.Choose(s.survival, s.tasks, polling.At(s.w.cfg.Now()))
		}
		if choice >= 0 { // else the news were about tasks that are being polled: the slot is lost
			s.send(ctx, choice, asked.Add(slot.Wait), took)
		}
		s.nextSlot = now.Add(slot.Wait + s.interval - s.lead)
	case choice >= 0: // somebody else's slot is ahead of ours
		s.nextSlot = now.Add(max(slot.Wait-s.lead, s.lead/2))
	case len(s.tasks) == 0:
		return false
	default: // nothing may be polled yet
		wake := over
		if due != 0 && due.Time().Before(over) {
			wake = due.Time()
		}
		ring, cancel := s.w.bell.listen(s.sh.Account.ID)
		s.wait(ctx, wake, ring)
		cancel()
	}
	return true
}

// wait takes answers until a time, until ring rings, or until the worker stops.
func (s *shift) wait(ctx context.Context, until time.Time, ring <-chan struct{}) {
	timer := time.NewTimer(until.Sub(s.w.cfg.Now()))
	defer timer.Stop()
	for {
		select {
		case a := <-s.answers:
			s.take(a)
			if ring != nil || s.inFlight == s.most-1 || s.resting() {
				return // what may be done next has changed
			}
		case <-ring:
			return
		case <-timer.C:
			return
		case <-s.w.stopping:
			return
		case <-ctx.Done():
			return
		}
	}
}

// put takes a task in, or its newer state.
func (s *shift) put(row store.Waiting) {
	i, known := s.index[row.ID]
	if !known {
		i = len(s.tasks)
		s.index[row.ID] = i
		s.tasks, s.rows = append(s.tasks, polling.Task{}), append(s.rows, polledTask{})
	}
	t := &s.tasks[i]
	t.Registered = polling.At(row.CreatedAt)
	if row.LastPolledAt != nil {
		t.Polled = polling.At(*row.LastPolledAt)
	}
	if row.HintedAt != nil {
		t.Hinted = polling.At(*row.HintedAt)
	}
	if row.GrownAt != nil {
		t.Grown = polling.At(*row.GrownAt)
	}
	switch {
	case row.Status == store.TaskWaiting:
		t.Kind = polling.Waiting
	case row.Indexing:
		t.Kind = polling.Indexing
	default:
		t.Kind = polling.Settling
	}
	s.rows[i] = polledTask{id: row.ID, taskID: row.TaskID, uniqueID: unique(row.UniqueID), bare: row.Bare(), traceparent: row.Traceparent}
}

// unique gives the unique_id that nearly all tasks have as one string.
func unique(id string) string {
	const usual = "default"
	if id == usual {
		return usual
	}
	return id
}

// drop forgets a task: the last one takes its place.
func (s *shift) drop(id uuid.UUID) {
	i, known := s.index[id]
	if !known {
		return
	}
	last := len(s.tasks) - 1
	s.tasks[i], s.rows[i] = s.tasks[last], s.rows[last]
	s.index[s.rows[i].id] = i
	s.tasks, s.rows = s.tasks[:last], s.rows[:last]
	delete(s.index, id)
}

// send polls a task at the slot's time, beside the loop. The slot is due at the earliest at due and at the latest
// took, what the database's answer took, after it.
func (s *shift) send(ctx context.Context, i int, due time.Time, took time.Duration) {
	slot := due.Add(min(took, answerMost) / 2)
	s.tasks[i].Busy = true
	s.inFlight++
	row := s.rows[i]
	estimate := max(polling.MinInterval, time.Duration(len(s.tasks))*s.interval)
	lag := polling.Lag(s.survival, &s.tasks[i], polling.At(slot))
	go func() {
		a := answer{task: row}
		defer func() { s.answers <- a }()
		time.Sleep(time.Until(slot))
		if !s.pacer.pass(slot.Add(lateMost)) || ctx.Err() != nil {
			a.dropped = true
			return
		}
		ctx, span := traced(ctx, row.traceparent, "poll", trace.SpanKindClient)
		defer span.End()
		a.sentAt = s.w.cfg.Now()
		a.status = s.w.cfg.Memories.TaskStatus(ctx, memories.Account{Key: string(s.sh.Account.Key)}, row.taskID, row.uniqueID)
		a.at = s.w.cfg.Now()
		p := pollOf(&row, a.status, a.sentAt, a.at)
		a.lag = lag + a.at.Sub(a.sentAt)
		p.NextPollAt, p.Lag = a.at.Add(estimate), a.lag
		p.Traceparent = traceparent(ctx, span)
		// What memories.ai has answered is recorded even when the worker is being stopped.
		a.polled, a.err = s.w.cfg.Store.RecordPoll(context.WithoutCancel(ctx), p)
		if span.IsRecording() {
			span.SetAttributes(attribute.String("memhook.task", row.id.String()), attribute.String("memhook.outcome", a.status.Outcome.String()), attribute.Int("memhook.videos", len(a.status.Videos)))
			if a.polled.Ready {
				span.AddEvent(store.EventReady)
			}
		}
	}()
}

// take brings an answer's news into the shift.
func (s *shift) take(a answer) {
	s.inFlight--
	i, known := s.index[a.task.id]
	if known {
		s.tasks[i].Busy = false
	}
	if a.dropped {
		s.w.metrics.lost.Inc()
		s.log.Debug("a slot was lost: the process was held up", "task", a.task.id)
		return
	}
	s.answered = append(s.answered, a.at)
	s.w.metrics.polls.WithLabelValues(a.status.Outcome.String()).Inc()
	s.judge(a)
	s.log.Debug("polled", "task", a.task.id, "task_id", a.task.taskID, "outcome", a.status.Outcome.String(), "videos", len(a.status.Videos),
		"took", a.at.Sub(a.sentAt))
	if a.err != nil {
		s.log.Warn("a poll could not be recorded; the task will be polled again", "task", a.task.id, "error", a.err)
		if known {
			s.tasks[i].Polled = polling.At(a.at)
		}
		return
	}
	if !known {
		return
	}
	if a.polled.Ready {
		s.w.metrics.lag.Observe(a.lag.Seconds())
	}
	s.learn(&s.tasks[i], a)
	if !a.polled.Polling {
		s.drop(a.task.id)
		return
	}
	failures := s.tasks[i].Failures
	switch a.status.Outcome {
	case memories.Listed:
		failures = 0
	case memories.TaskRefused, memories.Malformed, memories.ForeignTask: // the task's own; the rest is the account's
		failures++
	}
	s.put(a.polled.Waiting)
	s.tasks[i].Failures = failures
}

// learn takes what the poll has shown of the time that tasks take.
func (s *shift) learn(t *polling.Task, a answer) {
	if a.status.Outcome != memories.Listed {
		return
	}
	if t.Kind == polling.Settling && t.Polled != 0 {
		grown := a.polled.Waiting.GrownAt
		s.survival.ObserveGrowth(t.Polled.Sub(t.Grown), polling.At(a.at).Sub(t.Grown), grown != nil && polling.At(*grown) > t.Grown)
	}
	if t.Kind != polling.Waiting {
		return
	}
	var last time.Duration
	if t.Polled != 0 {
		last = t.Polled.Sub(t.Registered)
	}
	s.survival.Observe(last, polling.At(a.at).Sub(t.Registered), a.polled.Ready)
}

// judge records a change of the account's state.
func (s *shift) judge(a answer) {
	now := s.w.cfg.Now()
	if a.status.Outcome == memories.ForeignTask || a.status.Outcome == memories.Malformed {
		s.log.Error("upstream fault", "outcome", a.status.Outcome.String(), "task", a.task.id, "reason", a.status.Message)
	}
	trouble, changed := troubleOf(a.status, s.trouble, now)
	// Requests that were under way when a pause began must not prolong it.
	if s.trouble.Until.After(a.sentAt) && trouble.State == s.trouble.State {
		return
	}
	s.trouble = trouble
	if !changed {
		return
	}
	if trouble.State == store.AccountActive {
		s.log.Info("the account works again")
	} else {
		s.log.Warn("the account rests", "state", trouble.State, "reason", trouble.Reason, "until", trouble.Until.Format(time.RFC3339))
	}
	if err := s.w.cfg.Store.SetTrouble(context.Background(), s.sh.Account.ID, s.sh.ID, trouble); err != nil {
		s.log.Warn("the account's state could not be recorded", "error", fmt.Sprint(err))
	}
}
