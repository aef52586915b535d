package memories

import (
	"crypto/tls"
	"net/http"
)

// Trust lets a client trust a test's server.
func (c *Client) Trust(config *tls.Config) {
	c.wire.polls.Transport.(*http.Transport).TLSClientConfig = config
}
