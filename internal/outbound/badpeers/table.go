package badpeers

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/memhook/memhook/internal/outbound"
)

// drip is the pause between the bytes of those that are slow on purpose.
const drip = 30 * time.Millisecond

// Table returns every peer.
func Table() []Peer {
	return append(append(append(append([]Peer(nil), silent...), heads...), bodies...), handshakes...)
}

// silent peers do not begin an answer.
var silent = []Peer{
	{Name: "refuses connections", listen: refusing, plainOnly: true, Kind: outbound.Refused},
	{Name: "never accepts", listen: full, plainOnly: true, Kind: outbound.TimeoutConnect},
	{Name: "reads nothing and says nothing", Serve: func(c net.Conn) { c.(interface{ SetReadBuffer(int) error }).SetReadBuffer(1); untilClosed(c) }, plainOnly: true, LargeRequest: true, Kind: outbound.TimeoutAnswer}, //nolint:errcheck,forcetypeassert // of a test
	{Name: "reads the request and says nothing", Serve: hold, Kind: outbound.TimeoutAnswer},
	{Name: "reads nothing and resets", Serve: func(c net.Conn) { reset(c) }, plainOnly: true, LargeRequest: true, Kind: outbound.Closed},
	{Name: "reads nothing and drips headers", Serve: func(c net.Conn) { flow(c, "HTTP/1.1 200 OK\r\n", "X: y\r\n", drip) }, plainOnly: true, LargeRequest: true, Kind: outbound.TimeoutAnswer},
	{Name: "closes at once", Serve: func(net.Conn) {}, Kind: outbound.Closed},
	{Name: "closes after the request", Serve: request, Kind: outbound.Closed},
	{Name: "resets after the request", Serve: func(c net.Conn) { request(c); reset(c) }, plainOnly: true, Kind: outbound.Closed},
	{Name: "closes its half after the request", Serve: func(c net.Conn) { request(c); closeWrite(c); hold(c) }, Kind: outbound.Closed},
	{Name: "closes in the status line", Serve: answer("HTTP/1.1 2"), Kind: outbound.ClosedRead},
	{Name: "closes in the head", Serve: answer("HTTP/1.1 200 OK\r\nContent-Le"), Kind: outbound.ClosedRead},
	{Name: "drips its status line", Serve: endless("HTTP/1.1 200 ", "O", drip), Kind: outbound.TimeoutAnswer},
	{Name: "drips headers", Serve: endless("HTTP/1.1 200 OK\r\n", "X: y\r\n", drip), Kind: outbound.TimeoutAnswer},
	{Name: "stops in the head", Serve: answerAndHold("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"), Kind: outbound.TimeoutAnswer},
	{Name: "says 100 and stops", Serve: answerAndHold("HTTP/1.1 100 Continue\r\n\r\n"), Kind: outbound.TimeoutAnswer},
	{Name: "drips 102", Serve: endless("", "HTTP/1.1 102 Processing\r\n\r\n", drip), Kind: outbound.TimeoutAnswer},
}

