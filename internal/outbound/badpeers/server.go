// Package badpeers is a table of misbehaving HTTP servers, on raw sockets, for tests of whatever talks to strangers.
package badpeers

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/memhook/memhook/internal/outbound"
)

// Peer is one way to misbehave.
type Peer struct {
	Name string
	// Serve speaks on each connection that was accepted, which is closed when it returns. With TLS it is the plain side
	// of it. Nil means that nobody accepts.
	Serve func(conn net.Conn)
	// Status is what a client must see; 0 for no answer.
	Status int
	// Kind is why there is no answer, or why its body ended early; "" for neither.
	Kind outbound.Kind
	// Keeps means that the connection can be used again.
	Keeps bool
	// LargeRequest means that the request must be larger than what the kernel takes from a peer that reads nothing: 8 MB.
	LargeRequest bool

	plainOnly bool
	tlsOnly   bool
	raw       bool                                 // Serve speaks below TLS
	config    func(*tls.Config, *Authority)        // changes the server's TLS
	listen    func(testing.TB) (string, io.Closer) // instead of a listener that accepts
}

// Server is a running peer.
type Server struct {
	URL  string
	Peer Peer

	tls     *tls.Config // nil for none
	closers []io.Closer
	mu      sync.Mutex
	conns   map[net.Conn]bool
	ended   sync.WaitGroup
	opened  atomic.Int64
}

// Open returns how many sockets the server holds, its listener included.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns) + len(s.closers)
}

// Accepted returns how many connections were made to the server.
func (s *Server) Accepted() int { return int(s.opened.Load()) }

// Close ends the server and waits for it.
func (s *Server) Close() {
	s.mu.Lock()
	for _, c := range s.closers {
		_ = c.Close()
	}
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.ended.Wait()
}

// StartAll starts every peer of the table, over plain TCP and over TLS as it applies, until the test ends. A client that
// trusts the authority reaches those over TLS.
func StartAll(t testing.TB, authority *Authority) []*Server {
	t.Helper()
	var out []*Server
	for _, p := range Table() {
		if !p.tlsOnly {
			out = append(out, Start(t, p, nil))
		}
		if !p.plainOnly {
			out = append(out, Start(t, p, authority))
		}
	}
	return out
}

// Start starts one peer until the test ends, over TLS if an authority is given.
func Start(t testing.TB, p Peer, authority *Authority) *Server {
	t.Helper()
	s := &Server{Peer: p, URL: "http://", conns: make(map[net.Conn]bool)}
	if authority != nil {
		s.URL, s.Peer.Name = "https://", p.Name+", TLS"
		s.tls = authority.Config(func(*x509.Certificate) {})
		if p.config != nil {
			p.config(s.tls, authority)
		}
	}
	t.Cleanup(s.Close)
	if p.listen != nil {
		addr, closer := p.listen(t)
		s.URL += addr
		if closer != nil {
			s.closers = append(s.closers, closer)
		}
		return s
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.URL += l.Addr().String()
	s.closers = append(s.closers, l)
	s.ended.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[conn] = true
			s.mu.Unlock()
			s.opened.Add(1)
			s.ended.Go(func() { s.handle(conn) })
		}
	})
	return s
}

func (s *Server) handle(conn net.Conn) {
	defer func() {
		_ = conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	if s.tls == nil || s.Peer.raw {
		s.Peer.Serve(conn)
		return
	}
	secure := tls.Server(conn, s.tls)
	if secure.Handshake() == nil {
		s.Peer.Serve(secure)
	}
}

// Authority signs the certificates of servers.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority that nobody trusts yet.
func NewAuthority() *Authority {
	key := newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		panic(err)
	}
	return &Authority{cert, key}
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

// Pool returns a pool that trusts the authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// DER returns the authority's certificate.
func (a *Authority) DER() []byte { return a.cert.Raw }

// Config returns a server's TLS for 127.0.0.1, localhost and *.example, after change has changed its certificate.
func (a *Authority) Config(change func(*x509.Certificate)) *tls.Config {
	key := newKey()
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost", "*.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	change(leaf)
	raw, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, key.Public(), a.key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: key}}}
}

// request reads one request whole.
func request(conn net.Conn) {
	if req, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
		_, _ = io.Copy(io.Discard, req.Body)
	}
}

// hold keeps a connection open until the client closes it.
func hold(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// say writes and reports whether it could.
func say(conn net.Conn, text string) bool {
	_, err := io.WriteString(conn, text)
	return err == nil
}

// answer reads a request, writes text, and closes.
func answer(text string) func(net.Conn) {
	return func(conn net.Conn) {
		request(conn)
		say(conn, text)
	}
}

// answerAndHold reads a request, writes text, and keeps the connection open.
func answerAndHold(text string) func(net.Conn) {
	return func(conn net.Conn) {
		request(conn)
		say(conn, text)
		hold(conn)
	}
}

// endless reads a request, writes begin, and then more for ever, with a pause before each.
func endless(begin, more string, pause time.Duration) func(net.Conn) {
	return func(conn net.Conn) {
		request(conn)
		flow(conn, begin, more, pause)
	}
}

// flow writes begin, and then more until the client has gone, with a pause before each.
func flow(conn net.Conn, begin, more string, pause time.Duration) {
	if pause == 0 {
		more = strings.Repeat(more, 100) // a flood, also on a busy machine
	}
	for ok := say(conn, begin); ok; ok = say(conn, more) {
		time.Sleep(pause)
	}
}
