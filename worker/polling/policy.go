package polling

import (
	"math"
	"time"
)

// MinInterval is the least time between two polls of one task, even if the budget allows more.
const MinInterval = 2 * time.Second

// maxInterval bounds the interval between two polls of a task whose polls fail.
const maxInterval = time.Minute

// Kind is what a task is polled for.
type Kind uint8

// A customer waits for tasks of the first two kinds.
const (
	Waiting  Kind = iota // for its first videos
	Indexing             // for its videos to be indexed
	Settling             // for more videos
)

// Moment is a time in Unix nanoseconds; 0 means never. Unlike [time.Time] it holds no pointer, so that the garbage
// collector need not scan the hundred thousand tasks of an instance.
type Moment int64

// At returns t as a Moment: 0 for the zero time.
func At(t time.Time) Moment {
	if t.IsZero() {
		return 0
	}
	return Moment(t.UnixNano())
}

// Time returns m as a time: the zero time for 0.
func (m Moment) Time() time.Time {
	if m == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(m))
}

// Sub returns the time from n to m.
func (m Moment) Sub(n Moment) time.Duration { return time.Duration(m - n) }

// Add returns the moment d after m.
func (m Moment) Add(d time.Duration) Moment { return m + Moment(d) }

// Task is a task as the policy sees it. All moments are of one clock, whichever it is.
type Task struct {
	Registered Moment
	Polled     Moment
	Hinted     Moment // the first hint since its last poll, or an earlier one
	Grown      Moment // of Indexing and Settling: when its list of videos last grew
	NotBefore  Moment // memories.ai asks not to be asked before
	Expires    Moment // 0 if it does not expire
	App        int32  // whose share it is polled on, see [Shares]
	Failures   int16  // polls in a row that failed
	Kind       Kind
	Busy       bool // a poll is in flight
}

// Distribution is what is known about the time from a task's registration until it is ready.
type Distribution interface {
	// Ready returns F, the probability that a task which was not ready at age last is ready at age now.
	Ready(last, now time.Duration) float64
	// AtOnce returns the probability that a task is ready when it is registered.
	AtOnce() float64
	// Growth returns how readily the lists of Settling tasks grow, see [Survival.Growth].
	Growth() float64
}

// lastCall is how long before a task expires its last poll is due. The store expires tasks by the same time: change both
// together.
const lastCall = time.Minute

// urgent is the score that separates tasks that must be polled from tasks that are worth polling. It exceeds every Moment, and less the
// time at which a task became urgent it exceeds every expected lag in seconds.
const urgent = 1e19

// firstWait is how long a customer is assumed to have waited when a task is registered.
const firstWait = time.Second

// Score returns what polling a task now is worth: the expected time, in seconds, for which a customer has been waiting
// for what the poll would show. F(a) is the probability that the task has become ready between its last poll and age a.
// The score is the expected lag so far,
//
//	∫ F(a) da  from the age at the last poll to the age now,
//
// which equals τ − ∫S/S(last poll) with τ the time since the last poll, and is about F(τ)·τ/2 if the hazard is constant.
// The literature has other indices for detecting events under a request budget (refresh rates: Cho and Garcia-Molina
// 2003; crawling: Azar et al. 2018; restless bandits: Whittle 1988). Of all of them this one has the least mean lag in
// simulations, whether the distribution is known or learnt. The integral is computed by Simpson's rule on three points.
//
// A task that was never polled may have been ready when it was registered. The policy learns how often that happens: if
// it is common, new tasks are polled first; if it never happens, they do not use up the budget.
//
// Hinted tasks come before all these, in the order of their hints. Before them come the tasks whose last poll is due, those
// that expire first before the others: a customer must not be told that a task has expired of which nobody has asked.
func Score(d Distribution, t *Task, now Moment) float64 {
	switch {
	case lastPollDue(t, now):
		return 3*urgent - float64(t.Expires)
	case hinted(t):
		return urgent - float64(t.Hinted)
	case t.Kind != Waiting && t.Polled == 0:
		return urgent // its list was seen at an unknown time
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

// Lag returns how long a Waiting task that a poll finds ready now has been ready, as an estimate: the time since its
// hint, or the expected lag so far divided by the probability that it is ready.
func Lag(d Distribution, t *Task, now Moment) time.Duration {
	if hinted(t) {
		return now.Sub(t.Hinted)
	}
	if t.Polled == 0 {
		age := now.Sub(t.Registered)
		p, ready := d.AtOnce(), d.Ready(0, age)
		return conditionalLag(p*age.Seconds()+(1-p)*simpson(age, d.Ready(0, age/2), ready), p+(1-p)*ready, age)
	}
	last, age := t.Polled.Sub(t.Registered), now.Sub(t.Registered)
	ready := d.Ready(last, age)
	return conditionalLag(simpson(age-last, d.Ready(last, (last+age)/2), ready), ready, age-last)
}

// conditionalLag returns lag/probability, at least 0 and at most longest; half of longest if the probability is
// negligible.
func conditionalLag(lag, probability float64, longest time.Duration) time.Duration {
	if probability < 1e-9 {
		return longest / 2
	}
	return min(max(seconds(lag/probability), 0), max(longest, 0))
}

// expectedLag integrates the probability f of a change since the last poll until now, in seconds.
func expectedLag(t *Task, now Moment, f func(Moment) float64) float64 {
	since := now.Sub(t.Polled)
	return simpson(since, f(t.Polled.Add(since/2)), f(now))
}

// simpson integrates a function over a time, in seconds. The function is 0 at its beginning and has the given values in
// its middle and at its end.
func simpson(over time.Duration, middle, end float64) float64 {
	return over.Seconds() * (4*middle + end) / 6
}

// growth returns the probability that a list has grown since the last poll, if its hazard is weight/(time since it last
// grew + 1 min).
func growth(weight float64, t *Task, now Moment) float64 {
	return -math.Expm1(-weight * exposure(t.Polled.Sub(t.Grown), now.Sub(t.Grown)))
}

// hinted reports whether the task was hinted and not polled since. The hints of a task whose polls fail count for nothing:
// whoever hints it without end would keep it first in line.
func hinted(t *Task) bool { return t.Hinted > t.Polled && t.Failures == 0 }

// lastPollDue reports whether the task expires soon or has expired, and the poll that must come before is missing or has
// failed.
func lastPollDue(t *Task, now Moment) bool {
	if t.Expires == 0 || t.Kind == Settling {
		return false
	}
	from := t.Expires.Add(-lastCall)
	return now >= from && (t.Polled < from || t.Failures > 0)
}

// EligibleAt returns when a task may be polled next: 0 (at once) if it was never polled or is hinted, else MinInterval
// after its last poll, doubled for each failed poll in a row after the first, up to maxInterval; but not before memories.ai
// wants it.
func EligibleAt(t *Task) Moment {
	if t.Polled == 0 || hinted(t) {
		return t.NotBefore
	}
	return max(t.NotBefore, t.Polled.Add(min(MinInterval<<min(max(t.Failures-1, 0), 10), maxInterval)))
}
