package badpeers

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/memhook/memhook/internal/outbound"
)

// Beginnings and ends of answers.
const (
	ok      = "HTTP/1.1 200 OK\r\n"
	empty   = "Content-Length: 0\r\n\r\n"
	chunked = ok + "Transfer-Encoding: chunked\r\n\r\n"
	trailed = ok + "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
)

// drip is the pause between the bytes of those that are slow on purpose.
const drip = 30 * time.Millisecond

// Table returns every peer.
func Table() []Peer {
	return slices.Concat(silent, heads, bodies, handshakes, variants)
}

// silent peers do not begin an answer.
var silent = []Peer{
	{Name: "refuses connections", listen: refusing, plainOnly: true, Kind: outbound.Refused},
	{Name: "never accepts", listen: full, plainOnly: true, Kind: outbound.TimeoutConnect},
	{Name: "reads nothing and says nothing", Serve: readNothing, plainOnly: true, LargeRequest: true, Kind: outbound.TimeoutAnswer},
	{Name: "reads the request and says nothing", Serve: hold, Kind: outbound.TimeoutAnswer},
	{Name: "closes at once", Serve: func(net.Conn) {}, Kind: outbound.Closed},
	{Name: "closes after the request", Serve: request, Kind: outbound.Closed},
	{Name: "resets after the request", Serve: func(c net.Conn) { request(c); reset(c) }, plainOnly: true, Kind: outbound.Closed},
	{Name: "closes its half after the request", Serve: func(c net.Conn) { request(c); closeWrite(c); hold(c) }, Kind: outbound.Closed},
	{Name: "closes in the status line", Serve: answer("HTTP/1.1 2"), Kind: outbound.ClosedRead},
	{Name: "closes in the head", Serve: answer(ok + "Content-Le"), Kind: outbound.ClosedRead},
	{Name: "drips its status line", Serve: endless("HTTP/1.1 200 ", "O", drip), Kind: outbound.TimeoutAnswer},
	{Name: "drips headers", Serve: endless(ok, "X: y\r\n", drip), Kind: outbound.TimeoutAnswer},
	{Name: "stops in the head", Serve: answerAndHold(ok + "Content-Length: 0\r\n"), Kind: outbound.TimeoutAnswer},
	{Name: "says 100 and stops", Serve: answerAndHold("HTTP/1.1 100 Continue\r\n\r\n"), Kind: outbound.TimeoutAnswer},
	{Name: "drips 102", Serve: endless("", "HTTP/1.1 102 Processing\r\n\r\n", drip), Kind: outbound.TimeoutAnswer},
}

