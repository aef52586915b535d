package worker

import (
	"time"
	"unique"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/worker/polling"
)

// taskList is the list of an account's tasks that are polled, up to a hundred thousand. What the policy scans is kept
// apart from what a poll needs: policy[i] and targets[i] are the same task.
type taskList struct {
	policy  []polling.Task
	targets []pollTarget
	index   map[uuid.UUID]int
	apps    map[uuid.UUID]int32 // polling.Task.App of each app
	well    int                 // tasks that are well
}

// pollTarget is what a poll needs of a task.
type pollTarget struct {
	id          uuid.UUID
	upstreamID  string
	uniqueID    unique.Handle[string] // nearly all tasks have the same
	bare        bool                  // see [store.Poll]
	well        bool                  // its last poll brought a list
	traceparent *string               // of the registration, if it was traced
}

func newTaskList(size int) taskList {
	return taskList{
		policy: make([]polling.Task, 0, size), targets: make([]pollTarget, 0, size), index: make(map[uuid.UUID]int, size),
		apps: make(map[uuid.UUID]int32),
	}
}

// find returns the task as the policy sees it, for changes until the next put or drop; nil if it is not in the list.
func (l *taskList) find(id uuid.UUID) *polling.Task {
	if i, known := l.index[id]; known {
		return &l.policy[i]
	}
	return nil
}

// put adds a task, or updates it. The list's times are by this instance's clock, which is ahead of the database's.
func (l *taskList) put(target store.PollTarget, ahead time.Duration) {
	i, known := l.index[target.ID]
	if !known {
		i = len(l.policy)
		l.index[target.ID] = i
		l.policy, l.targets = append(l.policy, polling.Task{}), append(l.targets, pollTarget{})
	}
	t := &l.policy[i]
	t.App = l.app(target.AppID)
	at := func(theirs time.Time) polling.Moment { return polling.At(theirs.Add(ahead)) }
	t.Registered, t.Expires = at(target.CreatedAt), at(target.ExpiresAt)
	if target.LastPolledAt != nil {
		t.Polled = at(*target.LastPolledAt)
	}
	// A task that is hinted again keeps its place in line.
	if target.HintedAt != nil && t.Hinted <= t.Polled {
		t.Hinted = at(*target.HintedAt)
	}
	if target.GrownAt != nil {
		t.Grown = at(*target.GrownAt)
	}
	switch {
	case target.Status == store.TaskWaiting:
		t.Kind = polling.Waiting
	case target.Indexing:
		t.Kind = polling.Indexing
	default:
		t.Kind = polling.Settling
	}
	l.count(l.targets[i].well, target.Well)
	l.targets[i] = pollTarget{
		id: target.ID, upstreamID: target.UpstreamID, uniqueID: unique.Make(target.UniqueID),
		bare: target.Bare(), well: target.Well, traceparent: target.Traceparent,
	}
}

// app returns the number by which the policy knows an app.
func (l *taskList) app(id uuid.UUID) int32 {
	n, known := l.apps[id]
	if !known {
		n = int32(len(l.apps))
		l.apps[id] = n
	}
	return n
}

// count keeps the number of tasks that are well, where one of them changes.
func (l *taskList) count(before, after bool) {
	if before {
		l.well--
	}
	if after {
		l.well++
	}
}

// othersWell reports whether there are tasks that are well besides the given one.
func (l *taskList) othersWell(t *pollTarget) bool { return l.well > 1 || (l.well == 1 && !t.well) }

// drop removes a task. The last task takes its place.
func (l *taskList) drop(id uuid.UUID) {
	i, known := l.index[id]
	if !known {
		return
	}
	l.count(l.targets[i].well, false)
	last := len(l.policy) - 1
	l.policy[i], l.targets[i] = l.policy[last], l.targets[last]
	l.index[l.targets[i].id] = i
	l.policy, l.targets = l.policy[:last], l.targets[:last]
	delete(l.index, id)
}
