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

const endpointColumns = `e.id, e.app_id, e.url, e.description, e.enabled, e.disabled_reason, e.event_types, e.headers,
	e.rate_limit, e.created_at, e.breaker, e.failures, e.probes, e.failing_since, e.hold_until, e.backlog`

// Healthy reports whether a success would change nothing of the endpoint.
func (e *Endpoint) Healthy() bool {
	return e.Failures == 0 && e.Breaker == BreakerClosed && e.FailingSince == nil && e.HoldUntil == nil
}

// Holds reports whether the endpoint takes no attempts at the given time.
func (e *Endpoint) Holds(now time.Time) bool {
	return !e.Enabled || e.Breaker != BreakerClosed || (e.HoldUntil != nil && e.HoldUntil.After(now))
}
