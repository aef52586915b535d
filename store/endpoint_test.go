package store

import (
	"testing"
	"time"
)

// What is not the receiver's fault changes nothing of its health; a probe that did not reach it is followed by another.
func TestBlamelessFailuresCountForNoBreaker(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	well := Endpoint{Enabled: true, Breaker: BreakerClosed}
	for range 2 * breakerThreshold {
		if events := well.apply(Result{At: at, Blameless: true, Hold: time.Minute}); events != nil || !well.Healthy() {
			t.Fatalf("a well endpoint: %v %+v", events, well)
		}
	}
	since := at.Add(-2 * disableAfter)
	probed := Endpoint{Enabled: true, Breaker: BreakerHalfOpen, Failures: 12, Probes: 2, FailingSince: &since}
	events := probed.apply(Result{At: at, Blameless: true, Released: true})
	if events != nil || !probed.Enabled || probed.Breaker != BreakerOpen || probed.Probes != 2 || probed.Failures != 12 || !probed.HoldUntil.After(at) {
		t.Errorf("a probe: %v %+v", events, probed)
	}
}
