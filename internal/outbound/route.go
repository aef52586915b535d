package outbound

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/proxy"
)

// keepAlive finds peers that have vanished while a connection is idle.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}

// route is how a request reaches its target. Connections of one key can carry each other's requests.
type route struct {
	key    string
	host   string   // of the target, as TLS verifies it
	addr   string   // of the target, host:port
	secure bool     // TLS to the target
	proxy  *url.URL // nil for none
	// absolute means that the target is asked of the proxy in the request line, without a tunnel.
	absolute bool
}

func (c *Client) routeOf(req *http.Request) (*route, error) {
	u := req.URL
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, errors.New("the URL is not an absolute one of http or https")
	}
	r := &route{host: strings.TrimSuffix(u.Hostname(), "."), addr: hostPort(u), secure: u.Scheme == "https"}
	if c.cfg.Proxy != nil {
		var err error
		if r.proxy, err = c.cfg.Proxy(req); err != nil {
			return nil, err
		}
	}
	r.key = u.Scheme + " " + r.addr
	if r.proxy != nil {
		r.key += " " + r.proxy.String()
		r.absolute = !r.secure && strings.HasPrefix(r.proxy.Scheme, "http")
	}
	return r, nil
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// proxyAuthorization returns the value of the header Proxy-Authorization; "" for none.
func (r *route) proxyAuthorization() string {
	if r.proxy == nil || r.proxy.User == nil {
		return ""
	}
	password, _ := r.proxy.User.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(r.proxy.User.Username()+":"+password))
}

// serialize returns the request's bytes as they go over the route. It closes the request's body.
func (r *route) serialize(req *http.Request) ([]byte, error) {
	var out bytes.Buffer
	out.Grow(int(max(0, min(req.ContentLength, 1<<20))) + 1<<10)
	if !r.absolute {
		err := req.Write(&out)
		return out.Bytes(), err
	}
	if auth := r.proxyAuthorization(); auth != "" {
		req = req.Clone(req.Context())
		req.Header.Set("Proxy-Authorization", auth)
	}
	err := req.WriteProxy(&out)
	return out.Bytes(), err
}

// conn is a connection that carries one exchange at a time.
type conn struct {
	net.Conn // the socket, or the outermost TLS over it
	socket   net.Conn
	route    *route
	buffer   *bufio.Reader // over Read
	left     int64         // bytes that may still be read
	ended    error         // why nothing more can be read; parsers do not always tell
	// idleSince is set while the connection is in the pool.
	idleSince time.Time
}

// Read reads at most what is left.
func (c *conn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		c.ended = errHeader
		return 0, errHeader
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if err != nil {
		c.ended = err
	}
	return n, err
}

// reason returns why a head could not be read: what ended the connection if it has ended, since a parser may call a line
// malformed that was cut, and otherwise the parser's error.
func (c *conn) reason(parser error) error {
	switch {
	case c.ended == nil:
		return parser
	case errors.Is(c.ended, io.EOF):
		return io.ErrUnexpectedEOF
	default:
		return c.ended
	}
}

// abort closes the socket at once, without TLS's close_notify, which a peer that does not read holds up.
func (c *conn) abort() { _ = c.socket.Close() }

// dial opens a connection. The error is a [proxyError] if the proxy is to blame.
func (c *Client) dial(ctx context.Context, r *route) (*conn, error) {
	socket, err := c.connect(ctx, r)
	if err != nil {
		return nil, err
	}
	out := &conn{Conn: socket, socket: socket, route: r}
	release := context.AfterFunc(ctx, out.abort)
	defer release()
	if r.proxy != nil && strings.HasPrefix(r.proxy.Scheme, "http") {
		start := time.Now()
		if out.Conn, err = c.throughProxy(ctx, socket, r); err != nil {
			out.abort()
			return nil, c.faultOf(err, start)
		}
	}
	if r.secure {
		if out.Conn, err = c.handshake(ctx, out.Conn, r.host); err != nil {
			out.abort()
			return nil, err
		}
	}
	out.buffer = bufio.NewReaderSize(out, 2<<10) // small, since most answers are and idle connections are many
	return out, nil
}

