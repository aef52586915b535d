package polling

import "math"

// Shares divides an account's slots among its apps: of the apps with a task to poll, the one that was served least is next.
// Within an app's share the policy decides (see [Score]), so that neither the number of an app's tasks nor its hints cost
// another app a slot. The zero value has served nobody.
//
// It is a fair queue in virtual time. Each slot moves its app's time on by 1, and the app whose time is least has the next
// slot. An app that had nothing to poll for a while returns at the time of the app that was served last: it is next in line,
// and does not catch up on the slots that it did not want.
type Shares struct {
	apps []share // by Task.App
	now  int64   // the virtual time at which the last slot was given
}

type share struct {
	time  int64   // virtual time of the app's next slot
	best  int     // index of its task that is worth most, or -1
	score float64 // of that task
}

// Choose returns the index of the task that the next request is for. It returns -1 if no task may be polled yet; wake is
// then the moment when the first of them may, or 0 if every task is Busy or there is none. Choose takes no slot: see
// [Shares.Serve].
func (s *Shares) Choose(d Distribution, tasks []Task, now Moment) (best int, wake Moment) {
	for i := range s.apps {
		s.apps[i].best, s.apps[i].score = -1, math.Inf(-1)
	}
	for i := range tasks {
		t := &tasks[i]
		if t.Busy {
			continue
		}
		if at := EligibleAt(t); at > now {
			if wake == 0 || at < wake {
				wake = at
			}
			continue
		}
		for int(t.App) >= len(s.apps) {
			s.apps = append(s.apps, share{best: -1, score: math.Inf(-1)})
		}
		if score := Score(d, t, now); score > s.apps[t.App].score {
			s.apps[t.App].best, s.apps[t.App].score = i, score
		}
	}
	best = -1
	var next share
	for i := range s.apps {
		a := s.apps[i]
		a.time = max(a.time, s.now)
		if a.best >= 0 && (best < 0 || a.time < next.time || a.time == next.time && a.score > next.score) {
			best, next = a.best, a
		}
	}
	return best, wake
}

// Serve charges a slot to the app of a task that Choose has returned.
func (s *Shares) Serve(t *Task) {
	a := &s.apps[t.App]
	s.now = max(s.now, a.time)
	a.time = s.now + 1
}
