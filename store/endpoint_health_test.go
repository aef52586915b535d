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

// Whatever comes beside it, an endpoint is held for as long as its receiver has asked for, until a probe or a test finds it well.
func TestRetryAfterIsKept(t *testing.T) {
	t.Parallel()
	const hour = time.Hour
	start := time.Now()
	asks := AttemptResult{At: start, Hold: hour}
	fails, brief, well := AttemptResult{At: start}, AttemptResult{At: start, Hold: probeAfter - time.Second}, AttemptResult{At: start, Delivered: true}
	times := func(r AttemptResult, n int) (out []AttemptResult) {
		for range n {
			out = append(out, r)
		}
		return out
	}
	cases := []struct {
		name    string
		breaker string // before
		results []AttemptResult
		held    time.Duration
		after   string
	}{
		{"one that asks", BreakerClosed, []AttemptResult{asks}, hour, BreakerClosed},
		{"counted from the answer", BreakerClosed, []AttemptResult{{At: start, Duration: time.Minute, Hold: hour}}, hour + time.Minute, BreakerClosed},
		{"one after it asks for less", BreakerClosed, []AttemptResult{asks, {At: start, Hold: time.Second}}, hour, BreakerClosed},
		{"one after it asks for more", BreakerClosed, []AttemptResult{{At: start, Hold: time.Second}, asks}, hour, BreakerClosed},
		{"ten that ask open the breaker", BreakerClosed, times(asks, breakerThreshold), hour, BreakerOpen},
		{"ten of which the first asks", BreakerClosed, append([]AttemptResult{asks}, times(fails, breakerThreshold-1)...), hour, BreakerOpen},
		{"ten of which none asks", BreakerClosed, times(fails, breakerThreshold), probeAfter, BreakerOpen},
		{"one more of the burst asks", BreakerClosed, append(times(fails, breakerThreshold), asks), hour, BreakerOpen},
		{"a probe that asks", BreakerHalfOpen, []AttemptResult{{At: start, Hold: hour, Released: true}}, hour, BreakerOpen},
		{"a probe that does not", BreakerHalfOpen, []AttemptResult{{At: start, Released: true}}, 2 * probeAfter, BreakerOpen},
		{"a success that was in flight", BreakerClosed, []AttemptResult{asks, {At: start, Delivered: true}}, hour, BreakerClosed},
		{"a success that was in flight while the breaker opened", BreakerClosed, append(times(asks, breakerThreshold), AttemptResult{At: start, Delivered: true}), hour, BreakerClosed},
		{"the same, and they asked for less than the breaker waits", BreakerClosed, append(times(brief, breakerThreshold), well), probeAfter, BreakerClosed},
		{"the same, and nobody asked", BreakerClosed, append(times(fails, breakerThreshold), well), probeAfter, BreakerClosed},
		{"a success after it", BreakerClosed, []AttemptResult{asks, {At: start.Add(hour), Delivered: true}}, 0, BreakerClosed},
		{"a test", BreakerClosed, []AttemptResult{asks, {At: start, Delivered: true, Test: true}}, 0, BreakerClosed},
		{"a good probe", BreakerHalfOpen, []AttemptResult{{At: start, Delivered: true, Released: true}}, 0, BreakerClosed},
	}
	for _, c := range cases {
		ep := Endpoint{Enabled: true, Breaker: c.breaker}
		if c.breaker == BreakerHalfOpen {
			ep.HoldUntil = new(start.Add(probeTimeout)) // as Release does
		}
		for _, r := range c.results {
			ep.apply(r)
		}
		var held time.Duration
		if ep.HoldUntil != nil {
			held = ep.HoldUntil.Sub(start)
		}
		if held != c.held || ep.Breaker != c.after {
			t.Errorf("%s: held for %s, %s; want %s, %s", c.name, held, ep.Breaker, c.held, c.after)
		}
	}
}
