package worker

import "time"

// window is how many attempts may be in flight to an endpoint or a host. It adapts as TCP's congestion window does, since
// what a receiver can take is not known and changes: it begins at windowMin; it grows by one with each success while it is
// full, until the first failure or slowdown, and then by one with each full round of successes; it is halved by a failure
// or where answers slow down, at most once a round. Its zero value is a new window.
type window struct {
	inFlight int
	extra    int           // beyond windowMin
	cut      bool          // it was halved before: it grows by rounds
	acked    int           // successes of the round
	cutAt    time.Time     // when it was last halved
	mean     time.Duration // of the attempts' durations, exponentially weighted
	base     time.Duration // about the least mean
}

func (w *window) size() int { return windowMin + w.extra }

// room returns how many more attempts may be in flight, where most bounds the window.
func (w *window) room(most int) int { return min(w.size(), max(most, 1)) - w.inFlight }

// finish takes an attempt out of flight.
func (w *window) finish(took time.Duration, ok bool, now time.Time) {
	full := w.inFlight >= w.size()
	w.inFlight--
	if w.mean == 0 {
		w.mean = took
	}
	w.mean += (took - w.mean) / 8
	if w.base == 0 || w.mean < w.base {
		w.base = w.mean
	}
	w.base += (w.mean - w.base) / 1024 // forgets slowly
	slow := w.mean > slowFactor*w.base+slowMargin
	switch {
	case !ok || slow:
		if now.Sub(w.cutAt) > w.mean {
			w.extra, w.cut, w.acked, w.cutAt = max(0, w.size()/2-windowMin), true, 0, now
		}
	case !full:
	case !w.cut:
		w.extra++
	default:
		if w.acked++; w.acked >= w.size() {
			w.extra++
			w.acked = 0
		}
	}
}

// reset makes the window as small as it began, since its receiver has stopped answering.
func (w *window) reset() { w.extra, w.cut, w.acked = 0, true, 0 }