// heads are wrong or unusual in their head.
var heads = []Peer{
	{Name: "endless 100", Serve: endless("", "HTTP/1.1 100 Continue\r\n\r\n", 0), Kind: outbound.HeaderTooLarge},
	{Name: "endless headers", Serve: endless(ok, "X: y\r\n", 0), Kind: outbound.HeaderTooLarge},
	{Name: "an endless header", Serve: endless(ok+"X: ", "yyyyyyyy", 0), Kind: outbound.HeaderTooLarge},
	{Name: "an endless status line", Serve: endless("HTTP/1.1 200 ", "OKOKOKOK", 0), Kind: outbound.HeaderTooLarge},
	{Name: "a page without a head", Serve: answer("<html>hello</html>\r\n\r\n"), Kind: outbound.Malformed},
	{Name: "SSH", Serve: answer("SSH-2.0-OpenSSH_9.2\r\n"), Kind: outbound.Malformed},
	{
		Name: "HTTP/2 without asking", Kind: outbound.Malformed,
		Serve: answerAndHold("\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\r\n"),
	},
	{Name: "ICY", Serve: answer("ICY 200 OK\r\n\r\n"), Kind: outbound.Malformed},
	{Name: "a status of letters", Serve: answer("HTTP/1.1 abc OK\r\n\r\n"), Kind: outbound.Malformed},
	{Name: "status 0", Serve: answer("HTTP/1.1 000 OK\r\n\r\n"), Kind: outbound.Malformed},
	{Name: "status 99", Serve: answer("HTTP/1.1 099 OK\r\n\r\n"), Kind: outbound.Malformed},
	{Name: "status 999", Serve: answer("HTTP/1.1 999 OK\r\n" + empty), Status: 999, Keeps: true},
	{Name: "a header without a colon", Serve: answer(ok + "hello\r\n\r\n"), Kind: outbound.Malformed},
	{Name: "a negative length", Serve: answer(ok + "Content-Length: -1\r\n\r\n"), Kind: outbound.Malformed},
	{Name: "two lengths", Serve: answer(ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"), Kind: outbound.Malformed},
	{Name: "an unknown transfer coding", Serve: answer(ok + "Transfer-Encoding: zip\r\n\r\nab"), Kind: outbound.Malformed},
	{
		Name: "101 and silence", Status: 101,
		Serve: answerAndHold("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
	},
	{Name: "101 without an upgrade", Serve: answerAndHold("HTTP/1.1 101 Switching Protocols\r\n\r\n"), Status: 101},
	{
		Name: "101 and then 200", Status: 101,
		Serve: answerAndHold("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n" + ok + empty),
	},
	{Name: "100 and then 200", Serve: answerAndHold("HTTP/1.1 100 Continue\r\n\r\n" + ok + empty), Status: 200, Keeps: true},
	{
		Name: "103 and then 204", Status: 204, Keeps: true,
		Serve: answerAndHold("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
	},
	{Name: "200 before the request", Serve: func(c net.Conn) { say(c, ok+empty); hold(c) }, Status: 200, Keeps: true},
	{
		Name: "413 without reading the request", Status: 413, Keeps: true,
		Serve: func(c net.Conn) { say(c, "HTTP/1.1 413 Too Large\r\n"+empty); untilClosed(c) },
	},
	{
		Name: "413 to a large request, without reading it", LargeRequest: true, Status: 413,
		Serve: func(c net.Conn) { say(c, "HTTP/1.1 413 Too Large\r\n"+empty); untilClosed(c) },
	},
	{
		Name: "413 to a large request, and closes", LargeRequest: true, Status: 413,
		Serve: func(c net.Conn) { say(c, "HTTP/1.1 413 Too Large\r\nConnection: close\r\n"+empty) },
	},
	{
		Name: "408 before the request, and closes", Status: 408,
		Serve: func(c net.Conn) { say(c, "HTTP/1.1 408 Timeout\r\nConnection: close\r\n"+empty) },
	},
	{Name: "a redirect to itself", Serve: answer("HTTP/1.1 302 Found\r\nLocation: /\r\n" + empty), Status: 302, Keeps: true},
	{Name: "a redirect to nowhere", Serve: answer("HTTP/1.1 307 Temporary Redirect\r\n" + empty), Status: 307, Keeps: true},
	{
		Name: "401 with a challenge", Status: 401, Keeps: true,
		Serve: answer("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\n" + empty),
	},
	{Name: "407 without being a proxy", Serve: answer("HTTP/1.1 407 Proxy Authentication Required\r\n" + empty), Status: 407, Keeps: true},
}

// bodies are wrong after a head that is not.
var bodies = []Peer{
	{Name: "200 and half of its body", Serve: answer(ok + "Content-Length: 10\r\n\r\nhello"), Status: 200, Kind: outbound.ClosedRead},
	{Name: "200 and no end", Serve: answerAndHold(ok + "Content-Length: 10\r\n\r\nhello"), Status: 200, Kind: outbound.TimeoutRead},
	{
		Name: "200 until the connection closes, and it does not", Status: 200, Kind: outbound.TimeoutRead,
		Serve: answerAndHold(ok + "\r\nhello"),
	},
	{Name: "HTTP/1.0", Serve: answer("HTTP/1.0 200 OK\r\n\r\nhello"), Status: 200},
	{Name: "200 and a dripping body", Serve: endless(ok+"\r\n", "x", drip), Status: 200, Kind: outbound.TimeoutRead},
	{Name: "200 and an endless body", Serve: endless(ok+"\r\n", strings.Repeat("x", 1000), 0), Status: 200},
	{
		Name: "200 and a length of 9 EB", Status: 200,
		Serve: endless(ok+"Content-Length: 9000000000000000000\r\n\r\n", strings.Repeat("x", 1000), 0),
	},
	{Name: "200 and half of a chunk", Serve: answer(chunked + "a\r\nhello"), Status: 200, Kind: outbound.ClosedRead},
	{Name: "200 and no chunk", Serve: answer(chunked + "hello\r\n"), Status: 200, Kind: outbound.MalformedBody},
	{Name: "200 and no last chunk", Serve: answerAndHold(chunked + "5\r\nhello\r\n"), Status: 200, Kind: outbound.TimeoutRead},
	{Name: "200 and an endless trailer", Serve: endless(trailed+"0\r\nX: ", "yyyyyyyy", 0), Status: 200, Kind: outbound.MalformedBody},
	{Name: "200 and dripping trailers", Serve: endless(trailed+"0\r\n", "X: y\r\n", drip), Status: 200, Kind: outbound.TimeoutRead},
	{Name: "200 and an endless chunk extension", Serve: endless(chunked+"5;x=", "yyyyyyyy", 0), Status: 200, Kind: outbound.MalformedBody},
	{Name: "200 and something after it", Serve: answerAndHold(ok + "Content-Length: 5\r\n\r\nhello" + ok + empty), Status: 200},
	{
		Name: "200 that claims to be compressed", Status: 200, Keeps: true,
		Serve: answerAndHold(ok + "Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"),
	},
	{Name: "204 with a body", Serve: answerAndHold("HTTP/1.1 204 No Content\r\n\r\n{\"ok\":true}"), Status: 204},
	{
		Name: "500 and half of its body", Status: 500, Kind: outbound.ClosedRead,
		Serve: answer("HTTP/1.1 500 Oops\r\nContent-Length: 10\r\n\r\nhello"),
	},
	{
		Name: "500 and no end", Status: 500, Kind: outbound.TimeoutRead,
		Serve: answerAndHold("HTTP/1.1 500 Oops\r\nContent-Length: 10\r\n\r\nhello"),
	},
	{
		Name: "503 and no chunk", Status: 503, Kind: outbound.MalformedBody,
		Serve: answer("HTTP/1.1 503 Oops\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
	},
	{Name: "resets after the body", Serve: func(c net.Conn) {
		request(c)
		say(c, ok+"Content-Length: 5\r\n\r\nhello")
		time.Sleep(drip)
		reset(c)
	}, plainOnly: true, Status: 200, Keeps: true},
}

// handshakes are wrong in TLS.
var handshakes = []Peer{
	{Name: "never shakes hands", Serve: hold, raw: true, tlsOnly: true, Kind: outbound.TimeoutTLS},
	{
		Name: "drips its handshake", raw: true, tlsOnly: true, Kind: outbound.TimeoutTLS,
		Serve: func(c net.Conn) { drips(c, "\x16\x03\x03\x40\x00\x02") },
	},
	{
		Name: "closes in the handshake", raw: true, tlsOnly: true, Kind: outbound.TLSClosed,
		Serve: func(c net.Conn) { _, _ = c.Read(make([]byte, 100)) },
	},
	{
		Name: "plain HTTP at a port of TLS", raw: true, tlsOnly: true, Kind: outbound.TLSPlain,
		Serve: func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)); say(c, "HTTP/1.1 400 Bad Request\r\n\r\n") },
	},
	{
		Name: "an expired certificate", tlsOnly: true, Kind: outbound.TLSExpired,
		Serve:  hold,
		config: leaf(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }),
	},
	{
		Name: "a certificate that is not valid yet", tlsOnly: true, Kind: outbound.TLSExpired,
		Serve:  hold,
		config: leaf(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }),
	},
	{
		Name: "another host's certificate", tlsOnly: true, Kind: outbound.TLSName,
		Serve:  hold,
		config: leaf(func(c *x509.Certificate) { c.IPAddresses = nil }),
	},
	{Name: "a certificate of a stranger", Serve: hold, tlsOnly: true, config: stranger, Kind: outbound.TLSAuthority},
	{
		Name: "HTTP/2 alone", raw: true, tlsOnly: true, Kind: outbound.TLSNoHTTP1,
		Serve: func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)); say(c, "\x15\x03\x03\x00\x02\x02\x78") },
	},
	{
		Name: "HTTP/2 alone, without refusing", tlsOnly: true, Kind: outbound.Malformed,
		Serve:  answerAndHold("\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\r\n"),
		config: func(c *tls.Config, _ *Authority) { c.NextProtos = []string{"h2"} },
	},
	{
		Name: "TLS 1.1", tlsOnly: true, Kind: outbound.TLSOther,
		Serve:  hold,
		config: func(c *tls.Config, _ *Authority) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 },
	},
	{
		Name: "wants a client's certificate", tlsOnly: true, Kind: outbound.TLSBroken,
		Serve:  hold,
		config: func(c *tls.Config, _ *Authority) { c.ClientAuth = tls.RequireAnyClientCert },
	},
	{Name: "wants a client's certificate in TLS 1.2", Serve: hold, tlsOnly: true, config: func(c *tls.Config, _ *Authority) {
		c.ClientAuth, c.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12
	}, Kind: outbound.TLSOther},
	{
		Name: "HTTP/2 beside HTTP/1.1", tlsOnly: true, Status: 200, Keeps: true,
		Serve:  answerAndHold(ok + empty),
		config: func(c *tls.Config, _ *Authority) { c.NextProtos = []string{"h2", "http/1.1"} },
	},
	{Name: "falls out of TLS", Serve: func(c net.Conn) { request(c); raw(c, ok+empty) }, tlsOnly: true, Kind: outbound.TLSBroken},
	{Name: "closes without TLS's farewell", Serve: closeBelow, tlsOnly: true, Status: 200, Kind: outbound.ClosedRead},
}

