package memories

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// DefaultBaseURL is where memories.ai answers.
	DefaultBaseURL = "https://api.memories.ai"

	statusPath = "/serve/api/v1/get_video_ids_by_task_id"

	// MaxBody is the most of an answer that is read, in bytes: some ten thousand videos.
	MaxBody = 4 << 20
	// Timeout bounds one request, from dialling to the last byte.
	Timeout = 10 * time.Second
)

// Client asks memories.ai for the status of tasks. It is safe for concurrent use.
type Client struct {
	base string
	http *http.Client
}

// New makes a client of the service at baseURL, or of [DefaultBaseURL] where that is empty. conns bounds
// the connections that are kept open.
func New(baseURL string, conns int) *Client {
	if baseURL == "" {
		baseURL = DefaultBaseURL
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // net/http says that it is one
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = conns, conns
	transport.MaxResponseHeaderBytes = 64 << 10
	transport.ReadBufferSize, transport.WriteBufferSize = 2<<10, 2<<10 // a connection an account: they are many
	return &Client{
		base: strings.TrimSuffix(baseURL, "/"),
		http: &http.Client{
			Transport: transport,
			Timeout:   Timeout,
			// A redirect would carry the key to another host.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// TaskStatus asks for a task's videos with an account's key. It never fails: what went wrong is the
// status's outcome. One call is one request; nothing is tried again.
func (c *Client) TaskStatus(ctx context.Context, key, taskID, uniqueID string) Status {
	query := url.Values{"task_id": {taskID}, "unique_id": {uniqueID}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+statusPath+"?"+query.Encode(), nil)
	if err != nil {
		return Status{Outcome: Unavailable, Message: err.Error()}
	}
	req.Body = io.NopCloser(once{})
	req.Header.Set("Authorization", key)
	req.Header.Set("Accept", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return Status{Outcome: Unavailable, Message: plainError(err)}
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody+1))
	if err != nil {
		return Status{Outcome: Unavailable, HTTPStatus: resp.StatusCode, Message: "the answer broke off: " + plainError(err)}
	}
	if len(body) > MaxBody {
		return Status{Outcome: Malformed, HTTPStatus: resp.StatusCode, Message: fmt.Sprintf("the answer is larger than %d bytes", MaxBody)}
	}
	s := classify(resp.StatusCode, body, taskID)
	s.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	return s
}

// once is the empty body of a request that must not be sent twice. Without one, Go's transport sends a GET again on
// its own where a connection that was used before breaks, and the second request has no slot in the budget.
type once struct{}

// Read is at the end.
func (once) Read([]byte) (int, error) { return 0, io.EOF }

// plainError says what went wrong without the URL, which holds the task's id.
func plainError(err error) string {
	if u, ok := errors.AsType[*url.Error](err); ok {
		if u.Timeout() {
			return fmt.Sprintf("no answer within %s", Timeout)
		}
		err = u.Err
	}
	return err.Error()
}

// retryAfter reads the header's seconds or date; 0 where it has neither.
func retryAfter(header string, now time.Time) time.Duration {
	if s, err := strconv.Atoi(header); err == nil && s > 0 {
		return time.Duration(min(s, 86_400)) * time.Second
	}
	if t, err := http.ParseTime(header); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}
