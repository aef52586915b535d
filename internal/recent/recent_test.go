package recent_test

import (
	"testing"

	"golang.org/x/time/rate"

	"github.com/memhook/memhook/internal/recent"
)

// A set of limiters that is full evicts the one that was used least recently and no other: a limit that is exceeded all the
// time is never lifted by others who come.
func TestFullLimitersEvictOneAtATime(t *testing.T) {
	t.Parallel()
	const busy, idle, rare = -1, -2, 0.001 // so that none comes back while the test runs
	l := recent.NewLimiters[int]()
	if !l.Of(idle, rare, 1).Allow() || !l.Of(busy, rare, 1).Allow() {
		t.Fatal("the first request is refused")
	}
	for other := range 3 * recent.Kept {
		l.Of(other, rare, 1)
		if l.Of(busy, rare, 1).Tokens() > 0.99 {
			t.Fatal("the busy key's limit was lifted")
		}
	}
	if n := l.Len(); n != recent.Kept {
		t.Errorf("%d limiters are kept, want %d", n, recent.Kept)
	}
	if l.Contains(idle) {
		t.Error("the idle key's limiter was not evicted")
	}
	if lim := l.Of(busy, 2, 2); lim.Limit() != rate.Limit(2) || lim != l.Of(busy, 2, 2) {
		t.Errorf("a changed limit is %v", lim.Limit())
	}
}
