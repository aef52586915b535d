package polling

import (
	"fmt"
	"math"
	"time"
)

// The ages at which the hazard may change are spaced by half octaves from a second up; the first bucket
// holds what is younger, the last all that is older than a day and a half.
const (
	buckets     = 36
	perOctave   = 2
	memory      = 2000.0 // completions after which older ones count half
	priorWeight = 0.03   // completions that the prior is worth, in each bucket
	borrowed    = 0.5    // the part of a bucket's prior that comes from its younger neighbour
	own         = 0.7    // the part of a bucket's observations that is its own; the rest is its neighbours'
	priorFirst  = 3.0    // first polls that the prior of AtOnce is worth, half of which found the task ready
	priorGrowth = 0.05   // the weight of a list's growth that an account starts with
	growthWorth = 5.0    // the exposure that it is worth: two lists, watched for ten minutes each
)

// edge gives the age at which bucket k begins, in seconds.
func edge(k int) float64 {
	if k == 0 {
		return 0
	}
	return math.Exp2(float64(k-1) / perOctave)
}

// bucket gives the bucket of an age in seconds.
func bucket(age float64) int {
	if age < 1 {
		return 0
	}
	return min(1+int(perOctave*math.Log2(age)), buckets-1)
}

// priorHazard is the hazard, per second, that an account starts with: half of all tasks are ready after
// about a minute, and what is old gets ready ever more rarely.
func priorHazard(age float64) float64 { return 1 / ((age + 60) * (1 + age/300)) }

// Survival is what an account's tasks have taught of the time from registration to ready: completions
// and exposure by age. The hazard of a bucket is its completions by its exposure, both smoothed over its
// neighbours and begun with a prior, which leans on the younger neighbour's hazard: what was learnt of
// one age says something of the next (the weights are those that did best in [Simulate]); S(age) = exp(−∫hazard) is the probability that a task is not ready at that age.
//
// The zero value is not ready for use; see [NewSurvival].
type Survival struct {
	done    [buckets]float64 // completions
	exposed [buckets]float64 // seconds that tasks were waiting
	hazard  [buckets]float64 // per second
	sum     [buckets]float64 // ∫hazard up to the bucket's beginning

	first  float64 // first polls of which the age tells
	atOnce float64 // those that found the task ready when it was registered

	grown   float64 // polls that found a settling list longer
	watched float64 // the exposure of settling lists, in the units of [exposure]
}

// NewSurvival gives what is known before anything was observed.
func NewSurvival() *Survival {
	s := &Survival{}
	s.derive()
	return s
}

// Values gives the observations for [Restore].
func (s *Survival) Values() []float32 {
	out := make([]float32, 0, 2*buckets+2)
	for k := range buckets {
		out = append(out, float32(s.done[k]), float32(s.exposed[k]))
	}
	return append(out, float32(s.first), float32(s.atOnce), float32(s.grown), float32(s.watched))
}

// Restore makes a Survival of what Values gave; of zeros, a new one.
func Restore(values []float32) (*Survival, error) {
	const known, before = 2*buckets + 4, 2*buckets + 2 // before: lists' growth was not learnt yet
	if len(values) != known && len(values) != before {
		return nil, fmt.Errorf("survival: want %d values, got %d", known, len(values))
	}
	for _, v := range values {
		if !(v >= 0) {
			return nil, fmt.Errorf("survival: %v is not a count", v)
		}
	}
	s := &Survival{first: float64(values[2*buckets]), atOnce: float64(min(values[2*buckets], values[2*buckets+1]))}
	if len(values) == known {
		s.grown, s.watched = float64(values[2*buckets+2]), float64(values[2*buckets+3])
	}
	for k := range buckets {
		s.done[k], s.exposed[k] = float64(values[2*k]), float64(values[2*k+1])
	}
	s.derive()
	return s, nil
}

// derive computes the hazards and their sums from the observations.
func (s *Survival) derive() {
	total := 0.0
	for k := range buckets {
		s.sum[k] = total
		middle := (edge(k) + edge(k+1)) / 2
		prior := priorHazard(middle)
		if k > 0 { // a hazard falls with age as 1/age where nothing else is known
			neighbour := s.hazard[k-1] * math.Exp2(-1.0/perOctave)
			prior = math.Pow(prior, 1-borrowed) * math.Pow(neighbour, borrowed)
		}
		s.hazard[k] = (smoothed(&s.done, k) + priorWeight) / (smoothed(&s.exposed, k) + priorWeight/prior)
		total += s.hazard[k] * (edge(k+1) - edge(k))
	}
}