// heads are wrong or unusual in their head.
var heads = []Peer{
	{Name: "endless 100", Serve: endless("", "HTTP/1.1 100 Continue\r\n\r\n", 0), Kind: outbound.HeaderTooLarge},
	{Name: "endless headers", Serve: endless("HTTP/1.1 200 OK\r\n", "X: y\r\n", 0), Kind: outbound.HeaderTooLarge},
	{Name: "endless longer headers", Serve: endless("HTTP/1.1 200 OK\r\n", "X-A: y\r\n", 0), Kind: outbound.HeaderTooLarge},
	{Name: "an endless header", Serve: endless("HTTP/1.1 200 OK\r\nX: ", "yyyyyyyy", 0), Kind: outbound.HeaderTooLarge},
	{Name: "an endless status line", Serve: endless("HTTP/1.1 200 ", "OKOKOKOK", 0), Kind: outbound.HeaderTooLarge},
	{Name: "a page without a head", Serve: answer("<html>hello</html>\r\n\r\n"), Kind: outbound.Malformed},
	{Name: "SSH", Serve: answer("SSH-2.0-OpenSSH_9.2\r\n"), Kind: outbound.Malformed},
	{Name: "HTTP/2 without asking", Serve: answerAndHold("\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\r\n"), Kind: outbound.Malformed},
	{Name: "ICY", Serve: answer("ICY 200 OK\r\n\r\n"), Kind: outbound.Malformed},
	{Name: "a status of letters", Serve: answer("HTTP/1.1 abc OK\r\n\r\n"), Kind: outbound.Malformed},
	{Name: "status 0", Serve: answer("HTTP/1.1 000 OK\r\n\r\n"), Kind: outbound.Malformed},
	{Name: "status -200", Serve: answer("HTTP/1.1 -200 OK\r\n\r\n"), Kind: outbound.Malformed},
	{Name: "a NUL in a header's name", Serve: answer("HTTP/1.1 200 OK\r\nX\x00A: b\r\n\r\n"), Kind: outbound.Malformed},
	{Name: "status 99", Serve: answer("HTTP/1.1 099 OK\r\n\r\n"), Kind: outbound.Malformed},
	{Name: "status 999", Serve: answer("HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n"), Status: 999, Keeps: true},
	{Name: "a header without a colon", Serve: answer("HTTP/1.1 200 OK\r\nhello\r\n\r\n"), Kind: outbound.Malformed},
	{Name: "a negative length", Serve: answer("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), Kind: outbound.Malformed},
	{Name: "two lengths", Serve: answer("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), Kind: outbound.Malformed},
	{Name: "an unknown transfer coding", Serve: answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: zip\r\n\r\nab"), Kind: outbound.Malformed},
	{Name: "101 and silence", Serve: answerAndHold("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), Status: 101},
	{Name: "101 and a flood", Serve: endless("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", strings.Repeat("x", 1000), 0), Status: 101},
	{Name: "101 after 100", Serve: answerAndHold("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"), Status: 101},
	{Name: "101 without reading the request", Serve: func(c net.Conn) {
		say(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		untilClosed(c)
	}, LargeRequest: true, Status: 101},
	{Name: "101 without an upgrade", Serve: answerAndHold("HTTP/1.1 101 Switching Protocols\r\n\r\n"), Status: 101},
	{Name: "101 and then 200", Serve: answerAndHold("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Status: 101},
	{Name: "100 and then 200", Serve: answerAndHold("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Status: 200, Keeps: true},
	{Name: "103 and then 204", Serve: answerAndHold("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"), Status: 204, Keeps: true},
	{Name: "200 before the request", Serve: func(c net.Conn) { say(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); hold(c) }, Status: 200, Keeps: true},
	{Name: "413 without reading the request", Serve: func(c net.Conn) { say(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"); untilClosed(c) }, Status: 413, Keeps: true},
	{Name: "413 to a large request, without reading it", Serve: func(c net.Conn) { say(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"); untilClosed(c) }, LargeRequest: true, Status: 413},
	{Name: "413 to a large request, and closes", Serve: func(c net.Conn) { say(c, "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n") }, LargeRequest: true, Status: 413},
	{Name: "408 before the request, and closes", Serve: func(c net.Conn) { say(c, "HTTP/1.1 408 Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n") }, Status: 408},
	{Name: "a redirect to itself", Serve: answer("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"), Status: 302, Keeps: true},
	{Name: "a redirect to nowhere", Serve: answer("HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\n\r\n"), Status: 307, Keeps: true},
	{Name: "401 with a challenge", Serve: answer("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\nContent-Length: 0\r\n\r\n"), Status: 401, Keeps: true},
	{Name: "407 without being a proxy", Serve: answer("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"), Status: 407, Keeps: true},
}

// bodies are wrong after a head that is not.
var bodies = []Peer{
	{Name: "200 and half of its body", Serve: answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"), Status: 200, Kind: outbound.ClosedRead},
	{Name: "200 and no end", Serve: answerAndHold("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"), Status: 200, Kind: outbound.TimeoutRead},
	{Name: "200 until the connection closes, and it does not", Serve: answerAndHold("HTTP/1.1 200 OK\r\n\r\nhello"), Status: 200, Kind: outbound.TimeoutRead},
	{Name: "HTTP/1.0", Serve: answer("HTTP/1.0 200 OK\r\n\r\nhello"), Status: 200},
	{Name: "200 and a dripping body", Serve: endless("HTTP/1.1 200 OK\r\n\r\n", "x", drip), Status: 200, Kind: outbound.TimeoutRead},
	{Name: "200 and an endless body", Serve: endless("HTTP/1.1 200 OK\r\n\r\n", strings.Repeat("x", 1000), 0), Status: 200},
	{Name: "200 and a length of 9 EB", Serve: endless("HTTP/1.1 200 OK\r\nContent-Length: 9000000000000000000\r\n\r\n", strings.Repeat("x", 1000), 0), Status: 200},
	{Name: "200 and half of a chunk", Serve: answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhello"), Status: 200, Kind: outbound.ClosedRead},
	{Name: "200 and no chunk", Serve: answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n"), Status: 200, Kind: outbound.MalformedBody},
	{Name: "200 and no last chunk", Serve: answerAndHold("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), Status: 200, Kind: outbound.TimeoutRead},
	{Name: "200 and an endless trailer", Serve: endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\nX: ", "yyyyyyyy", 0), Status: 200, Kind: outbound.MalformedBody},
	{Name: "200 and dripping trailers", Serve: endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\n", "X: y\r\n", drip), Status: 200, Kind: outbound.TimeoutRead},
	{Name: "200 and an endless chunk extension", Serve: endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=", "yyyyyyyy", 0), Status: 200, Kind: outbound.MalformedBody},
	{Name: "200 and something after it", Serve: answerAndHold("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Status: 200},
	{Name: "200 that claims to be compressed", Serve: answerAndHold("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"), Status: 200, Keeps: true},
	{Name: "204 with a length", Serve: answerAndHold("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}"), Status: 204},
	{Name: "304 and a flood", Serve: endless("HTTP/1.1 304 Not Modified\r\n\r\nx", strings.Repeat("x", 1000), 0), Status: 304},
	{Name: "200 and dripping chunks", Serve: endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", drip), Status: 200, Kind: outbound.TimeoutRead},
	{Name: "200 and endless chunks", Serve: endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", strings.Repeat("1\r\nx\r\n", 200), 0), Status: 200},
	{Name: "204 with a body", Serve: answerAndHold("HTTP/1.1 204 No Content\r\n\r\n{\"ok\":true}"), Status: 204},
	{Name: "500 and half of its body", Serve: answer("HTTP/1.1 500 Oops\r\nContent-Length: 10\r\n\r\nhello"), Status: 500, Kind: outbound.ClosedRead},
	{Name: "500 and no end", Serve: answerAndHold("HTTP/1.1 500 Oops\r\nContent-Length: 10\r\n\r\nhello"), Status: 500, Kind: outbound.TimeoutRead},
	{Name: "503 and no chunk", Serve: answer("HTTP/1.1 503 Oops\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), Status: 503, Kind: outbound.MalformedBody},
	{Name: "resets after the body", Serve: func(c net.Conn) {
		request(c)
		say(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
		time.Sleep(drip)
		reset(c)
	}, plainOnly: true, Status: 200, Keeps: true},
}

// handshakes are wrong in TLS.
var handshakes = []Peer{
	{Name: "never shakes hands", Serve: hold, raw: true, tlsOnly: true, Kind: outbound.TimeoutTLS},
	{Name: "drips its handshake", Serve: func(c net.Conn) { drips(c, "\x16\x03\x03\x40\x00\x02") }, raw: true, tlsOnly: true, Kind: outbound.TimeoutTLS},
	{Name: "closes in the handshake", Serve: func(c net.Conn) { _, _ = c.Read(make([]byte, 100)) }, raw: true, tlsOnly: true, Kind: outbound.TLSClosed},
	{Name: "resets in the handshake", Serve: func(c net.Conn) { _, _ = c.Read(make([]byte, 100)); reset(c) }, raw: true, tlsOnly: true, Kind: outbound.TLSClosed},
	{Name: "an alert in the handshake", Serve: func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)); say(c, "\x15\x03\x03\x00\x02\x02\x28"); hold(c) }, raw: true, tlsOnly: true, Kind: outbound.TLSOther},
	{Name: "plain HTTP at a port of TLS", Serve: func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)); say(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }, raw: true, tlsOnly: true, Kind: outbound.TLSPlain},
	{Name: "an expired certificate", Serve: hold, tlsOnly: true, config: leaf(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), Kind: outbound.TLSExpired},
	{Name: "a certificate that is not valid yet", Serve: hold, tlsOnly: true, config: leaf(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), Kind: outbound.TLSExpired},
	{Name: "another host's certificate", Serve: hold, tlsOnly: true, config: leaf(func(c *x509.Certificate) { c.IPAddresses = nil }), Kind: outbound.TLSName},
	{Name: "a certificate of a stranger", Serve: hold, tlsOnly: true, config: stranger, Kind: outbound.TLSAuthority},
	{Name: "HTTP/2 alone", Serve: func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)); say(c, "\x15\x03\x03\x00\x02\x02\x78") }, raw: true, tlsOnly: true, Kind: outbound.TLSNoHTTP1},
	{Name: "HTTP/2 alone, without refusing", Serve: answerAndHold("\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\r\n"), tlsOnly: true, config: func(c *tls.Config, _ *Authority) { c.NextProtos = []string{"h2"} }, Kind: outbound.Malformed},
	{Name: "TLS 1.1", Serve: hold, tlsOnly: true, config: func(c *tls.Config, _ *Authority) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, Kind: outbound.TLSOther},
	{Name: "wants a client's certificate", Serve: hold, tlsOnly: true, config: func(c *tls.Config, _ *Authority) { c.ClientAuth = tls.RequireAnyClientCert }, Kind: outbound.TLSBroken},
	{Name: "wants a client's certificate in TLS 1.2", Serve: hold, tlsOnly: true, config: func(c *tls.Config, _ *Authority) {
		c.ClientAuth, c.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12
	}, Kind: outbound.TLSOther},
	{Name: "HTTP/2 beside HTTP/1.1", Serve: answerAndHold("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), tlsOnly: true, config: func(c *tls.Config, _ *Authority) { c.NextProtos = []string{"h2", "http/1.1"} }, Status: 200, Keeps: true},
	{Name: "falls out of TLS", Serve: func(c net.Conn) { request(c); raw(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") }, tlsOnly: true, Kind: outbound.TLSBroken},
	{Name: "closes without TLS's farewell", Serve: func(c net.Conn) {
		request(c)
		say(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
		_ = c.(*tls.Conn).NetConn().Close()
	}, tlsOnly: true, Status: 200, Kind: outbound.ClosedRead}, //nolint:forcetypeassert // of a test
}

func leaf(change func(*x509.Certificate)) func(*tls.Config, *Authority) {
	return func(c *tls.Config, a *Authority) { c.Certificates = a.Config(change).Certificates }
}

func stranger(c *tls.Config, _ *Authority) {
	c.Certificates = NewAuthority().Config(func(*x509.Certificate) {}).Certificates
}

// refusing returns an address where nobody listens.
func refusing(t testing.TB) (string, io.Closer) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return l.Addr().String(), nil
}

// full returns an address whose queue of connections is full, so that the kernel answers no more of them.
func full(t testing.TB) (string, io.Closer) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	queue := fullQueue{fd: fd}
	if err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err == nil {
		err = syscall.Listen(fd, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: name.(*syscall.SockaddrInet4).Port} //nolint:forcetypeassert // it was bound as one
	for range 8 {
		conn, err := net.DialTimeout("tcp", addr.String(), 100*time.Millisecond)
		if err != nil {
			break
		}
		queue.waiting = append(queue.waiting, conn)
	}
	return addr.String(), &queue
}

type fullQueue struct {
	fd      int
	waiting []net.Conn
}

// Close lets go of the queue.
func (q *fullQueue) Close() error {
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

// raw writes below TLS.
func raw(conn net.Conn, text string) { say(conn.(*tls.Conn).NetConn(), text) } //nolint:forcetypeassert // of a test

func reset(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0) } //nolint:forcetypeassert // of a test

func closeWrite(conn net.Conn) { _ = conn.(interface{ CloseWrite() error }).CloseWrite() } //nolint:forcetypeassert // of a test