// connect opens the socket: to the target, or to the proxy, or to the target by a SOCKS proxy.
func (c *Client) connect(ctx context.Context, r *route) (net.Conn, error) {
	if r.proxy == nil {
		direct := net.Dialer{KeepAliveConfig: keepAlive, Control: c.cfg.Control, Resolver: c.cfg.Resolver}
		return direct.DialContext(ctx, "tcp", r.addr)
	}
	toProxy := &net.Dialer{KeepAliveConfig: keepAlive, Resolver: c.cfg.Resolver}
	if strings.HasPrefix(r.proxy.Scheme, "http") {
		socket, err := toProxy.DialContext(ctx, "tcp", hostPort(r.proxy))
		return socket, asProxyError(err)
	}
	socks, err := proxy.FromURL(r.proxy, toProxy)
	if err != nil {
		return nil, proxyError{err}
	}
	withContext, ok := socks.(proxy.ContextDialer)
	if !ok {
		return nil, proxyError{fmt.Errorf("no dialer for %s", r.proxy.Scheme)}
	}
	socket, err := withContext.DialContext(ctx, "tcp", r.addr)
	return socket, asProxyError(err)
}

// throughProxy prepares a connection to an HTTP proxy for the target: TLS to the proxy, and a tunnel for a target with TLS.
func (c *Client) throughProxy(ctx context.Context, socket net.Conn, r *route) (net.Conn, error) {
	way := socket
	if r.proxy.Scheme == "https" {
		var err error
		if way, err = c.handshake(ctx, way, r.proxy.Hostname()); err != nil {
			return nil, err
		}
	}
	if r.absolute {
		return way, nil
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: r.addr}, Host: r.addr, Header: http.Header{"User-Agent": {""}}}
	if auth := r.proxyAuthorization(); auth != "" {
		req.Header.Set("Proxy-Authorization", auth)
	}
	if err := req.Write(way); err != nil {
		return nil, err
	}
	bounded := &conn{Conn: way, left: c.cfg.MaxHeader}
	bounded.buffer = bufio.NewReaderSize(bounded, 512)
	head, err := readHead(bounded, req) //nolint:bodyclose // the socket is closed where it must be
	if err != nil {
		return nil, err
	}
	if head.StatusCode/100 != 2 {
		return nil, tunnelError(head.StatusCode)
	}
	if bounded.buffer.Buffered() > 0 { // in TLS the client speaks first
		return nil, errors.New("it sends more than an answer to CONNECT")
	}
	c.tunnelled.Store(time.Now().UnixNano())
	return way, nil
}

// tunnelError is the status that a proxy answers to CONNECT.
type tunnelError int

func (e tunnelError) Error() string { return fmt.Sprintf("the proxy answers CONNECT with %d", int(e)) }

// proxyWorks is for how long an open tunnel shows that the proxy works.
const proxyWorks = time.Minute

// faultOf decides whether the proxy or the target is to blame for a missing tunnel. A proxy that answers 500, 502, 503 or 504, or
// nothing, either has failed or cannot reach the target. It is the target if the proxy opened tunnels to others: within
// [proxyWorks] for an answer, and since the start for none, since the proxy may have stopped just then.
func (c *Client) faultOf(err error, start time.Time) error {
	last := time.Unix(0, c.tunnelled.Load())
	status, answered := errors.AsType[tunnelError](err)
	switch {
	case answered && status >= 500 && time.Since(last) < proxyWorks, !answered && errors.Is(err, net.ErrClosed) && last.After(start):
		return err
	default:
		return proxyError{err}
	}
}

func (c *Client) handshake(ctx context.Context, over net.Conn, host string) (net.Conn, error) {
	cfg := c.tls.Clone()
	cfg.ServerName = host
	secure := tls.Client(over, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, &handshakeError{err}
	}
	return secure, nil
}
