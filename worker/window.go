package worker

import "time"

// window is how many attempts may be in flight to an endpoint or a host. It adapts as TCP's congestion window does, since
// what a receiver can take is not known and changes. It begins at windowMin. While it is full, it doubles with each round of
// successes until the first failure or slowdown, and then grows by one with each round. It does not grow while answers take
// longer than they do when little is in flight, and is halved, at most once a round, by a failure or where they take much
// longer. How long they take is their median here: every hundredth answer of a good receiver takes seconds, which moves the mean
// so far that the window would never grow (measured: 42 attempts in flight). Its zero value is a new window.
type window struct {
	inFlight int
	extra    int           // beyond windowMin
	cut      bool          // it was halved before: it grows by rounds
	acked    int           // successes of the round
	cutAt    time.Time     // when it was last halved
	mean     time.Duration // of the attempts' durations, exponentially weighted
	answers  time.Duration // how many there were, up to medianOf
	median   time.Duration // about that of the last medianOf durations
	base     time.Duration // about the least median
}

func (w *window) size() int { return windowMin + w.extra }

// room returns how many more attempts may be in flight, where most bounds the window.
func (w *window) room(most int) int { return min(w.size(), max(most, 1)) - w.inFlight }

// adapt adapts the window to the result of an attempt that is in flight until now.
func (w *window) adapt(took time.Duration, ok bool, now time.Time) {
	if w.mean == 0 {
		w.mean, w.median = took, took
	}
	w.mean += (min(took, max(4*w.mean, time.Second)) - w.mean) / 8
	w.answers = min(w.answers+1, medianOf)
	step := max(w.median/w.answers, time.Millisecond)
	w.median += min(max(took-w.median, -step), step)
	if w.answers < medianOf || w.median < w.base {
		w.base = w.median
	}
	if w.extra == 0 || w.inFlight <= w.size()/2 {
		w.base += (w.median - w.base) / 1024 // forgets slowly what the receiver took, and not because much is in flight
	}
	switch {
	case !ok || w.median > slowFactor*w.base+slowMargin:
		if now.Sub(w.cutAt) > w.mean {
			w.extra, w.cut, w.acked, w.cutAt = max(0, w.size()/2-windowMin), true, 0, now
		}
	case w.inFlight < w.size() || w.median > w.base*3/2+growMargin:
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
