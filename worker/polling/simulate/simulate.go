// Package simulate compares polling policies on virtual time. Only the benchmarks and the tests use it.
package simulate

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/memhook/memhook/worker/polling"
)

// Workload is a stream of tasks of one account.
type Workload struct {
	Name  string
	Tasks int
	Rate  float64 // registrations a second
	Burst int     // registrations at once; 0 means 1
	// Settle is for how long tasks are polled on after they were detected, though their lists never grow.
	Settle time.Duration
	// Draw gives a task's time from registration to ready; false means never.
	Draw func(*rand.Rand) (time.Duration, bool)
	// Survive returns the probability that a task is not ready at an age: what Draw draws from.
	Survive func(age time.Duration) float64
}

// Never is when a task that never is ready is given up, as the service's expiry does.
const Never = 24 * time.Hour

// Policy decides in a simulation. One value serves one run.
type Policy interface {
	// Next returns the index of the task to poll now, or -1. ids names the tasks: their places change.
	Next(tasks []polling.Task, ids []int, now polling.Moment) int
	// Polled tells what came of it.
	Polled(t *polling.Task, id int, last, now polling.Moment, ready bool)
}

// Outcome is what a policy made of a workload.
type Outcome struct {
	Lags     []time.Duration // detected − ready, sorted
	Requests int
}

// Mean returns the mean lag.
func (o Outcome) Mean() time.Duration {
	if len(o.Lags) == 0 {
		return 0
	}
	var sum time.Duration
	for _, l := range o.Lags {
		sum += l
	}
	return sum / time.Duration(len(o.Lags))
}

// Quantile returns the lag that the share q of tasks does not exceed.
func (o Outcome) Quantile(q float64) time.Duration {
	if len(o.Lags) == 0 {
		return 0
	}
	return o.Lags[min(int(q*float64(len(o.Lags))), len(o.Lags)-1)]
}

// Arrival is one task of a workload.
type Arrival struct {
	At    polling.Moment // its registration, after the Unix epoch
	Ready polling.Moment
}

// Arrivals draws a workload's tasks. The same seed gives the same.
func (w Workload) Arrivals(seed uint64) []Arrival {
	r := rand.New(rand.NewPCG(seed, 7))
	out := make([]Arrival, 0, w.Tasks)
	at := polling.Moment(1)
	burst := max(w.Burst, 1)
	for len(out) < w.Tasks {
		at = at.Add(seconds(r.ExpFloat64() / w.Rate * float64(burst)))
		for range min(burst, w.Tasks-len(out)) {
			a := Arrival{At: at}
			if d, ok := w.Draw(r); ok {
				a.Ready = at.Add(d)
			}
			out = append(out, a)
		}
	}
	return out
}

// Simulate runs a workload under a policy on virtual time, with a slot every interval, until every task
// that is ever ready was detected. The same seed gives the same arrivals whatever the policy.
func Simulate(w Workload, p Policy, interval time.Duration, seed uint64) Outcome {
	coming := w.Arrivals(seed)
	left := 0
	for _, a := range coming {
		if a.Ready != 0 {
			left++
		}
	}
	var (
		out   Outcome
		tasks []polling.Task
		ready []polling.Moment
		ids   []int
	)
	for now, id := polling.Moment(1), 0; left > 0; now = now.Add(interval) {
		for len(coming) > 0 && coming[0].At <= now {
			tasks, ready, ids = append(tasks, polling.Task{Registered: coming[0].At}), append(ready, coming[0].Ready), append(ids, id)
			coming = coming[1:]
			id++
		}
		i := p.Next(tasks, ids, now)
		if i < 0 {
			continue
		}
		out.Requests++
		t := &tasks[i]
		last := polled(t)
		if t.Kind == polling.Settling {
			t.Polled = now
			p.Polled(t, ids[i], last, now, false)
			if now.Sub(t.Grown) >= w.Settle {
				tasks, ready, ids = slices.Delete(tasks, i, i+1), slices.Delete(ready, i, i+1), slices.Delete(ids, i, i+1)
			}
			continue
		}
		done := ready[i] != 0 && ready[i] <= now
		t.Polled = now
		p.Polled(t, ids[i], last, now, done)
		if done {
			out.Lags = append(out.Lags, now.Sub(ready[i]))
			left--
		}
		if done && w.Settle > 0 {
			t.Kind, t.Grown = polling.Settling, now
			continue
		}
		if done || now.Sub(t.Registered) > Never {
			tasks, ready, ids = slices.Delete(tasks, i, i+1), slices.Delete(ready, i, i+1), slices.Delete(ids, i, i+1)
		}
	}
	slices.Sort(out.Lags)
	return out
}

// Learnt is the service's own policy: [polling.Shares] with a [Survival] that starts from nothing.
func Learnt() Policy { return &learnt{polling.NewSurvival()} }

type learnt struct{ survival *polling.Survival }

func (p *learnt) Next(tasks []polling.Task, _ []int, now polling.Moment) int {
	i, _ := new(polling.Shares).Choose(p.survival, tasks, now)
	return i
}