func leaf(change func(*x509.Certificate)) func(*tls.Config, *Authority) {
	return func(c *tls.Config, a *Authority) { c.Certificates = a.Config(change).Certificates }
}

func stranger(c *tls.Config, _ *Authority) {
	c.Certificates = NewAuthority().Config(func(*x509.Certificate) {}).Certificates
}

// refusing returns an address where nobody listens. It stays taken, so that nobody else comes to listen there.
func refusing(tb testing.TB) (string, io.Closer) {
	tb.Helper()
	addr, fd := bind(tb)
	return addr, &boundSocket{fd: fd}
}

// full returns an address whose queue of connections is full, so that the kernel answers no more of them.
func full(tb testing.TB) (string, io.Closer) {
	tb.Helper()
	addr, fd := bind(tb)
	if err := syscall.Listen(fd, 0); err != nil {
		tb.Fatal(err)
	}
	queue := &boundSocket{fd: fd}
	for range 8 {
		conn, err := net.DialTimeout("tcp", addr, 100*time.Millisecond)
		if err != nil {
			break
		}
		queue.waiting = append(queue.waiting, conn)
	}
	return addr, queue
}

// bind takes an address.
func bind(tb testing.TB) (addr string, fd int) {
	tb.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		tb.Fatal(err)
	}
	syscall.CloseOnExec(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		tb.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		tb.Fatal(err)
	}
	at := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: name.(*syscall.SockaddrInet4).Port} //nolint:forcetypeassert // it was bound as one
	return at.String(), fd
}

