package worker

import (
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
}

// pollTarget is what a poll needs of a task.
type pollTarget struct {
	id          uuid.UUID
	upstreamID  string
	uniqueID    unique.Handle[string] // nearly all tasks have the same
	bare        bool                  // see [store.Poll]
	traceparent *string               // of the registration, if it was traced
}

func newTaskList(size int) taskList {
	return taskList{
		policy: make([]polling.Task, 0, size), targets: make([]pollTarget, 0, size), index: make(map[uuid.UUID]int, size),
	}
}

// find returns the task as the policy sees it, for changes until the next put or drop; nil if it is not in the list.
func (l *taskList) find(id uuid.UUID) *polling.Task {
	if i, known := l.index[id]; known {
		return &l.policy[i]
	}
	return nil
}

// put adds a task, or updates it.
func (l *taskList) put(target store.PollTarget) {
	i, known := l.index[target.ID]
	if !known {
		i = len(l.policy)
		l.index[target.ID] = i
		l.policy, l.targets = append(l.policy, polling.Task{}), append(l.targets, pollTarget{})
	}
	t := &l.policy[i]
	t.Registered = polling.At(target.CreatedAt)
	if target.LastPolledAt != nil {
		t.Polled = polling.At(*target.LastPolledAt)
	}
	if target.HintedAt != nil {
		t.Hinted = polling.At(*target.HintedAt)
	}
	if target.GrownAt != nil {
		t.Grown = polling.At(*target.GrownAt)
	}
	switch {
	case target.Status == store.TaskWaiting:
		t.Kind = polling.Waiting
	case target.Indexing:
		t.Kind = polling.Indexing
	default:
		t.Kind = polling.Settling
	}
	l.targets[i] = pollTarget{
		id: target.ID, upstreamID: target.UpstreamID, uniqueID: unique.Make(target.UniqueID),
		bare: target.Bare(), traceparent: target.Traceparent,
	}
}

// drop removes a task. The last task takes its place.
func (l *taskList) drop(id uuid.UUID) {
	i, known := l.index[id]
	if !known {
		return
	}
	last := len(l.policy) - 1
	l.policy[i], l.targets[i] = l.policy[last], l.targets[last]
	l.index[l.targets[i].id] = i
	l.policy, l.targets = l.policy[:last], l.targets[:last]
	delete(l.index, id)
}