func (p *learnt) Polled(t *polling.Task, _ int, last, now polling.Moment, ready bool) {
	if t.Kind == polling.Settling {
		p.survival.ObserveGrowth(last.Sub(t.Grown), now.Sub(t.Grown), false)
		return
	}
	p.survival.Observe(last.Sub(t.Registered), now.Sub(t.Registered), ready)
}

// seconds converts a number of seconds.
func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// Knowing is the service's own policy with the workload's true distribution.
func Knowing(w Workload) Policy { return knowing{truth{w}} }

type knowing struct{ truth truth }

func (p knowing) Next(tasks []polling.Task, _ []int, now polling.Moment) int {
	i, _ := new(polling.Shares).Choose(p.truth, tasks, now)
	return i
}

func (knowing) Polled(*polling.Task, int, polling.Moment, polling.Moment, bool) {}

type truth struct{ w Workload }

func (truth) AtOnce() float64 { return 0 }

func (truth) Growth() float64 { return 0 }

func (t truth) Ready(last, now time.Duration) float64 {
	before := t.w.Survive(last)
	if before <= 0 {
		return 1
	}
	return 1 - t.w.Survive(now)/before
}

// ByScore polls the eligible task with the greatest score. A task that was never polled counts as polled
// at its registration.
func ByScore(score func(t *polling.Task, now polling.Moment) float64) Policy { return byScore(score) }

type byScore func(*polling.Task, polling.Moment) float64

func (p byScore) Next(tasks []polling.Task, _ []int, now polling.Moment) int {
	best, most := -1, math.Inf(-1)
	for i := range tasks {
		t := &tasks[i]
		if s := p(t, now); s > most && polling.EligibleAt(t) <= now {
			best, most = i, s
		}
	}
	return best
}

func (byScore) Polled(*polling.Task, int, polling.Moment, polling.Moment, bool) {}

// polled is when the task was last polled, or registered.
func polled(t *polling.Task) polling.Moment {
	if t.Polled == 0 {
		return t.Registered
	}
	return t.Polled
}

// LeastRecent polls the task whose last poll is longest ago.
func LeastRecent() Policy {
	return ByScore(func(t *polling.Task, now polling.Moment) float64 { return now.Sub(polled(t)).Seconds() })
}

// Rivals are the other indices of the literature, given the true distribution.
func Rivals(w Workload) map[string]Policy {
	d := truth{w}
	ages := func(t *polling.Task, now polling.Moment) (last, age time.Duration) {
		return polled(t).Sub(t.Registered), now.Sub(t.Registered)
	}
	return map[string]Policy{
		"hazard(age) × τ²": ByScore(func(t *polling.Task, now polling.Moment) float64 {
			_, age := ages(t, now)
			tau := now.Sub(polled(t)).Seconds()
			return d.Ready(age, age+100*time.Millisecond) * tau * tau
		}),
		"Whittle: τF(τ) − ∫F": ByScore(func(t *polling.Task, now polling.Moment) float64 {
			last, age := ages(t, now)
			return now.Sub(polled(t)).Seconds()*d.Ready(last, age) - integral(func(a time.Duration) float64 { return d.Ready(last, a) }, last, age)
		}),
		"F(τ) × τ": ByScore(func(t *polling.Task, now polling.Moment) float64 {
			return d.Ready(ages(t, now)) * now.Sub(polled(t)).Seconds()
		}),
		"F(τ) alone": ByScore(func(t *polling.Task, now polling.Moment) float64 { return d.Ready(ages(t, now)) }),
	}
}

// integral is Simpson's rule with eight intervals, in seconds.
func integral(f func(time.Duration) float64, from, to time.Duration) float64 {
	const n = 8
	h := (to - from) / n
	sum := f(from) + f(to)
	for i := 1; i < n; i++ {
		sum += float64(2+2*(i%2)) * f(from+time.Duration(i)*h)
	}
	return sum * h.Seconds() / 3
}

// OwnInterval lets each task be due again some time after its last poll, multiplied by factor after each
// poll up to most; the task that is due first is polled first. It is what most clients do.
func OwnInterval(first, most time.Duration, factor float64) Policy {
	return &ownInterval{first: first, most: most, factor: factor, due: make(map[int]polling.Moment), wait: make(map[int]time.Duration)}
}

type ownInterval struct {
	first, most time.Duration
	factor      float64
	due         map[int]polling.Moment
	wait        map[int]time.Duration
}

func (p *ownInterval) Next(tasks []polling.Task, ids []int, now polling.Moment) int {
	best := -1
	var earliest polling.Moment
	for i := range tasks {
		due, known := p.due[ids[i]]
		if !known {
			due = tasks[i].Registered
		}
		if due <= now && (best < 0 || due < earliest) {
			best, earliest = i, due
		}
	}
	return best
}

func (p *ownInterval) Polled(_ *polling.Task, id int, _, now polling.Moment, ready bool) {
	if ready {
		delete(p.due, id)
		delete(p.wait, id)
		return
	}
	wait := p.wait[id]
	if wait == 0 {
		wait = p.first
	}
	p.due[id], p.wait[id] = now.Add(wait), min(time.Duration(float64(wait)*p.factor), p.most)
}
