package api

import (
	"testing"

	"github.com/google/uuid"
	"golang.org/x/time/rate"
)

// A set of limiters that is full evicts the one that was used least recently and no other: a limit that is exceeded all the
// time is never lifted by others who come.
func TestFullLimitersEvictOneAtATime(t *testing.T) {
	t.Parallel()
	l := newKeyLimits(0)
	one := 0.001 // so that none comes back while the test runs
	busy, idle := uuid.New(), uuid.New()
	if !l.of(idle, &one).Allow() || !l.of(busy, &one).Allow() {
		t.Fatal("the first request is refused")
	}
	for range 3 * limitersKept {
		l.of(uuid.New(), &one)
		if l.of(busy, &one).Tokens() > 0.99 {
			t.Fatal("the busy key's limit was lifted")
		}
	}
	if n := l.byKey.Len(); n != limitersKept {
		t.Errorf("%d limiters are kept, want %d", n, limitersKept)
	}
	if l.byKey.Contains(idle) {
		t.Error("the idle key's limiter was not evicted")
	}
	two := 2.0
	if lim := l.of(busy, &two); lim.Limit() != rate.Limit(two) {
		t.Errorf("a changed limit is %v", lim.Limit())
	}
}
