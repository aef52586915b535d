package outbound

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// writeGrace is how long writing a request may go on after the end of its answer.
const writeGrace = 20 * time.Millisecond

// Config shapes a Client.
type Config struct {
	Timeout        time.Duration // of one exchange, from resolving the name to the last byte
	MaxHeader      int64         // bytes of an answer's heads together, 1xx included
	MaxBody        int64         // bytes of an answer's body that are read
	MaxIdle        int           // idle connections kept in all
	MaxIdlePerHost int           // idle connections kept for one host
	Resend         bool          // send once more where a used connection turned out to be dead

	// Control judges each address before it is connected to, after the name was resolved. A proxy's address is the
	// operator's choice and is not judged. Nil permits all.
	Control  func(network, address string, conn syscall.RawConn) error
	Resolver *net.Resolver  // nil means the system's
	Roots    *x509.CertPool // nil means the system's
	// Proxy returns the proxy for a request: http, https, socks5 or socks5h; nil for none. A nil Proxy never uses one.
	Proxy func(*http.Request) (*url.URL, error)
}

// Client makes exchanges. It is safe for concurrent use.
type Client struct {
	cfg  Config
	tls  *tls.Config
	pool pool
	// tunnelled is when the proxy last opened a tunnel, in Unix nanoseconds.
	tunnelled atomic.Int64
}

// New returns a Client.
func New(cfg Config) *Client {
	if judge := cfg.Control; judge != nil {
		cfg.Control = func(network, address string, conn syscall.RawConn) error {
			if err := judge(network, address, conn); err != nil {
				return forbiddenError{err}
			}
			return nil
		}
	}
	return &Client{
		cfg:  cfg,
		tls:  &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, RootCAs: cfg.Roots},
		pool: pool{most: cfg.MaxIdle, mostPerHost: cfg.MaxIdlePerHost},
	}
}

// Close closes the idle connections.
func (c *Client) Close() { c.pool.close() }

// Response is an answer whose head came whole.
type Response struct {
	Status int // at least 100; of the 1xx only 101, which ends an exchange
	Header http.Header
	Body   []byte // at most Config.MaxBody
	Cut    bool   // the body goes on beyond Body
	Broken *Error // why the body ended early; nil if it came whole or was cut
}

// Do sends a request and reads its answer. It follows no redirect, keeps no cookie and asks for no compression. Its error
// is an [*Error] with the reason for getting no answer.
func (c *Client) Do(ctx context.Context, req *http.Request) (*Response, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	route, err := c.routeOf(req)
	if err != nil {
		return nil, &Error{Kind: Unsendable, Err: err}
	}
	message, err := route.serialize(req)
	if err != nil {
		return nil, &Error{Kind: Unsendable, Err: err}
	}
	if conn := c.pool.take(route.key); conn != nil {
		resp, answered, err := c.exchange(ctx, conn, req, message)
		if answered || !c.cfg.Resend || ctx.Err() != nil {
			return resp, err
		}
	}
	conn, err := c.dial(ctx, route)
	if err != nil {
		return nil, c.failed(ctx, route, connecting, err)
	}
	resp, _, err := c.exchange(ctx, conn, req, message)
	return resp, err
}

// exchange sends message on a connection and reads what is answered. It keeps the connection or closes it. answered
// reports whether a byte of an answer came.
func (c *Client) exchange(ctx context.Context, conn *conn, req *http.Request, message []byte) (_ *Response, answered bool, err error) {
	release := context.AfterFunc(ctx, conn.abort)
	// The request is written beside reading: a peer may answer without reading it. What a failed write means is seen by
	// reading, since an answer may have come before the connection broke.
	written := make(chan error, 1)
	go func() {
		_, err := conn.Write(message)
		written <- err
	}()
	reusable := false
	defer func() {
		if reusable && wroteAll(written) && release() {
			c.pool.put(conn)
			return
		}
		release()
		conn.abort() // which also ends the writing
	}()
	conn.left = c.cfg.MaxHeader
	if _, err := conn.buffer.Peek(1); err != nil {
		return nil, false, c.failed(ctx, conn.route, waiting, err)
	}
	head, err := readHead(conn, req) //nolint:bodyclose // its connection is closed or used again
	if err != nil {
		return nil, true, c.failed(ctx, conn.route, waiting, err)
	}
	if conn.route.absolute && head.StatusCode == http.StatusProxyAuthRequired {
		return nil, true, &Error{Kind: Proxy, Err: errProxyAuthentication}
	}
	resp := &Response{Status: head.StatusCode, Header: head.Header}
	if resp.Status == http.StatusSwitchingProtocols {
		return resp, true, nil // what follows is not HTTP
	}
	conn.left = 1 << 62
	body := bytes.NewBuffer(make([]byte, 0, bytes.MinRead+min(max(head.ContentLength, 0), c.cfg.MaxBody)))
	_, err = body.ReadFrom(io.LimitReader(head.Body, c.cfg.MaxBody+1))
	resp.Body = body.Bytes()
	switch {
	case err != nil:
		resp.Broken = c.failed(ctx, conn.route, reading, err)
	case int64(len(resp.Body)) > c.cfg.MaxBody:
		resp.Body, resp.Cut = resp.Body[:c.cfg.MaxBody], true
	default:
		reusable = !head.Close && conn.buffer.Buffered() == 0
	}
	return resp, true, nil
}

// wroteAll reports whether the request was written whole. An answer that came before that leaves little time for the rest.
func wroteAll(written <-chan error) bool {
	select {
	case err := <-written:
		return err == nil
	case <-time.After(writeGrace):
		return false
	}
}

// readHead reads the final head, past the 1xx heads before it.
func readHead(conn *conn, req *http.Request) (*http.Response, error) {
	for {
		head, err := http.ReadResponse(conn.buffer, req)
		if err != nil {
			return nil, conn.reason(err)
		}
		switch {
		case head.StatusCode < 100:
			return nil, errStatus
		case head.StatusCode >= 200, head.StatusCode == http.StatusSwitchingProtocols:
			return head, nil
		}
	}
}

// RetryAfter returns for how long an answer that was there at a time asks to be left alone, in seconds or until a date: at most most,
// and 0 where it asks for neither.
func RetryAfter(header http.Header, at time.Time, most time.Duration) time.Duration {
	value := header.Get("Retry-After")
	if s, err := strconv.ParseFloat(value, 64); err == nil || errors.Is(err, strconv.ErrRange) { // out of range it is infinite
		return Seconds(s, most)
	}
	if date, err := http.ParseTime(value); err == nil {
		return min(max(0, date.Sub(at)), most)
	}
	return 0
}

// Seconds returns a number of seconds that an answer asks for: at most most, and 0 unless it is positive.
func Seconds(s float64, most time.Duration) time.Duration {
	if !(s > 0) { // NaN too
		return 0
	}
	return time.Duration(min(s, most.Seconds()) * float64(time.Second))
}
