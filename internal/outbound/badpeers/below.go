package badpeers

import (
	"crypto/tls"
	"runtime"

	"github.com/memhook/memhook/internal/outbound"
)

// below are peers that misbehave before HTTP begins.
func below() []Peer {
	secure := []Peer{
		{Name: "silent in the TLS handshake", belowTLS: true, act: says(""), Kind: outbound.TimeoutTLS},
		{Name: "drips a TLS record", belowTLS: true, act: drips("\x16\x03\x03\x40\x00\x02", "\x00"), Kind: outbound.TimeoutTLS},
		{Name: "closes in the TLS handshake", belowTLS: true, act: peerConn.hangUp, Kind: outbound.TLSClosed},
		{Name: "resets in the TLS handshake", belowTLS: true, act: peerConn.reset, Kind: outbound.TLSClosed},
		{Name: "HTTP at a port for TLS", belowTLS: true, act: saysAndHangsUp("HTTP/1.1 400 Bad Request\r\n\r\n"), Kind: outbound.TLSPlain},
		{Name: "floods noise at a port for TLS", belowTLS: true, act: floods("", "noise"), Kind: outbound.TLSPlain},
		{Name: "a TLS alert", belowTLS: true, act: says("\x15\x03\x03\x00\x02\x02\x28"), Kind: outbound.TLSOther},
		{Name: "TLS 1.1", maxTLS: tls.VersionTLS11, act: says(""), Kind: outbound.TLSOther},
		{Name: "no HTTP/1.1 by ALPN", noHTTP1: true, act: says(""), Kind: outbound.TLSNoHTTP1},
		{Name: "an expired certificate", certificate: expiredCertificate, act: says(""), Kind: outbound.TLSExpired},
		{Name: "another host's certificate", certificate: wrongNameCertificate, act: says(""), Kind: outbound.TLSName},
		{Name: "a certificate of nobody's", certificate: strangerCertificate, act: says(""), Kind: outbound.TLSAuthority},
		{Name: "noise instead of a TLS record", act: func(c peerConn) { _, _ = c.socket.Write([]byte("HTTP/1.1 200 OK\r\n\r\n")) }, Kind: outbound.Malformed},
	}
	for i := range secure {
		secure[i].Over = []Transport{TLS}
	}
	if runtime.GOOS != "linux" {
		return secure
	}
	return append(secure, Peer{Name: "accepts nothing", Over: []Transport{Plain, TLS}, deaf: true, Kind: outbound.TimeoutConnect})
}
