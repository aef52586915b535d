package outbound

import "net/http"

// Idle returns how many idle connections there are for a URL.
func (c *Client) Idle(rawURL string) int {
	req, err := http.NewRequest(http.MethodGet, rawURL, nil)
	if err != nil {
		return 0
	}
	route, err := c.routeOf(req)
	if err != nil {
		return 0
	}
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	return len(c.pool.idle[route.key])
}
