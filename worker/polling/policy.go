package polling

import (
	"math"
	"time"
)

// MinInterval is the least time between two polls of one task when the budget would allow more.
const MinInterval = 2 * time.Second

// maxInterval bounds the interval of a task whose polls fail.
const maxInterval = time.Minute

// Kind is what a task is polled for.
type Kind int

// The kinds.
const (
	Waiting  Kind = iota // for its first videos: a customer waits
	Indexing             // for its videos to be indexed: a customer waits
	Settling             // for more videos: most lists do not grow
)

// Task is a task as the policy sees it. Times are of any clock, as long as it is one.
type Task struct {
	Kind       Kind
	Registered time.Time
	Polled     time.Time // zero: never
	Hinted     time.Time // zero: never; memories.ai is said to have news of it
	Grown      time.Time // of Indexing and Settling: when its list last grew
	Failures   int       // polls in a row that told nothing
	Busy       bool      // a poll is under way
}

// hintTrust is how long a hint lets a task count as surely ready.
const hintTrust = time.Minute

// Score is the worth of polling a task now, in seconds: F(τ)·τ, the probability that there is news since
// its last poll times the time since then. That is the time for which a customer has probably been
// waiting: an upper bound of the lag that a poll ends, and the index that did best in simulation (see
// [Simulate]) among those of the literature on detecting events under a request budget: refresh rates
// (Cho and Garcia-Molina 2003), crawling (Azar et al. 2018) and Whittle's indices for restless bandits
// (1988). Tasks that were never polled come before all others.
func Score(s *Survival, t *Task, now time.Time) float64 {
	if t.Polled.IsZero() {
		return math.MaxFloat64
	}
	since := now.Sub(t.Polled)
	return news(s, t, now) * since.Seconds()
}

// news is F: the probability that a poll shows something new.
func news(s *Survival, t *Task, now time.Time) float64 {
	if !t.Hinted.IsZero() && now.Sub(t.Hinted) < hintTrust {
		return 1
	}
	switch t.Kind {
	case Indexing:
		return growth(1, t, now)
	case Settling:
		return growth(0.1, t, now)
	default:
		return s.Ready(t.Polled.Sub(t.Registered), now.Sub(t.Registered))
	}
}

// growth is the probability that a list has changed since the last poll, with a hazard of weight/(time
// since it last grew + a minute).
func growth(weight float64, t *Task, now time.Time) float64 {
	last := max(t.Polled.Sub(t.Grown), 0).Seconds() + 60
	return 1 - math.Pow(last/(now.Sub(t.Grown).Seconds()+60), weight)
}

// EligibleAt is when a task may be polled next: after the least interval, doubled for each poll in a
// row that failed, up to a minute.
func EligibleAt(t *Task) time.Time {
	if t.Polled.IsZero() {
		return time.Time{}
	}
	return t.Polled.Add(min(MinInterval<<min(t.Failures, 10), maxInterval))
}

// Choose gives the index of the task that the next request is for, or -1 where none may be polled yet;
// then wake is when the first of them may, or zero where there is none.
func Choose(s *Survival, tasks []*Task, now time.Time) (best int, wake time.Time) {
	best = -1
	most := -1.0
	for i, t := range tasks {
		if t.Busy {
			continue
		}
		if at := EligibleAt(t); at.After(now) {
			if wake.IsZero() || at.Before(wake) {
				wake = at
			}
			continue
		}
		if score := Score(s, t, now); score > most {
			best, most = i, score
		}
	}
	return best, wake
}
