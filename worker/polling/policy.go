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
type Kind uint8

// The kinds.
const (
	Waiting  Kind = iota // for its first videos: a customer waits
	Indexing             // for its videos to be indexed: a customer waits
	Settling             // for more videos: how often lists grow is learnt
)

// Moment is a time in Unix nanoseconds; 0 means never. It is a [time.Time] without what that carries
// beside it: an instance holds a hundred thousand tasks, which the garbage collector need not look into.
type Moment int64

// At gives a time's moment; never, for the zero time.
func At(t time.Time) Moment {
	if t.IsZero() {
		return 0
	}
	return Moment(t.UnixNano())
}

// Time gives the moment as a time.
func (m Moment) Time() time.Time {
	if m == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(m))
}

// Sub gives the time from n to m.
func (m Moment) Sub(n Moment) time.Duration { return time.Duration(m - n) }

// Add gives the moment d after m.
func (m Moment) Add(d time.Duration) Moment { return m + Moment(d) }

// Task is a task as the policy sees it. Times are of any clock, as long as it is one.
type Task struct {
	Registered Moment
	Polled     Moment
	Hinted     Moment // memories.ai is said to have news of it
	Grown      Moment // of Indexing and Settling: when its list last grew
	Failures   int32  // polls in a row that told nothing
	Kind       Kind
	Busy       bool // a poll is under way
}

// Distribution is what is known of the time from registration to ready.
type Distribution interface {
	// Ready gives F, the probability that a task which was not ready at age last is ready at age now.
	Ready(last, now time.Duration) float64
	// AtOnce gives the probability that a task is ready when it is registered.
	AtOnce() float64
	// Growth gives the weight of the growth of lists that settle, see [Survival.Growth].
	Growth() float64
}

// firstWait is how long a customer counts as having waited when a task is registered.
const firstWait = time.Second

// Score is the worth of polling a task now: the time, in seconds, for which a customer has probably been
// waiting for what the poll would show. With F(a), the probability that the task has become ready between
// its last poll and age a, that is
//
//	∫ F(a) da  from the age at the last poll to the age now
//
// which is τ − ∫S/S(last poll), the expected lag so far, and about F(τ)·τ/2 where the hazard is even. Of the
// indices of the literature on detecting events under a request budget (refresh rates: Cho and
// Garcia-Molina 2003; crawling: Azar et al. 2018; Whittle's indices for restless bandits, 1988) it has the
// least mean lag in [Simulate], with the distribution known and learnt. The integral is Simpson's rule on
// three points.
//
// A task that was never polled may have been ready when it was registered; how often that happens is
// learnt too. So first polls come first where they are worth it, and do not eat the budget where they
// never show anything. A hinted task comes before all others.
func Score(d Distribution, t *Task, now Moment) float64 {
	if hinted(t) {
		return math.MaxFloat64
	}
	switch {
	case t.Kind != Waiting && t.Polled == 0:
		return math.MaxFloat64 // its list was seen, but nobody knows when
	case t.Kind == Indexing:
		return expectedLag(t, now, func(at Moment) float64 { return growth(1, t, at) })
	case t.Kind == Settling:
		return expectedLag(t, now, func(at Moment) float64 { return growth(d.Growth(), t, at) })
	case t.Polled == 0:
		p, age := d.AtOnce(), now.Sub(t.Registered)
		return p*(age+firstWait).Seconds() + (1-p)*simpson(age, d.Ready(0, age/2), d.Ready(0, age))
	default:
		last, age := t.Polled.Sub(t.Registered), now.Sub(t.Registered)
		return simpson(age-last, d.Ready(last, (last+age)/2), d.Ready(last, age))
	}
}

// Lag gives the time for which a waiting task that a poll finds ready now has probably been ready: since its
// hint, or the expected lag so far over the probability that it is ready.
func Lag(d Distribution, t *Task, now Moment) time.Duration {
	if hinted(t) {
		return now.Sub(t.Hinted)
	}
	if t.Polled == 0 {
		age := now.Sub(t.Registered)
		p, ready := d.AtOnce(), d.Ready(0, age)
		return divide(p*age.Seconds()+(1-p)*simpson(age, d.Ready(0, age/2), ready), p+(1-p)*ready, age)
	}
	last, age := t.Polled.Sub(t.Registered), now.Sub(t.Registered)
	ready := d.Ready(last, age)
	return divide(simpson(age-last, d.Ready(last, (last+age)/2), ready), ready, age-last)
}

// divide gives the lag, within 0 and most, or half of most where the probability is next to nothing.
func divide(lag, probability float64, most time.Duration) time.Duration {
	if probability < 1e-9 {
		return most / 2
	}
	return min(max(seconds(lag/probability), 0), max(most, 0))
}

func expectedLag(t *Task, now Moment, f func(Moment) float64) float64 {
	since := now.Sub(t.Polled)
	return simpson(since, f(t.Polled.Add(since/2)), f(now))
}

// simpson integrates a function over a time, in seconds, from its values in the middle and at the end; at
// the beginning it is 0.
func simpson(over time.Duration, middle, end float64) float64 {
	return over.Seconds() * (4*middle + end) / 6
}

// growth is the probability that a list has changed since the last poll, with a hazard of weight/(time
// since it last grew + a minute).
func growth(weight float64, t *Task, now Moment) float64 {
	return -math.Expm1(-weight * exposure(t.Polled.Sub(t.Grown), now.Sub(t.Grown)))
}

// hinted tells whether memories.ai is said to have news that no poll has looked for yet.
func hinted(t *Task) bool { return t.Hinted > t.Polled }

// EligibleAt is when a task may be polled next: at once where it was never polled or is hinted, else after the least interval, doubled for each poll in a
// row that failed, up to a minute.
func EligibleAt(t *Task) Moment {
	if t.Polled == 0 || hinted(t) {
		return 0
	}
	return t.Polled.Add(min(MinInterval<<min(t.Failures, 10), maxInterval))
}

// Choose gives the index of the task that the next request is for, or -1 where none may be polled yet;
// then wake is when the first of them may, or 0 where there is none.
func Choose(d Distribution, tasks []Task, now Moment) (best int, wake Moment) {
	best = -1
	most := -1.0
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
		if score := Score(d, t, now); score > most {
			best, most = i, score
		}
	}
	return best, wake
}
