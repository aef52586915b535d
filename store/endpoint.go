package store

import (
	"fmt"
	"slices"
	"strings"
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

// The signatures that an endpoint can ask for.
const (
	SignatureHMAC    = "v1"  // HMAC-SHA256 with the endpoint's secret
	SignatureEd25519 = "v1a" // ed25519 with the endpoint's key
)

// Endpoint is a receiver of an app: all callback URLs with the same scheme, host, port and path. They share its
// secret, settings and health.
//
// URL is its name. What a callback URL has beyond it is the suffix, which belongs to the subscription and is kept in its
// deliveries: the query, or, of an endpoint whose URL ends in /*, the rest of the path and the query.
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
	Signatures     []string // SignatureHMAC, and SignatureEd25519 where asked for
	Manual         bool     // an app has created or changed it: it is never purged as idle
	CreatedAt      time.Time

	Breaker      string
	Failures     int // in a row
	Probes       int // failed ones in a row
	FailingSince *time.Time
	HoldUntil    *time.Time
	Backlog      bool // some of its deliveries are parked
}

const endpointColumns = `e.id, e.app_id, e.url, e.description, e.enabled, e.disabled_reason, e.event_types, e.headers, e.rate_limit,
	e.signatures, e.manual, e.created_at, e.breaker, e.failures, e.probes, e.failing_since, e.hold_until, e.backlog`

// isWildcard reports whether an endpoint's URL names all callback URLs below its path.
func isWildcard(url string) bool { return strings.HasSuffix(url, "/*") }

// base returns the part of an endpoint's URL that its callback URLs begin with.
func base(url string) string {
	if isWildcard(url) {
		return strings.TrimSuffix(url, "*")
	}
	return url
}

// CallbackURL returns the callback URL with the given suffix. Without a suffix it is where the endpoint's own events go.
func (e *Endpoint) CallbackURL(suffix string) string { return base(e.URL) + suffix }

// callbackURLOf is [Endpoint.CallbackURL] in SQL, for the aliases of an endpoint and of the row with the suffix.
func callbackURLOf(endpoint, row string) string { //nolint:unparam // the caller names its alias
	return fmt.Sprintf(`(case when right(%[1]s.url, 2) = '/*' then left(%[1]s.url, -1) else %[1]s.url end) || %[2]s.suffix`, endpoint, row)
}

// splitCallbackURL returns the name of the endpoint that a callback URL in normal form has by itself, and its suffix.
func splitCallbackURL(url string) (name, suffix string) {
	if i := strings.IndexByte(url, '?'); i >= 0 {
		return url[:i], url[i:]
	}
	return url, ""
}

// Signs reports whether the endpoint's webhooks carry a kind of signature.
func (e *Endpoint) Signs(signature string) bool { return slices.Contains(e.Signatures, signature) }

// Healthy reports whether a success would change nothing of the endpoint.
func (e *Endpoint) Healthy() bool {
	return e.Failures == 0 && e.Breaker == BreakerClosed && e.FailingSince == nil && e.HoldUntil == nil
}

// Holds reports whether the endpoint takes no attempts at the given time.
func (e *Endpoint) Holds(now time.Time) bool {
	return !e.Enabled || e.Breaker != BreakerClosed || (e.HoldUntil != nil && e.HoldUntil.After(now))
}