func smoothed(v *[buckets]float64, k int) float64 {
	return own*v[k] + (1-own)/2*(v[max(k-1, 0)]+v[min(k+1, buckets-1)])
}

// Cumulative gives ∫hazard from 0 to an age.
func (s *Survival) Cumulative(age time.Duration) float64 {
	a := max(age.Seconds(), 0)
	k := bucket(a)
	return s.sum[k] + s.hazard[k]*(a-edge(k))
}

// Ready gives F, the probability that a task which was not ready at age last is ready at age now:
// 1 − S(now)/S(last).
func (s *Survival) Ready(last, now time.Duration) float64 {
	return -math.Expm1(s.Cumulative(last) - s.Cumulative(now))
}

// Observe takes in one poll: a task that was not ready at age last was, or was not, at age now. When
// exactly it became ready is not known; the completion is spread over the time between as the hazard so
// far expects it (one step of expectation-maximisation).
func (s *Survival) Observe(last, now time.Duration, ready bool) {
	from, to := max(last.Seconds(), 0), max(now.Seconds(), 0)
	if from == 0 && s.observeFirst(now, ready) {
		return
	}
	if to <= from {
		return
	}
	all := s.Ready(last, now)
	alive := 1.0 // probability that it is not ready yet, given what was seen
	for k := bucket(from); k <= bucket(to); k++ {
		begin := max(from, edge(k))
		end := to
		if k < buckets-1 {
			end = min(to, edge(k+1))
		}
		width := end - begin
		if width <= 0 {
			continue
		}
		if !ready {
			s.exposed[k] += width
			continue
		}
		share := 0.0
		if all > 0 {
			share = (math.Exp(s.Cumulative(last)-s.Cumulative(seconds(begin))) - math.Exp(s.Cumulative(last)-s.Cumulative(seconds(end)))) / all
		}
		s.done[k] += share
		s.exposed[k] += width * max(alive-share/2, 0)
		alive -= share
	}
	if ready {
		s.forget()
		s.derive()
	}
}

// observeFirst takes in a first poll. Of one that found the task ready, the part is counted as ready at
// once that is probable. It returns true where that is the greater part; else the completion belongs to the ages since.
func (s *Survival) observeFirst(now time.Duration, ready bool) bool {
	s.first++
	if !ready {
		return false
	}
	p := s.AtOnce()
	since := (1 - p) * s.Ready(0, now)
	share := p / (p + since)
	s.atOnce += share
	return share >= 0.5
}

// exposure is the chance that a list had to grow between two times since it last grew, where the hazard
// falls with that time as 1/(time + a minute): the integral of it.
func exposure(last, now time.Duration) float64 {
	return math.Log((max(now, 0) + time.Minute).Seconds() / (max(last, 0) + time.Minute).Seconds())
}

// ObserveGrowth takes in a poll of a settling list that was last polled and last found longer so long ago.
func (s *Survival) ObserveGrowth(last, now time.Duration, grew bool) {
	if now <= last {
		return
	}
	s.watched += exposure(last, now)
	if grew {
		s.grown++
	}
	if s.watched > memory {
		s.grown, s.watched = s.grown/2, s.watched/2
	}
}

// Growth gives the weight w of lists' growth: that a list which was as long as before at time last has
// grown at time now since it last grew has the probability 1 − exp(−w·exposure).
func (s *Survival) Growth() float64 {
	return (s.grown + priorGrowth*growthWorth) / (s.watched + growthWorth)
}

// forget lets older observations weigh less: one completion's share of the memory.
func (s *Survival) forget() {
	keep := math.Exp2(-1 / memory)
	for k := range buckets {
		s.done[k] *= keep
		s.exposed[k] *= keep
	}
	s.first *= keep
	s.atOnce *= keep
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// AtOnce gives the probability that a task is ready when it is registered.
func (s *Survival) AtOnce() float64 {
	return (s.atOnce + priorFirst/2) / (s.first + priorFirst)
}
