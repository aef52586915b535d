package worker

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func response(status int, header ...string) webhook.Response {
	r := webhook.Response{SentAt: start, Duration: time.Second, Status: status, Header: http.Header{}}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func TestAttemptsFollowTheSchedule(t *testing.T) {
	t.Parallel()
	schedule := []time.Duration{5 * time.Second, 5 * time.Minute, 30 * time.Minute}
	rec := &store.Receiver{Endpoint: store.Endpoint{Enabled: true, Breaker: store.BreakerClosed}}
	for made, want := range schedule {
		seen := make(map[time.Duration]bool)
		for range 200 {
			// In a second round the schedule begins anew.
			r := resultOf(schedule, &store.Delivery{AttemptCount: 7 + made, RoundStart: 7}, rec, response(500))
			delay := r.NextAttemptAt.Sub(start.Add(time.Second))
			if delay < want*8/10 || delay > want*12/10 {
				t.Fatalf("attempt %d: %s, want %s ± 20 %%", made+2, delay, want)
			}
			seen[delay] = true
		}
		if len(seen) < 100 {
			t.Errorf("no jitter: %d different delays of 200", len(seen))
		}
	}
	if r := resultOf(schedule, &store.Delivery{AttemptCount: 10, RoundStart: 7}, rec, response(500)); r.NextAttemptAt != nil || r.Delivered {
		t.Errorf("used up: %+v", r)
	}
}

func TestWhatResponsesMean(t *testing.T) {
	t.Parallel()
	schedule := []time.Duration{5 * time.Second}
	rec := &store.Receiver{Endpoint: store.Endpoint{Enabled: true, Breaker: store.BreakerClosed}}
	at := start.Add(time.Second) // when the response was there
	cases := []struct {
		name            string
		resp            webhook.Response
		delivered, gone bool
		least, most     time.Duration // until the next attempt
		hold            bool
	}{
		{"200", response(200), true, false, 0, 0, false},
		{"204", response(204), true, false, 0, 0, false},
		{"a redirect", response(302), false, false, 4 * time.Second, 6 * time.Second, false},
		{"404", response(404), false, false, 4 * time.Second, 6 * time.Second, false},
		{"410", response(410), false, true, 0, 0, false},
		{"429 with seconds", response(429, "Retry-After", "120"), false, false, 2 * time.Minute, 2 * time.Minute, true},
		{"503 with a date", response(503, "Retry-After", at.Add(2*time.Minute).Format(http.TimeFormat)), false, false, 2 * time.Minute, 2 * time.Minute, true},
		{"503 with a week", response(503, "Retry-After", "604800"), false, false, time.Hour, time.Hour, true},
		{"503 with twenty digits", response(503, "Retry-After", "99999999999999999999"), false, false, time.Hour, time.Hour, true},
		{"503 with 400 digits", response(503, "Retry-After", strings.Repeat("9", 400)), false, false, time.Hour, time.Hour, true},
		{"503 with twenty digits below 0", response(503, "Retry-After", "-99999999999999999999"), false, false, 4 * time.Second, 6 * time.Second, true},
		{"503 with less than the schedule", response(503, "Retry-After", "1"), false, false, 4 * time.Second, 6 * time.Second, true},
		{"503 with rubbish", response(503, "Retry-After", "soon"), false, false, 4 * time.Second, 6 * time.Second, true},
		{"503 with the past", response(503, "Retry-After", start.Add(-time.Hour).Format(http.TimeFormat)), false, false, 4 * time.Second, 6 * time.Second, true},
		{"502 with Retry-After", response(502, "Retry-After", "120"), false, false, 2 * time.Minute, 2 * time.Minute, true},
		{"504 with Retry-After", response(504, "Retry-After", "120"), false, false, 2 * time.Minute, 2 * time.Minute, true},
		{"500 with Retry-After", response(500, "Retry-After", "120"), false, false, 4 * time.Second, 6 * time.Second, false},
		{"502", response(502), false, false, 4 * time.Second, 6 * time.Second, true},
		{"504", response(504), false, false, 4 * time.Second, 6 * time.Second, true},
	}
	for _, c := range cases {
		r := resultOf(schedule, &store.Delivery{}, rec, c.resp)
		if r.Delivered != c.delivered || r.Gone != c.gone || (r.Hold > 0) != c.hold || (r.NextAttemptAt != nil) != (c.most > 0) {
			t.Errorf("%s: %+v", c.name, r)
			continue
		}
		if c.most > 0 {
			if delay := r.NextAttemptAt.Sub(at); delay < c.least || delay > c.most {
				t.Errorf("%s: next attempt after %s, want %s to %s", c.name, delay, c.least, c.most)
			}
		}
		if r.NextAttemptAt != nil && r.Hold > r.NextAttemptAt.Sub(at) {
			t.Errorf("%s: the endpoint is held %s, beyond the delivery's own retry", c.name, r.Hold)
		}
	}
}

// A success changes nothing of a healthy endpoint, but for a test's, which makes due what waits.
func TestATestTellsOfItsSuccess(t *testing.T) {
	t.Parallel()
	rec := &store.Receiver{Endpoint: store.Endpoint{Enabled: true, Breaker: store.BreakerClosed}}
	for eventType, test := range map[string]bool{store.EventTest: true, store.EventReady: false} {
		r := resultOf(nil, &store.Delivery{EventType: eventType}, rec, response(200))
		if r.Test != test || r.Healthy == test {
			t.Errorf("%s: %+v", eventType, r)
		}
	}
}

func TestBackoffOfAnAccount(t *testing.T) {
	t.Parallel()
	now := start
	of := func(failures ...memories.Status) (store.Backoff, time.Duration) {
		b := store.Backoff{State: store.AccountActive}
		for _, f := range failures {
			b = backoffAfter(f, b, now)
		}
		return b, b.Until.Sub(now)
	}
	st := func(o memories.Outcome, code string) memories.Status {
		return memories.Status{Outcome: o, Code: code, Message: "words", HTTPStatus: 200}
	}
	limited := st(memories.RateLimited, "0429")
	var many []memories.Status
	for i, seconds := range []int{1, 2, 4, 8, 16, 32, 32} {
		want := time.Duration(seconds) * time.Second
		many = append(many, limited)
		if b, pause := of(many...); b.State != store.AccountRateLimited || pause != want {
			t.Errorf("rate limited %d times: %s for %s, want %s", i+1, b.State, pause, want)
		}
	}
	for asked, want := range map[time.Duration]time.Duration{7 * time.Second: 7 * time.Second, 7000 * time.Hour: 5 * time.Minute} {
		l := limited
		l.RetryAfter = asked
		if _, pause := of(l); pause != want {
			t.Errorf("Retry-After %s: %s, want %s", asked, pause, want)
		}
	}
	for _, o := range []memories.Outcome{memories.AccountRefused, memories.OutOfCredits, memories.Blocked} {
		if b, pause := of(st(o, "0401"), st(o, "0401")); b.State != store.AccountRefused || pause != time.Minute || b.Reason != "0401: words" || b.Count != 2 {
			t.Errorf("%s: %+v for %s", o, b, pause)
		}
	}
	page := memories.Status{Outcome: memories.AccountRefused, HTTPStatus: 403, Message: "the answer is not JSON"}
	if b, _ := of(page); b.Reason != "HTTP 403 Forbidden: the answer is not JSON" {
		t.Errorf("a firewall's page: %q", b.Reason)
	}
	for _, f := range []memories.Status{st(memories.Unavailable, ""), st(memories.Malformed, ""), st(memories.TaskRefused, "0001")} {
		if b, pause := of(f); b.State != store.AccountUnavailable || pause < 500*time.Millisecond || pause > time.Second {
			t.Errorf("%s: %+v for %s", f.Outcome, b, pause)
		}
		if b, pause := of(limited, limited, f); b.Count != 1 || pause > time.Second {
			t.Errorf("%s after a rate limit: %+v for %s", f.Outcome, b, pause)
		}
		var long []memories.Status
		for range 30 {
			long = append(long, f)
		}
		if b, pause := of(long...); b.State != store.AccountUnavailable || pause < 30*time.Second || pause > time.Minute {
			t.Errorf("thirty %s: %s for %s", f.Outcome, b.State, pause)
		}
	}
}
