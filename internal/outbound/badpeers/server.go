// Package badpeers is servers on raw sockets that misbehave, for tests of what memhook sends to them and asks of them.
// Whatever such a server does, an exchange with it must end in time and leave nothing behind.
package badpeers

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Transport is how a peer is reached.
type Transport string

// The transports.
const (
	Plain Transport = "plain"
	TLS   Transport = "tls"  // TLS without ALPN
	ALPN  Transport = "alpn" // TLS that prefers h2 and offers http/1.1
)

// Unread is for how long a peer that reads nothing reads nothing. Exchanges with it must have a shorter time-out.
const Unread = 3 * time.Second

// Server runs one peer.
type Server struct {
	URL   string
	Roots *x509.CertPool // trusts all peers' certificates but the strangers'

	deaf     bool
	listener net.Listener
	accepted atomic.Int64
	open     atomic.Int64
	conns    sync.Map
	running  sync.WaitGroup
	closed   chan struct{}
}

// Start runs the peer until the test ends.
func (p Peer) Start(tb testing.TB, over Transport) *Server {
	tb.Helper()
	s, err := p.Serve(over)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// Serve runs the peer until Close.
func (p Peer) Serve(over Transport) (*Server, error) {
	listener, err := p.listen()
	if err != nil {
		return nil, fmt.Errorf("listen as %q: %w", p.Name, err)
	}
	scheme := "http"
	if over != Plain {
		scheme = "https"
	}
	s := &Server{URL: scheme + "://" + listener.Addr().String() + "/hook", Roots: authority.pool, deaf: p.deaf, listener: listener, closed: make(chan struct{})}
	if p.deaf {
		return s, nil
	}
	s.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.accepted.Add(1)
			s.open.Add(1)
			s.conns.Store(conn, nil)
			s.running.Go(func() { s.serve(p, over, conn) })
		}
	})
	return s, nil
}

func (p Peer) listen() (net.Listener, error) {
	if p.deaf {
		return listenDeaf()
	}
	return net.Listen("tcp", "127.0.0.1:0")
}

// serve lets the peer act on a connection, and then waits until the client has gone by itself.
func (s *Server) serve(p Peer, over Transport, conn net.Conn) {
	defer func() {
		_ = conn.Close()
		s.conns.Delete(conn)
		s.open.Add(-1)
	}()
	way := conn
	if over != Plain && !p.belowTLS {
		cfg := &tls.Config{Certificates: []tls.Certificate{authority.certificate(p.certificate)}, MinVersion: tls.VersionTLS10, MaxVersion: p.maxTLS}
		switch {
		case p.noHTTP1:
			cfg.NextProtos = []string{"spdy/3"} // crypto/tls lets clients of HTTP/1.1 in where a server says h2 alone
		case over == ALPN:
			cfg.NextProtos = []string{"h2", "http/1.1"}
		}
		secure := tls.Server(conn, cfg)
		if secure.Handshake() != nil {
			return
		}
		way = secure
	}
	if !p.unread {
		if _, err := way.Read(make([]byte, 64<<10)); err != nil {
			return
		}
	}
	p.act(peerConn{Conn: way, socket: conn})
	if p.unread {
		select {
		case <-s.closed:
			return
		case <-time.After(Unread):
		}
	}
	for buffer := make([]byte, 4<<10); ; {
		if _, err := conn.Read(buffer); err != nil {
			return
		}
	}
}

// Deaf reports whether the peer accepts no connections.
func (s *Server) Deaf() bool { return s.deaf }

// Accepted returns how many connections have been made.
func (s *Server) Accepted() int { return int(s.accepted.Load()) }

// Abandoned reports whether, within a time, the client closes all its connections by itself.
func (s *Server) Abandoned(within time.Duration) bool {
	for end := time.Now().Add(within); s.open.Load() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// Close ends the peer and all its connections.
func (s *Server) Close() {
	_ = s.listener.Close()
	close(s.closed)
	s.conns.Range(func(conn, _ any) bool {
		_ = conn.(net.Conn).Close()
		return true
	})
	s.running.Wait()
}