// boundSocket is a socket and the connections that wait for it.
type boundSocket struct {
	fd      int
	waiting []net.Conn
}

// Close closes all of them.
func (q *boundSocket) Close() error {
	for _, c := range q.waiting {
		_ = c.Close()
	}
	return syscall.Close(q.fd)
}

func drips(conn net.Conn, text string) {
	for _, b := range []byte(text + strings.Repeat("\x00", 1<<14)) {
		if !say(conn, string([]byte{b})) {
			return
		}
		time.Sleep(drip)
	}
}

// untilClosed waits until the server closes its own side, without reading.
func untilClosed(conn net.Conn) {
	for conn.SetDeadline(time.Time{}) == nil {
		time.Sleep(drip)
	}
}

// readNothing keeps the kernel from taking much of the request.
func readNothing(conn net.Conn) {
	_ = conn.(*net.TCPConn).SetReadBuffer(1) //nolint:forcetypeassert // of a test
	untilClosed(conn)
}

// closeBelow answers in part and closes the socket under TLS.
func closeBelow(conn net.Conn) {
	request(conn)
	say(conn, ok+"Content-Length: 9\r\n\r\nhello")
	_ = conn.(*tls.Conn).NetConn().Close() //nolint:forcetypeassert // of a test
}

// raw writes below TLS.
func raw(conn net.Conn, text string) { say(conn.(*tls.Conn).NetConn(), text) } //nolint:forcetypeassert // of a test

func reset(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0) } //nolint:forcetypeassert // of a test

func closeWrite(conn net.Conn) { _ = conn.(interface{ CloseWrite() error }).CloseWrite() } //nolint:forcetypeassert // of a test
