package store

import (
	"fmt"
	"time"

	"github.com/google/uuid"
)

// PollTarget is a task as its poller sees it.
type PollTarget struct {
	ID           uuid.UUID  `json:"id"`
	AppID        uuid.UUID  `json:"app_id"`
	UpstreamID   string     `db:"task_id" json:"task_id"`
	UniqueID     string     `json:"unique_id"`
	Status       string     `json:"status"`
	Refusals     int        `json:"refusals"`
	HasVideos    bool       `json:"has_videos"`
	LastPolledAt *time.Time `json:"last_polled_at"`
	HintedAt     *time.Time `json:"hinted_at"`
	CreatedAt    time.Time  `json:"created_at"`
	ExpiresAt    time.Time  `json:"expires_at"`
	GrownAt      *time.Time `json:"grown_at"`
	Indexing     bool       `json:"indexing"` // ready, and to be polled until its videos are indexed
	Well         bool       `json:"well"`     // its last poll brought its list
	Traceparent  *string    `json:"traceparent"`
}

// Bare reports whether the task waits with no videos and no refusals (see [Poll]).
func (w *PollTarget) Bare() bool {
	return w.Status == TaskWaiting && !w.HasVideos && w.Refusals == 0
}

const pollTargetColumns = `t.id, t.app_id, t.task_id, t.unique_id, t.status, t.refusals, t.videos <> '[]' as has_videos,
	t.last_polled_at, t.hinted_at, t.created_at, t.expires_at, t.grown_at,
	t.status = 'ready' and t.until = 'indexed' and t.indexed_at is null as indexing,
	t.last_polled_at is not null and t.last_error is null as well, t.traceparent`

// pollTarget returns the task as its poller sees it.
func (t *Task) pollTarget() PollTarget {
	return PollTarget{
		ID: t.ID, AppID: t.AppID, UpstreamID: t.UpstreamID, UniqueID: t.UniqueID,
		Status: t.Status, Refusals: t.Refusals, HasVideos: len(t.Videos) > 0,
		LastPolledAt: t.LastPolledAt, HintedAt: t.HintedAt, CreatedAt: t.CreatedAt, ExpiresAt: t.ExpiresAt, GrownAt: t.GrownAt,
		Indexing: t.Status == TaskReady && t.Until == UntilIndexed && t.IndexedAt == nil,
		Well:     t.LastPolledAt != nil && t.LastError == nil, Traceparent: t.Traceparent,
	}
}

// Poll is what one poll of a task has shown. Exactly one of four holds: Refusal is set, Failure is set, Fault is set,
// or Videos is memories.ai's list, which may be empty.
type Poll struct {
	TaskID      uuid.UUID
	At          time.Time // when the answer was there, by the database's clock (see [Store.ClockError])
	NextPollAt  time.Time // the poller's estimate
	Videos      []Video
	Done        bool          // the list is final
	Progress    *Progress     // nil if the answer has none
	Refusal     *TaskError    // memories.ai refuses the task itself
	Failure     *TaskError    // the task has ended without success
	Fault       *TaskError    // nothing was learnt of the task
	Traceparent *string       // of the poll, where the task is traced
	Lag         time.Duration // if the task turns out ready: how long it probably has been

	// Bare means that the poller knows the task as waiting with no videos and no refusals, and that it does not expire yet,
	// so that an empty list changes nothing but its poll count.
	Bare bool
}

// changesNothing reports whether the poll changes nothing of its task but counters.
func (p Poll) changesNothing() bool {
	return p.Fault != nil || (p.Bare && p.Refusal == nil && p.Failure == nil && len(p.Videos) == 0)
}

// outcome returns what a poll has shown, in a word or two.
func (p Poll) outcome() string {
	switch {
	case p.Fault != nil:
		return p.Fault.Code
	case p.Refusal != nil:
		return "refused " + p.Refusal.Code
	case p.Failure != nil:
		return "failed " + p.Failure.Code
	case len(p.Videos) == 0:
		return "empty"
	case len(p.Videos) == 1:
		return "1 video"
	default:
		return fmt.Sprintf("%d videos", len(p.Videos))
	}
}
