package badpeers

import (
	"net"
	"strings"

	"github.com/memhook/memhook/internal/outbound"
)

const (
	switching  = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
	continuing = "HTTP/1.1 100 Continue\r\n\r\n"
)

var flood = strings.Repeat("x", 1000)

// variants do what others of the table do at another place of the exchange.
var variants = []Peer{
	{
		Name: "reads nothing and resets", plainOnly: true, LargeRequest: true, Kind: outbound.Closed,
		Serve: func(c net.Conn) { reset(c) },
	},
	{
		Name: "reads nothing and drips headers", plainOnly: true, LargeRequest: true, Kind: outbound.TimeoutAnswer,
		Serve: func(c net.Conn) { flow(c, ok, "X: y\r\n", drip) },
	},
	{
		Name: "101 without reading the request", LargeRequest: true, Status: 101,
		Serve: func(c net.Conn) { say(c, switching); untilClosed(c) },
	},
	{Name: "endless headers of another length", Serve: endless(ok, "X-A: y\r\n", 0), Kind: outbound.HeaderTooLarge},
	{Name: "status -200", Serve: answer("HTTP/1.1 -200 OK\r\n\r\n"), Kind: outbound.Malformed},
	{Name: "a NUL in a header's name", Serve: answer(ok + "X\x00A: b\r\n\r\n"), Kind: outbound.Malformed},
	{Name: "101 and a flood", Serve: endless(switching, flood, 0), Status: 101},
	{Name: "101 after 100", Serve: answerAndHold(continuing + switching), Status: 101},
	{Name: "204 with a length", Serve: answerAndHold("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}"), Status: 204},
	{Name: "304 and a flood", Serve: endless("HTTP/1.1 304 Not Modified\r\n\r\nx", flood, 0), Status: 304},
	{Name: "200 and dripping chunks", Serve: endless(chunked, "1\r\nx\r\n", drip), Status: 200, Kind: outbound.TimeoutRead},
	{Name: "200 and endless chunks", Serve: endless(chunked, strings.Repeat("1\r\nx\r\n", 200), 0), Status: 200},
	{
		Name: "resets in the handshake", raw: true, tlsOnly: true, Kind: outbound.TLSClosed,
		Serve: func(c net.Conn) { _, _ = c.Read(make([]byte, 100)); reset(c) },
	},
	{
		Name: "an alert in the handshake", raw: true, tlsOnly: true, Kind: outbound.TLSOther,
		Serve: func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)); say(c, "\x15\x03\x03\x00\x02\x02\x28"); hold(c) },
	},
}
