package store

import (
	"testing"
	"time"
)

// An attempt that failed on the way, and not at the receiver, changes nothing but when a probe is made again.
func TestApplyOfAnAttemptThatIsNotTheReceiversFault(t *testing.T) {
	t.Parallel()
	start := time.Now()
	ep := Endpoint{Enabled: true, Breaker: BreakerClosed}
	for i := range 10 * breakerThreshold {
		if events := ep.apply(AttemptResult{At: start.Add(time.Duration(i) * 24 * time.Hour), Blameless: true}); events != nil || !ep.Healthy() || !ep.Enabled {
			t.Fatalf("after %d: %v, %+v", i+1, events, ep)
		}
	}
	for range breakerThreshold {
		ep.apply(AttemptResult{At: start})
	}
	if ep.Breaker != BreakerOpen {
		t.Fatalf("the receiver's own failures: %+v", ep)
	}
	ep.Breaker = BreakerHalfOpen
	failures := ep.Failures
	if ep.apply(AttemptResult{At: start, Blameless: true, Released: true}); ep.Breaker != BreakerOpen || ep.Failures != failures || ep.HoldUntil == nil || !ep.HoldUntil.After(start) {
		t.Errorf("a probe that did not arrive: %+v", ep)
	}
}
