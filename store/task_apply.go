package store

import (
	"cmp"
	"time"
)

// A task fails on its own refusals once there were this many in a row over at least this long.
const (
	maxRefusals   = 5
	refusalPeriod = 5 * time.Minute
	// maxVideos bounds what a task keeps of lists that change: no answer has more. An event with all of them has some 2 MB.
	maxVideos = 20_000
)

// apply changes t by what a poll has shown and returns the events that follow. settle is how long a
// list may still grow.
func (t *Task) apply(p Poll, settle time.Duration) []Event {
	if !t.Polling || p.Fault != nil {
		return nil
	}
	if p.Refusal != nil {
		return t.refuse(p)
	}
	if p.Progress != nil {
		t.Progress = p.Progress
	}
	if p.Failure != nil {
		return t.fail(p.Failure)
	}
	t.LastError, t.Refusals, t.FirstRefusalAt = nil, 0, nil
	added := t.merge(p)
	if len(added) > 0 {
		t.GrownAt = &p.At
	}

	var events []Event
	settled := p.Done || (t.GrownAt != nil && !p.At.Before(t.GrownAt.Add(settle)))
	complete := t.ExpectedVideos != nil && len(t.Videos) >= *t.ExpectedVideos
	switch {
	case t.Status == TaskWaiting && len(t.Videos) > 0 && (t.ExpectedVideos == nil || complete || settled):
		t.Status, t.ReadyAt = TaskReady, &p.At
		events = append(events, Event{Type: EventReady})
	case t.Status == TaskReady && len(added) > 0:
		events = append(events, Event{Type: EventUpdated, Added: added})
	}
	if t.Status == TaskReady && t.Until == UntilIndexed && t.IndexedAt == nil && (p.Done || t.allIndexed()) {
		t.IndexedAt = &p.At
		events = append(events, Event{Type: EventIndexed})
	}
	t.Polling = !t.reached() || (!complete && !settled)
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
	return t.fail(p.Refusal)
}

// fail ends a task, and returns the event if it had not reached what it waited for.
func (t *Task) fail(why *TaskError) []Event {
	t.LastError, t.Polling = why, false
	if t.reached() {
		return nil
	}
	t.Status = TaskFailed
	return []Event{{Type: EventFailed, Error: why}}
}

// merge takes the answer's videos over: known ones keep their place, and what is no longer listed or told stays. Those beyond
// maxVideos are left out. It returns the ids that are new.
func (t *Task) merge(p Poll) (added []string) {
	known := make(map[string]int, len(t.Videos))
	for i, v := range t.Videos {
		known[v.ID] = i
	}
	for _, v := range p.Videos {
		i, ok := known[v.ID]
		if !ok && len(t.Videos) >= maxVideos {
			continue
		}
		if !ok {
			known[v.ID] = len(t.Videos)
			t.Videos = append(t.Videos, v)
			added = append(added, v.ID)
			continue
		}
		t.Videos[i].update(v)
	}
	return added
}

// update takes over what a later answer tells of the video. A cause belongs to its status.
func (v *Video) update(told Video) {
	if told.Status != nil {
		v.Status = told.Status
		if *told.Status != VideoFailed {
			v.Cause = nil
		}
	}
	v.Cause, v.Name = cmp.Or(told.Cause, v.Cause), cmp.Or(told.Name, v.Name)
	v.URL, v.Duration = cmp.Or(told.URL, v.URL), cmp.Or(told.Duration, v.Duration)
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
	t.Polling = false
	if t.reached() {
		return nil
	}
	t.Status = TaskExpired
	return []Event{{Type: EventExpired}}
}

// reached reports whether the task has what it waited for.
func (t *Task) reached() bool {
	return t.Status == TaskReady && (t.Until != UntilIndexed || t.IndexedAt != nil)
}

// CanCancel reports whether the task can still be cancelled. One that has what it waited for is polled on to settle, but has ended.
func (t *Task) CanCancel() bool { return t.Polling && !t.reached() }

// ended reports whether the task has ended without becoming ready: its id can be registered again.
func (t *Task) ended() bool {
	return t.Status == TaskFailed || t.Status == TaskExpired || t.Status == TaskCancelled
}
