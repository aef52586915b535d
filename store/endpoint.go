package store

import (
	"time"

	"github.com/google/uuid"
)

// What an endpoint's breaker can be.
const (
	BreakerClosed   = "closed"
	BreakerOpen     = "open"
	BreakerHalfOpen = "half-open"
)

const (
	// breakerThreshold is how many failures in a row open the breaker.
	breakerThreshold = 10
	// The first probe of an open breaker comes after probeAfter; each that fails doubles the time, up to probeMax.
	probeAfter = 10 * time.Second
	probeMax   = 5 * time.Minute
	// probeTimeout is when a probe whose outcome nobody recorded counts as lost.
	probeTimeout = time.Minute
	// disableAfter is how long all attempts must have failed for the endpoint to be disabled.
	disableAfter = 5 * 24 * time.Hour
)

// Why an endpoint was disabled.
const (
	DisabledGone    = "the receiver answered 410 Gone"
	DisabledFailing = "all attempts have failed for five days"
	DisabledByHand  = "disabled by request"
)

// Endpoint is a callback URL of an app, with its settings and its health.
type Endpoint struct {
	ID             uuid.UUID
	AppID          uuid.UUID
	URL            string
	Description    string
	Enabled        bool
	DisabledReason *string
	EventTypes     []string // nil: all events of its tasks
	Headers        []byte   // sealed
	RateLimit      *float64 // deliveries a second
	CreatedAt      time.Time

	Breaker      string
	Failures     int // in a row
	Probes       int // failed ones in a row
	FailingSince *time.Time
	HoldUntil    *time.Time
	Backlog      bool // some of its deliveries are parked
}

const endpointColumns = `e.id, e.app_id, e.url, e.description, e.enabled, e.disabled_reason, e.event_types, e.headers, e.rate_limit, e.created_at,
	e.breaker, e.failures, e.probes, e.failing_since, e.hold_until, e.backlog`

// Healthy tells whether a success would change nothing of the endpoint.
func (e *Endpoint) Healthy() bool {
	return e.Failures == 0 && e.Breaker == BreakerClosed && e.FailingSince == nil && e.HoldUntil == nil
}

// Holds tells whether the endpoint takes no attempts at the given time.
func (e *Endpoint) Holds(now time.Time) bool {
	return !e.Enabled || e.Breaker != BreakerClosed || (e.HoldUntil != nil && e.HoldUntil.After(now))
}

// apply changes the endpoint's health by an attempt's result and returns the events that follow.
func (e *Endpoint) apply(r Result) (events []string) {
	if r.Delivered {
		if e.Breaker != BreakerClosed {
			events = append(events, EventEndpointRecovered)
		}
		e.Breaker, e.Failures, e.Probes, e.FailingSince, e.HoldUntil = BreakerClosed, 0, 0, nil, nil
		return events
	}
	if r.Blameless {
		if e.Breaker == BreakerHalfOpen && r.Released {
			e.open(r.At) // the probe did not reach it: another one follows
		}
		return nil
	}
	e.Failures++
	if e.FailingSince == nil {
		e.FailingSince = &r.At
	}
	switch {
	case r.Gone:
		return e.disable(DisabledGone)
	case r.At.Sub(*e.FailingSince) >= disableAfter:
		return e.disable(DisabledFailing)
	case e.Breaker == BreakerHalfOpen && r.Released:
		e.Probes++
		e.open(r.At)
	case e.Breaker == BreakerClosed && e.Failures >= breakerThreshold:
		e.open(r.At)
	case e.Breaker == BreakerClosed && r.Hold > 0:
		until := r.At.Add(r.Hold)
		e.HoldUntil = &until
	}
	return nil
}

func (e *Endpoint) open(at time.Time) {
	until := at.Add(min(probeAfter<<min(e.Probes, 10), probeMax))
	e.Breaker, e.HoldUntil = BreakerOpen, &until
}

func (e *Endpoint) disable(reason string) []string {
	if !e.Enabled {
		return nil
	}
	e.Enabled, e.DisabledReason = false, &reason
	return []string{EventEndpointDisabled}
}
