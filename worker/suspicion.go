package worker

import (
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
)

// suspicion distinguishes a failing account from a failing task, which memories.ai's answers do not. A key that lacks a permission, a
// firewall's page or a lost connection may concern one task, and a task may be refused because the service is down.
//
// A failure is the account's if, since an answer last brought a list, another task has failed, too, and one of the two was
// well before; or if failures come in a row and no task is left that was well. Until then it is the task's own. An account
// that backs off goes on doing so while it fails in the same way, and is well again with the next list.
//
// Polls end at the same time, so suspicion is safe for concurrent use.
type suspicion struct {
	mu       sync.Mutex
	state    string // of the account; store.AccountActive if it is well
	refusing bool   // it is unavailable in that tasks are refused
	refused  int    // how many of them in a row
	failures streak // since the last list
}

// streak is failures in a row.
type streak struct {
	count    int // without refusals of tasks
	task     uuid.UUID
	distinct bool // another task has failed, too
	well     bool // one of the tasks was well before
	began    time.Time
}

const (
	// failuresAlone is how many failures in a row make an account back off which has no other task that was well.
	failuresAlone = 3
	// failuresAll is how many do if there are such tasks and none of them has been asked.
	failuresAll = 10
	// refusalsTogether is within what time tasks are refused if it is the account's failure.
	refusalsTogether = time.Minute
	// refusalsBelieved is how many refusals in a row are taken for an outage, about half an hour of it. If there are more,
	// the tasks are gone, and with them every task that could end the outage by a list.
	refusalsBelieved = 40
)

// newSuspicion goes on with the backoff of the account's last poller.
func newSuspicion(b store.Backoff) *suspicion {
	s := &suspicion{state: b.State}
	if code, _, _ := strings.Cut(b.Reason, ": "); b.State == store.AccountUnavailable && passing(code) {
		s.refusing, s.refused = true, b.Count
	}
	return s
}

// asked is a task as it was when its poll was sent.
type asked struct {
	task   uuid.UUID
	well   bool // its last poll had brought a list
	others bool // there were other such tasks
}

// judge takes an answer into account and reports whether it is a failure of the account. All others are the task's own.
func (s *suspicion) judge(status memories.Status, a asked, at time.Time) (ofAccount bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state, refusal := failureOf(status)
	switch {
	case status.Outcome == memories.Listed || status.Outcome == memories.Failed:
		s.failures = streak{}
	case status.Outcome == memories.RateLimited:
		ofAccount = true
	case refusal && s.refused >= refusalsBelieved:
		s.failures = streak{}
	case state == "":
	case state == s.state && (!refusal || s.refusing):
		ofAccount = true
	default:
		ofAccount = s.failures.add(a, refusal, at)
	}
	switch {
	case ofAccount:
		s.state, s.refusing = state, refusal || (s.refusing && state == s.state)
	case answersTask(status):
		s.state, s.refusing = store.AccountActive, false
	}
	if s.refusing {
		s.refused++
	} else {
		s.refused = 0
	}
	return ofAccount
}

// answersTask reports whether memories.ai has answered a task's poll as it does when the account is well.
func answersTask(status memories.Status) bool {
	switch status.Outcome {
	case memories.Listed, memories.TaskRefused, memories.Failed:
		return true
	}
	return false
}

// passing reports whether a code that refuses a task may be an outage: memories.ai's own example client retries these two.
func passing(code string) bool {
	code = strings.TrimLeft(code, "0")
	return code == "1" || code == "3"
}

// add counts a failure and reports whether they are too many for the tasks alone.
func (f *streak) add(a asked, refusal bool, at time.Time) bool {
	if f.began.IsZero() || (refusal && at.Sub(f.began) > refusalsTogether) {
		*f = streak{task: a.task, began: at}
	}
	f.distinct = f.distinct || f.task != a.task
	f.well = f.well || a.well
	if !refusal {
		f.count++
	}
	if f.distinct && f.well {
		return true
	}
	return !refusal && (f.count >= failuresAll || f.count >= failuresAlone && !a.others)
}

// failureOf returns the state of an account of which the answer is typical, "" if it concerns only the task.
// refusal reports whether the answer is the refusal of a task that may be an outage.
func failureOf(status memories.Status) (state string, refusal bool) {
	switch status.Outcome {
	case memories.RateLimited:
		return store.AccountRateLimited, false
	case memories.AccountRefused, memories.OutOfCredits, memories.Blocked:
		return store.AccountRefused, false
	case memories.Unavailable, memories.Malformed:
		return store.AccountUnavailable, false
	case memories.TaskRefused:
		if passing(status.Code) {
			return store.AccountUnavailable, true
		}
	}
	return "", false
}
