package polling

import (
	"fmt"
	"math"
	"time"
)

// The hazard is constant within a bucket of ages. Buckets are half octaves from one second up. The first holds all
// younger ages, the last all ages above a day and a half. The weights are those that did best in simulations.
const (
	buckets     = 36
	perOctave   = 2
	memory      = 2000.0 // completions after which an observation counts half
	priorWeight = 0.03   // weight of the prior in each bucket, in completions
	borrowed    = 0.5    // the part of a bucket's prior that comes from its younger neighbour
	own         = 0.7    // the part of a bucket's smoothed observations that is its own; the rest is its neighbours'
	priorFirst  = 3.0    // weight of the prior of AtOnce, in first polls; half of them found the task ready
	priorGrowth = 0.05   // the prior of Growth
	growthWorth = 5.0    // weight of the prior of Growth, in exposure: two lists, watched for ten minutes each
)

// edge returns the age at which bucket k begins, in seconds.
func edge(k int) float64 {
	if k == 0 {
		return 0
	}
	return math.Exp2(float64(k-1) / perOctave)
}

// bucket returns the bucket of an age in seconds.
func bucket(age float64) int {
	if age < 1 {
		return 0
	}
	return min(1+int(perOctave*math.Log2(age)), buckets-1)
}

// priorHazard returns the hazard per second that an account starts with: half of all tasks are ready after about a
// minute, and the older a task is, the less likely it is to become ready soon.
func priorHazard(age float64) float64 { return 1 / ((age + 60) * (1 + age/300)) }

// Survival is the distribution of the time from registration to ready, learnt from an account's tasks: completions and
// exposure by age. A bucket's hazard is its completions divided by its exposure. Both are smoothed over the neighbouring
// buckets and begin with a prior, which leans on the hazard of the younger neighbour: neighbouring ages have similar
// hazards. S(age) = exp(−∫hazard) is the probability that a task is not ready at that age.
//
// The zero value must not be used; see [NewSurvival].
type Survival struct {
	done    [buckets]float64 // completions
	exposed [buckets]float64 // seconds that tasks were waiting
	hazard  [buckets]float64 // per second
	sum     [buckets]float64 // ∫hazard up to the bucket's beginning

	first  float64 // first polls
	atOnce float64 // first polls that found a task which was ready when it was registered

	grown   float64 // polls that found the list of a Settling task longer
	watched float64 // the exposure of Settling tasks' lists, in units of [exposure]
}

// NewSurvival returns the distribution that an account starts with.
func NewSurvival() *Survival {
	s := &Survival{}
	s.derive()
	return s
}

// Values returns the observations, for [Restore].
func (s *Survival) Values() []float32 {
	out := make([]float32, 0, 2*buckets+4)
	for k := range buckets {
		out = append(out, float32(s.done[k]), float32(s.exposed[k]))
	}
	return append(out, float32(s.first), float32(s.atOnce), float32(s.grown), float32(s.watched))
}

// Restore returns the Survival whose Values are given; zeros give a new one.
func Restore(values []float32) (*Survival, error) {
	const size = 2*buckets + 4
	if len(values) != size {
		return nil, fmt.Errorf("survival: want %d values, got %d", size, len(values))
	}
	for _, v := range values {
		if !(v >= 0) {
			return nil, fmt.Errorf("survival: %v is not a count", v)
		}
	}
	s := &Survival{
		first: float64(values[2*buckets]), atOnce: float64(min(values[2*buckets], values[2*buckets+1])),
		grown: float64(values[2*buckets+2]), watched: float64(values[2*buckets+3]),
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
		if k > 0 { // without observations a hazard falls as 1/age
			neighbour := s.hazard[k-1] * math.Exp2(-1.0/perOctave)
			prior = math.Pow(prior, 1-borrowed) * math.Pow(neighbour, borrowed)
		}
		s.hazard[k] = (smoothed(&s.done, k) + priorWeight) / (smoothed(&s.exposed, k) + priorWeight/prior)
		total += s.hazard[k] * (edge(k+1) - edge(k))
	}
}

// smoothed returns bucket k's value, smoothed over its neighbours.
func smoothed(v *[buckets]float64, k int) float64 {
	return own*v[k] + (1-own)/2*(v[max(k-1, 0)]+v[min(k+1, buckets-1)])
}

// cumulative returns ∫hazard from 0 to an age.
func (s *Survival) cumulative(age time.Duration) float64 {
	a := max(age.Seconds(), 0)
	k := bucket(a)
	return s.sum[k] + s.hazard[k]*(a-edge(k))
}

// Ready returns F, the probability that a task which was not ready at age last is ready at age now:
// 1 − S(now)/S(last).
func (s *Survival) Ready(last, now time.Duration) float64 {
	return -math.Expm1(s.cumulative(last) - s.cumulative(now))
}

// Observe adds one poll: a task that was not ready at age last was found ready, or not, at age now. It is not known when
// exactly the task became ready, so the completion is spread over the time between as the hazard so far predicts (one
// step of expectation-maximisation).
func (s *Survival) Observe(last, now time.Duration, ready bool) {
	from, to := max(last.Seconds(), 0), max(now.Seconds(), 0)
	if from == 0 && s.observeFirst(now, ready) {
		return
	}
	if to <= from {
		return
	}
	all := s.Ready(last, now)
	alive := 1.0 // the probability that the task is not ready at the bucket's beginning, given the observation
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
			share = (math.Exp(s.cumulative(last)-s.cumulative(seconds(begin))) - math.Exp(s.cumulative(last)-s.cumulative(seconds(end)))) / all
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

// observeFirst adds a first poll. If it found the task ready, it counts as ready at once by the probability of that. It
// reports whether that is more probable than not; if not, the completion belongs to the ages since registration.
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

// exposure returns the integral of 1/(time + 1 min) between two times since a list last grew: the form of the hazard
// that it grows again.
func exposure(last, now time.Duration) float64 {
	return math.Log((max(now, 0) + time.Minute).Seconds() / (max(last, 0) + time.Minute).Seconds())
}

// ObserveGrowth adds a poll of a Settling task. last and now are the times from the last growth of its list to its last
// poll and to this one.
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

// Growth returns w: a list that had not grown again at time last since it last grew has done so at time now with the
// probability 1 − exp(−w·exposure(last, now)).
func (s *Survival) Growth() float64 {
	return (s.grown + priorGrowth*growthWorth) / (s.watched + growthWorth)
}

// forget reduces the weight of older observations by one completion's share of the memory.
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

// AtOnce returns the probability that a task is ready when it is registered.
func (s *Survival) AtOnce() float64 {
	return (s.atOnce + priorFirst/2) / (s.first + priorFirst)
}
