package badpeers

import (
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/memhook/memhook/internal/outbound"
)

// Peer is one misbehaving server and what an exchange with it comes to.
type Peer struct {
	Name string
	Over []Transport

	// Status is what the answer says; 0 if there is no answer, and Kind is why.
	Status int
	Kind   outbound.Kind

	act         func(peerConn) // once a part of the request was read
	unread      bool           // the request is not read
	belowTLS    bool           // act takes the place of TLS
	noHTTP1     bool           // ALPN fails
	maxTLS      uint16
	certificate certificateKind
	deaf        bool // nothing is accepted
}

// Secure reports whether the peer is about TLS alone.
func (p Peer) Secure() bool { return !slices.Contains(p.Over, Plain) }

// Unread reports whether the peer leaves the request unread.
func (p Peer) Unread() bool { return p.unread }

// peerConn is a connection at the peer's end.
type peerConn struct {
	net.Conn
	socket net.Conn // below TLS
}

func (c peerConn) say(s string) bool {
	_, err := io.WriteString(c.Conn, s)
	return err == nil
}

// hangUp closes the socket in an orderly way.
func (c peerConn) hangUp() { _ = c.socket.Close() }

// reset closes the socket with an RST.
func (c peerConn) reset() {
	_ = c.socket.(*net.TCPConn).SetLinger(0)
	_ = c.socket.Close()
}

// says writes and leaves the connection open.
func says(s string) func(peerConn) { return func(c peerConn) { c.say(s) } }

// saysAndHangsUp writes and closes.
func saysAndHangsUp(s string) func(peerConn) {
	return func(c peerConn) { c.say(s); c.hangUp() }
}

// drips writes start, and then more every 30 ms until the client has gone.
func drips(start, more string) func(peerConn) {
	return func(c peerConn) {
		for ok := c.say(start); ok; ok = c.say(more) {
			time.Sleep(30 * time.Millisecond)
		}
	}
}

// floods writes start, and then more as fast as it goes until the client has gone.
func floods(start, more string) func(peerConn) {
	much := strings.Repeat(more, 1+4<<10/len(more))
	return func(c peerConn) {
		for ok := c.say(start); ok; ok = c.say(much) {
			continue
		}
	}
}

const (
	ok       = "HTTP/1.1 200 OK\r\n"
	empty    = ok + "Content-Length: 0\r\n\r\n"
	chunked  = ok + "Transfer-Encoding: chunked\r\n\r\n"
	switches = "HTTP/1.1 101 Switching Protocols\r\n"
	upgrade  = switches + "Connection: Upgrade\r\nUpgrade: x\r\n\r\n"
	early    = "HTTP/1.1 103 Early Hints\r\n\r\n"
	settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00" // HTTP/2's first frame
)

// Peers returns all peers.
func Peers() []Peer {
	all := slices.Concat(silent(), heads(), interim(), bodies(), closing(), requests())
	for i := range all {
		all[i].Over = []Transport{Plain, TLS, ALPN}
	}
	return append(all, below()...)
}

func silent() []Peer {
	return []Peer{
		{Name: "says nothing", act: says(""), Kind: outbound.TimeoutAnswer},
		{Name: "half a status line", act: says("HTTP/1."), Kind: outbound.TimeoutAnswer},
		{Name: "half a head", act: says(ok + "X-A: b\r\n"), Kind: outbound.TimeoutAnswer},
		{Name: "drips a status line", act: drips("", "H"), Kind: outbound.TimeoutAnswer},
		{Name: "drips headers", act: drips(ok, "X-A: b\r\n"), Kind: outbound.TimeoutAnswer},
		{Name: "drips one header", act: drips(ok+"X-A: ", "b"), Kind: outbound.TimeoutAnswer},
	}
}

