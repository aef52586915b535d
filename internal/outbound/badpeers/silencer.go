package badpeers

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Silencer passes bytes on to a server, until it goes silent on the connections that it has, as proxies do that lost
// their state. New ones work.
type Silencer struct {
	Addr string

	target  string
	mu      sync.Mutex
	silent  []*atomic.Bool // of each connection
	running sync.WaitGroup
	closers []func() error
}

// NewSilencer starts one in front of a server's address. It stops when the test ends.
func NewSilencer(tb testing.TB, target string) *Silencer {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := &Silencer{Addr: listener.Addr().String(), target: target}
	s.running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			s.accept(client)
		}
	})
	tb.Cleanup(func() {
		_ = listener.Close()
		s.mu.Lock()
		for _, end := range s.closers {
			_ = end()
		}
		s.mu.Unlock()
		s.running.Wait()
	})
	return s
}

func (s *Silencer) accept(client net.Conn) {
	upstream, err := net.Dial("tcp", s.target)
	if err != nil {
		_ = client.Close()
		return
	}
	silent := new(atomic.Bool)
	s.mu.Lock()
	s.silent = append(s.silent, silent)
	s.closers = append(s.closers, client.Close, upstream.Close)
	s.mu.Unlock()
	s.running.Go(func() { pass(upstream, client, silent) })
	s.running.Go(func() { pass(client, upstream, silent) })
}

// pass copies what comes, or drops it in silence. Nobody learns that the other side has gone while it is silent.
func pass(to, from net.Conn, silent *atomic.Bool) {
	for buffer := make([]byte, 4<<10); ; {
		n, err := from.Read(buffer)
		if silent.Load() && err == nil {
			continue
		}
		if _, failed := to.Write(buffer[:n]); failed != nil || err != nil {
			if !silent.Load() {
				_ = to.Close()
			}
			return
		}
	}
}

// Silence makes all connections silent that exist, and returns how many.
func (s *Silencer) Silence() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, silent := range s.silent {
		silent.Store(true)
	}
	return len(s.silent)
}
