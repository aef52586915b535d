package memories

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"
)

// maxRetryAfter bounds what an answer may ask for: a date in 9999 must not silence an account for ever.
const maxRetryAfter = 5 * time.Minute

// wire carries requests over HTTP/1.1. An account makes about one request a second, so there is nothing
// for HTTP/2 to share, and a connection that goes silent delays one request instead of all of them.
type wire struct {
	base, userAgent string
	polls           *http.Client // keeps connections
	submissions     *http.Client // a connection each: one that died while idle would leave open whether a submission was taken
}

func newWire(base string, conns int, userAgent string) *wire {
	w := &wire{base: base, userAgent: userAgent, polls: newHTTP(conns), submissions: newHTTP(1)}
	w.submissions.Transport.(*http.Transport).DisableKeepAlives = true //nolint:forcetypeassert // made below
	return w
}

func newHTTP(conns int) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // net/http says that it is one
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = conns, conns
	transport.MaxResponseHeaderBytes = 64 << 10
	transport.ReadBufferSize, transport.WriteBufferSize = 2<<10, 2<<10 // a connection an account: they are many
	return &http.Client{
		Transport: transport,
		// A redirect would carry the key to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (w *wire) close() {
	w.polls.CloseIdleConnections()
	w.submissions.CloseIdleConnections()
}

// answer is what came of one request.
type answer struct {
	status     int // 0: no answer came
	body       []byte
	retryAfter time.Duration // as the header asks, at most maxRetryAfter
	scheme     string        // of WWW-Authenticate
	err        error         // why there is no answer, or not all of it
	sent       bool          // of a submission: the service may have received some of it
}

// get makes the one request of a poll.
func (w *wire) get(ctx context.Context, path, authorization string) answer {
	// The body is empty and of a type of its own. With none, Go's transport sends a GET again on its own when a
	// connection that was used before breaks, and the second request has no slot in the budget. Over HTTP/1.1
	// the transport finds that the body is empty before it writes the headers, and announces none.
	return w.do(ctx, w.polls, http.MethodGet, path, authorization, once{}, 0)
}

// post makes the one request of a submission. Once begun it goes on to its end whatever becomes of ctx: an
// answer that nobody waits for would leave open whether the submission was taken.
func (w *wire) post(ctx context.Context, path, authorization string, body []byte) answer {
	if err := ctx.Err(); err != nil {
		return answer{err: plainError(err)}
	}
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	a := w.do(context.WithoutCancel(ctx), w.submissions, http.MethodPost, path, authorization, bytes.NewReader(body), int64(len(body)))
	a.sent = connected.Load()
	return a
}

func (w *wire) do(ctx context.Context, client *http.Client, method, path, authorization string, body io.Reader, length int64) answer {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, w.base+path, nil)
	if err != nil {
		return answer{err: plainError(err)}
	}
	req.Body, req.ContentLength = io.NopCloser(body), length // without GetBody: nothing can send it again
	if length > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", authorization)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", w.userAgent)
	resp, err := client.Do(req)
	if err != nil {
		return answer{err: plainError(err)}
	}
	defer func() { _ = resp.Body.Close() }()
	a := answer{
		status: resp.StatusCode, scheme: resp.Header.Get("WWW-Authenticate"),
		retryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
	if a.status < http.StatusOK { // after a 101 the body is the connection itself, which never ends
		return a
	}
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, MaxBody+1))
	switch {
	case err != nil:
		a.body, a.err = nil, fmt.Errorf("the answer broke off: %w", plainError(err))
	case len(a.body) > MaxBody:
		a.body, a.err = nil, errTooLarge
	}
	a.body = bytes.TrimPrefix(a.body, []byte("\ufeff"))
	return a
}

var errTooLarge = fmt.Errorf("the answer is larger than %d bytes", MaxBody)

// once is the empty body of a request that must not be sent twice.
type once struct{}

// Read is at the end.
func (once) Read([]byte) (int, error) { return 0, io.EOF }

// plainError says what went wrong in words that a tenant may see: without the URL, which holds the task's
// id, and without addresses of this network.
func plainError(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no complete answer came in time")
	}
	if errors.Is(err, io.EOF) {
		return errors.New("the connection was closed without an answer")
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return errors.New("the host's name could not be resolved")
	}
	if o, ok := errors.AsType[*net.OpError](err); ok {
		return fmt.Errorf("%s: %w", o.Op, o.Err)
	}
	return err
}

// retryAfter reads the header's seconds or date; 0 where it has neither.
func retryAfter(header string, now time.Time) time.Duration {
	if s, err := strconv.ParseFloat(header, 64); err == nil {
		return seconds(s)
	}
	if t, err := http.ParseTime(header); err == nil {
		return min(max(0, t.Sub(now)), maxRetryAfter)
	}
	return 0
}

// seconds bounds a number of seconds that an answer asks for.
func seconds(s float64) time.Duration {
	if !(s > 0) { // NaN too
		return 0
	}
	return time.Duration(min(s, maxRetryAfter.Seconds()) * float64(time.Second))
}