func heads() []Peer {
	return []Peer{
		{Name: "floods headers", act: floods(ok, "X-A: b\r\n"), Kind: outbound.HeaderTooLarge},
		{Name: "floods one header", act: floods(ok+"X-A: ", "b"), Kind: outbound.HeaderTooLarge},
		{Name: "floods a status line", act: floods(ok[:len(ok)-2], "b"), Kind: outbound.HeaderTooLarge},
		{Name: "another protocol", act: says("SSH-2.0-x\r\n"), Kind: outbound.Malformed},
		{Name: "HTTP/0.9", act: saysAndHangsUp("<html>hello</html>\r\n"), Kind: outbound.Malformed},
		{Name: "HTTP/2 without being asked", act: says(settings + "\r\n"), Kind: outbound.Malformed},
		{Name: "status 099", act: says("HTTP/1.1 099 x\r\nContent-Length: 0\r\n\r\n"), Kind: outbound.Malformed},
		{Name: "a status of letters", act: says("HTTP/1.1 two OK\r\n\r\n"), Kind: outbound.Malformed},
		{Name: "status -200", act: says("HTTP/1.1 -200 OK\r\n\r\n"), Kind: outbound.Malformed},
		{Name: "status 999", act: says("HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n"), Status: 999},
		{Name: "a NUL in a header's name", act: says(ok + "X\x00A: b\r\n\r\n"), Kind: outbound.Malformed},
		{Name: "a negative length", act: says(ok + "Content-Length: -1\r\n\r\n"), Kind: outbound.Malformed},
		{Name: "two lengths", act: says(ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}"), Kind: outbound.Malformed},
		{Name: "a coding that nobody knows", act: says(ok + "Transfer-Encoding: x\r\n\r\n{}"), Kind: outbound.Malformed},
		{Name: "407 without a proxy", act: says("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"), Status: 407},
		{Name: "a redirect to itself", act: says("HTTP/1.1 307 Temporary Redirect\r\nLocation: /hook\r\nContent-Length: 0\r\n\r\n"), Status: 307},
	}
}

func interim() []Peer {
	return []Peer{
		{Name: "101 and silence", act: says(upgrade), Status: 101},
		{Name: "101 and a flood", act: floods(upgrade, "x"), Status: 101},
		{Name: "101 without an upgrade", act: says(switches + "\r\n"), Status: 101},
		{Name: "101 and a 200 behind it", act: says(upgrade + empty), Status: 101},
		{Name: "100, then 101", act: says("HTTP/1.1 100 Continue\r\n\r\n" + upgrade), Status: 101},
		{Name: "100 and silence", act: says("HTTP/1.1 100 Continue\r\n\r\n"), Kind: outbound.TimeoutAnswer},
		{Name: "floods 100", act: floods("", "HTTP/1.1 100 Continue\r\n\r\n"), Kind: outbound.HeaderTooLarge},
		{Name: "drips 103", act: drips("", early), Kind: outbound.TimeoutAnswer},
		{Name: "several 1xx, then 200", act: says(early + "HTTP/1.1 102 Processing\r\n\r\n" + "HTTP/1.1 199 x\r\n\r\n" + empty), Status: 200},
	}
}

func bodies() []Peer {
	return []Peer{
		{Name: "a body that does not come", act: says(ok + "Content-Length: 10\r\n\r\n"), Status: 200},
		{Name: "a body that stays open", act: says(ok + "\r\n{}"), Status: 200},
		{Name: "a body that breaks off", act: saysAndHangsUp(ok + "Content-Length: 10\r\n\r\n{}"), Status: 200},
		{Name: "a body that is reset", act: func(c peerConn) { c.say(chunked + "2\r\n{}\r\n"); c.reset() }, Status: 200},
		{Name: "drips a body", act: drips(ok+"Content-Length: 1000000\r\n\r\n", "x"), Status: 200},
		{Name: "floods a body", act: floods(ok+"\r\n", "x"), Status: 200},
		{Name: "drips chunks", act: drips(chunked, "1\r\nx\r\n"), Status: 200},
		{Name: "floods chunks", act: floods(chunked, "1\r\nx\r\n"), Status: 200},
		{Name: "a broken chunk", act: says(chunked + "zz\r\n"), Status: 200},
		{Name: "a chunk's endless extension", act: floods(chunked+"1;a=", "b"), Status: 200},
		{Name: "drips trailers", act: drips(chunked+"0\r\n", "X: b\r\n"), Status: 200},
		{Name: "floods trailers", act: floods(chunked+"0\r\n", "X: b\r\n"), Status: 200},
		{Name: "204 with a body", act: says("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}"), Status: 204},
		{Name: "304 with a flood", act: floods("HTTP/1.1 304 Not Modified\r\n\r\n", "x"), Status: 304},
		{Name: "bytes behind the answer", act: says(empty + "more"), Status: 200},
		{Name: "two answers", act: says(empty + "HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n"), Status: 200},
		{Name: "no gzip where it says so", act: says(ok + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"), Status: 200},
		{Name: "500 whose body never ends", act: drips("HTTP/1.1 500 x\r\n\r\n", "x"), Status: 500},
		{Name: "HTTP/1.0 until the end", act: saysAndHangsUp("HTTP/1.0 200 OK\r\n\r\n{}"), Status: 200},
	}
}

func closing() []Peer {
	return []Peer{
		{Name: "closes after the request", act: peerConn.hangUp, Kind: outbound.Closed},
		{Name: "resets after the request", act: peerConn.reset, Kind: outbound.Closed},
		{Name: "closes its side only", act: func(c peerConn) { _ = c.socket.(*net.TCPConn).CloseWrite() }, Kind: outbound.Closed},
		{Name: "breaks off in the status line", act: saysAndHangsUp("HTTP/1.1 2"), Kind: outbound.ClosedRead},
		{Name: "breaks off in the headers", act: saysAndHangsUp(ok + "X-A"), Kind: outbound.ClosedRead},
		{Name: "closes behind the answer", act: func(c peerConn) { c.say(empty); _ = c.Close() }, Status: 200},
		{Name: "breaks off after a 1xx", act: saysAndHangsUp(early), Kind: outbound.ClosedRead},
	}
}

// requests are peers that read no request, or only the beginning of one.
func requests() []Peer {
	return []Peer{
		{Name: "never reads", unread: true, act: says(""), Kind: outbound.TimeoutAnswer},
		{Name: "never reads, answers", unread: true, act: says(empty), Status: 200},
		{Name: "never reads, switches", unread: true, act: says(upgrade), Status: 101},
		{Name: "never reads, drips", unread: true, act: drips(ok, "X-A: b\r\n"), Kind: outbound.TimeoutAnswer},
		{Name: "never reads, resets", unread: true, act: peerConn.reset, Kind: outbound.Closed},
		{Name: "reads a little, answers 413 and closes", act: saysAndHangsUp("HTTP/1.1 413 x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), Status: 413},
	}
}
