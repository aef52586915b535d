package store

import (
	"time"

	"github.com/google/uuid"
)

// What a task can be.
const (
	TaskWaiting   = "waiting"
	TaskReady     = "ready"
	TaskFailed    = "failed"
	TaskExpired   = "expired"
	TaskCancelled = "cancelled"
)

// What a task waits for.
const (
	UntilDownloaded = "downloaded"
	UntilIndexed    = "indexed"
)

// A task fails on its own refusals once there were this many in a row over at least this long.
const (
	maxRefusals   = 5
	refusalPeriod = 5 * time.Minute
)

// What memories.ai says of a video.
const (
	VideoParsed = "PARSE"
	VideoFailed = "FAILED"
)

// Task is a memories.ai task that an app has registered.
type Task struct {
	ID             uuid.UUID
	AppID          uuid.UUID
	AccountID      uuid.UUID
	UpstreamID     string `db:"task_id"` // memories.ai's id of it
	UniqueID       string
	Status         string
	Polling        bool // waiting, or ready and its list may still change
	Until          string
	ExpectedVideos *int
	Metadata       map[string]string
	Videos         []Video // in the order in which they were first seen
	GrownAt        *time.Time
	Polls          int
	LastPolledAt   *time.Time
	NextPollAt     *time.Time
	HintedAt       *time.Time
	LastError      *TaskError
	Refusals       int // in a row
	FirstRefusalAt *time.Time
	CreatedAt      time.Time
	ReadyAt        *time.Time
	IndexedAt      *time.Time
	ExpiresAt      time.Time
	PollLog        []string // the last polls: Unix milliseconds, a space, what came of it
	Traceparent    *string

	Subscriptions []Subscription `db:"-"` // where the method says so
}

// Video is one video of a task. Status is nil where memories.ai has not told one.
type Video struct {
	ID     string  `json:"video_id"`
	Status *string `json:"status"`
}

// TaskError is what memories.ai said of a task that it refused, or what kept the last poll from an answer.
type TaskError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Subscription is one endpoint's interest in a task.
type Subscription struct {
	ID         uuid.UUID
	TaskID     uuid.UUID `db:"task"`
	EndpointID uuid.UUID
	URL        string
}

// Poll is what one poll of a task has shown. Exactly one of three holds: Refusal is set, Fault is set,
// or Videos is memories.ai's list, which may be empty.
type Poll struct {
	TaskID      uuid.UUID
	SentAt      time.Time
	At          time.Time // when the answer was there
	NextPollAt  time.Time // the poller's estimate
	Videos      []Video
	Refusal     *TaskError    // memories.ai refuses the task itself
	Fault       *TaskError    // nothing was learnt of the task
	Traceparent *string       // of the poll, where the task is traced
	Lag         time.Duration // if the task turns out ready: how long it probably has been

	// Bare says that the poller knows the task as waiting with no videos and no refusals, so that an
	// empty list changes nothing but its poll count.
	Bare bool
}

// quiet tells whether the poll changes nothing but the task's counters.
func (p Poll) quiet() bool {
	return p.Fault != nil || (p.Bare && p.Refusal == nil && len(p.Videos) == 0)
}

// apply changes t by what a poll has shown and returns the events that follow. settle is how long a
// list may still grow.
func (t *Task) apply(p Poll, settle time.Duration) []Event {
	if !t.Polling || p.Fault != nil {
		return nil
	}
	if p.Refusal != nil {
		return t.refuse(p)
	}
	t.LastError, t.Refusals, t.FirstRefusalAt = nil, 0, nil
	added := t.merge(p)
	if len(added) > 0 {
		t.GrownAt = &p.At
	}

	var events []Event
	settled := t.GrownAt != nil && !p.At.Before(t.GrownAt.Add(settle))
	complete := t.ExpectedVideos != nil && len(t.Videos) >= *t.ExpectedVideos
	switch {
	case t.Status == TaskWaiting && len(t.Videos) > 0 && (t.ExpectedVideos == nil || complete || settled):
		t.Status, t.ReadyAt = TaskReady, &p.At
		events = append(events, Event{Type: EventReady})
	case t.Status == TaskReady && len(added) > 0:
		events = append(events, Event{Type: EventUpdated, Added: added})
	}
	if t.Status == TaskReady && t.Until == UntilIndexed && t.IndexedAt == nil && t.allIndexed() {
		t.IndexedAt = &p.At
		events = append(events, Event{Type: EventIndexed})
	}
	reached := t.Status == TaskReady && (t.Until != UntilIndexed || t.IndexedAt != nil)
	t.Polling = !reached || (!complete && !settled)
	return events
}

// refuse counts a refusal and fails the task once there were enough of them for long enough.
func (t *Task) refuse(p Poll) []Event {
	t.LastError = p.Refusal
	t.Refusals++
	if t.FirstRefusalAt == nil {
		t.FirstRefusalAt = &p.At
	}
	// A task that is ready has been announced: a refusal can only end its settling.
	if t.Refusals < maxRefusals || p.At.Sub(*t.FirstRefusalAt) < refusalPeriod {
		return nil
	}
	t.Polling = false
	if t.Status == TaskReady && t.Until != UntilIndexed {
		return nil
	}
	t.Status = TaskFailed
	return []Event{{Type: EventFailed, Error: p.Refusal}}
}

// merge takes the answer's videos over: known ones keep their place and what is no longer listed stays.
// It returns the ids that are new.
func (t *Task) merge(p Poll) (added []string) {
	known := make(map[string]int, len(t.Videos))
	for i, v := range t.Videos {
		known[v.ID] = i
	}
	for _, v := range p.Videos {
		i, ok := known[v.ID]
		if !ok {
			known[v.ID] = len(t.Videos)
			t.Videos = append(t.Videos, v)
			added = append(added, v.ID)
			continue
		}
		if v.Status != nil {
			t.Videos[i].Status = v.Status
		}
	}
	return added
}

func (t *Task) allIndexed() bool {
	for _, v := range t.Videos {
		if v.Status == nil || (*v.Status != VideoParsed && *v.Status != VideoFailed) {
			return false
		}
	}
	return len(t.Videos) > 0
}

// expire ends a task whose time is up, and returns the event if it had not reached what it waited for.
func (t *Task) expire() []Event {
	reached := t.Status == TaskReady && (t.Until != UntilIndexed || t.IndexedAt != nil)
	t.Polling = false
	if reached {
		return nil
	}
	t.Status = TaskExpired
	return []Event{{Type: EventExpired}}
}
