package store

import (
	"testing"
	"time"
)

// A step back of the database's clock is told from one of the instance's, from a slow answer and from its going on.
func TestTheClockNoticesAStepBack(t *testing.T) {
	t.Parallel()
	var c clock
	begin := time.Now()
	for i, reading := range []struct {
		asked, theirs time.Duration
		stepped       bool
	}{
		{0, 0, true}, // the first: it may have stepped before
		{time.Second, time.Second, false},
		{2 * time.Second, 5 * time.Second, false}, // an answer that took long, or a step ahead
		{3 * time.Second, 3 * time.Second, true},
		{4 * time.Second, 4 * time.Second, false},
		{5 * time.Second, 5*time.Second - time.Hour, true},
		{6 * time.Second, 6*time.Second - time.Hour, false},
	} {
		asked := begin.Add(reading.asked)
		if got := c.read(asked, asked.Add(time.Millisecond), begin.Add(reading.theirs)); got != reading.stepped {
			t.Errorf("reading %d: %t", i, got)
		}
	}
}
