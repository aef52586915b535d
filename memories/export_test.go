package memories

import (
	"crypto/x509"

	"github.com/memhook/memhook/internal/outbound"
)

// Trust lets a client trust a test's server.
func (c *Client) Trust(roots *x509.CertPool) {
	c.wire.polls = outbound.New(outbound.Config{Timeout: Timeout, MaxHeader: 64 << 10, MaxBody: MaxBody, MaxIdle: 10, MaxIdlePerHost: 10, Roots: roots})
}
