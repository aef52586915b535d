package outbound_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/memhook/memhook/internal/outbound"
)

// closer is a server that answers each request and closes the connection some time later without saying so.
type closer struct {
	after    time.Duration
	mu       sync.Mutex
	requests map[string]int // by their body
	answered map[string]int
}

func (c *closer) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		c.note(c.requests, string(body))
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); err != nil {
			return
		}
		c.note(c.answered, string(body))
		_ = conn.SetReadDeadline(time.Now().Add(c.after))
	}
}

func (c *closer) note(in map[string]int, body string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	in[body]++
}

func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.Map
	t.Cleanup(func() {
		_ = l.Close()
		conns.Range(func(conn, _ any) bool { _ = conn.(net.Conn).Close(); return true })
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Store(conn, true)
			go serve(conn)
		}
	}()
	return "http://" + l.Addr().String()
}

// Servers close connections that they said they keep. No request fails for that, and none comes twice unless it was
// answered the first time.
func TestResendCoversConnectionsThatThePeerCloses(t *testing.T) {
	t.Parallel()
	for _, after := range []time.Duration{0, 3 * time.Millisecond, 20 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			t.Parallel()
			server := &closer{after: after, requests: make(map[string]int), answered: make(map[string]int)}
			url := listen(t, server.serve)
			client := newClient(t, func(c *outbound.Config) { c.Resend = true })
			var senders sync.WaitGroup
			for sender := range 10 {
				senders.Go(func() {
					for i := range 100 {
						resp, err := client.Do(t.Context(), post(t, url, fmt.Sprintf("%d-%d", sender, i)))
						if err != nil || resp.Status != http.StatusOK {
							t.Errorf("request %d-%d: %v (%v)", sender, i, err, cause(resp, err))
						}
						time.Sleep(rand.N(after + after/2 + time.Millisecond)) // about when the connection is closed
					}
				})
			}
			senders.Wait()
			if len(server.requests) != 1000 {
				t.Errorf("%d of 1000 came", len(server.requests))
			}
			for body, n := range server.requests {
				if n > 1 && server.answered[body] < n {
					t.Errorf("%s came %d times and was answered %d times", body, n, server.answered[body])
				}
			}
		})
	}
}

// A used connection that dies with a request on it, before a byte of an answer: with Resend the request is sent once more
// on a new one, whatever the way in which it dies; without, it is not, and with a byte of an answer it is not either.
func TestResendIsForUsedConnectionsWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	ways := map[string]func(net.Conn){
		"closes":            func(c net.Conn) { _ = c.Close() },
		"resets":            func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); _ = c.Close() },
		"answers in part":   func(c net.Conn) { _, _ = io.WriteString(c, "H"); _ = c.Close() },
		"answers and stops": func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"); _ = c.Close() },
	}
	for name, die := range ways {
		for _, resend := range []bool{true, false} {
			for _, size := range []int{10, 4 << 20} {
				t.Run(fmt.Sprintf("%s, %d bytes, resend %t", name, size, resend), func(t *testing.T) {
					t.Parallel()
					var requests atomic.Int64
					url := listen(t, func(conn net.Conn) {
						in := bufio.NewReader(conn)
						for {
							req, err := http.ReadRequest(in)
							if err != nil {
								return
							}
							n := requests.Add(1)
							if n%2 == 0 && n < 3 { // the second request on the first connection
								die(conn)
								return
							}
							_, _ = io.Copy(io.Discard, req.Body)
							_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
						}
					})
					client := newClient(t, func(c *outbound.Config) { c.Resend = resend })
					if _, err := client.Do(t.Context(), post(t, url, "first")); err != nil {
						t.Fatal(err)
					}
					resp, err := client.Do(t.Context(), post(t, url, strings.Repeat("x", size)))
					again := resend && !strings.HasPrefix(name, "answers")
					if again != (err == nil) {
						t.Errorf("%v (%v)", err, cause(resp, err))
					}
					if want := map[bool]int64{true: 3, false: 2}[again]; requests.Load() != want {
						t.Errorf("%d requests came, want %d", requests.Load(), want)
					}
				})
			}
		}
	}
}

// A new connection that dies is not tried again: the peer may be one that cannot bear the request.
func TestResendIsNotForNewConnections(t *testing.T) {
	t.Parallel()
	var requests atomic.Int64
	url := listen(t, func(conn net.Conn) {
		requests.Add(1)
		_ = conn.Close()
	})
	client := newClient(t, func(c *outbound.Config) { c.Resend = true })
	if _, err := client.Do(t.Context(), post(t, url, "x")); err == nil || requests.Load() != 1 {
		t.Errorf("%v, %d connections", err, requests.Load())
	}
}

// silenceable forwards connections to a server until it falls silent on those that exist. New ones work.
type silenceable struct {
	target string
	silent atomic.Int64 // connections up to this number
	number atomic.Int64
}

func (s *silenceable) serve(conn net.Conn) {
	n := s.number.Add(1)
	out, err := net.Dial("tcp", s.target)
	if err != nil {
		return
	}
	forward := func(from, to net.Conn) {
		buf := make([]byte, 4096)
		for {
			k, err := from.Read(buf)
			if err != nil {
				break
			}
			if n > s.silent.Load() {
				_, _ = to.Write(buf[:k])
			}
		}
		_ = to.Close()
	}
	go forward(out, conn)
	forward(conn, out)
}

// A proxy in front of a TLS server goes silent on its connections: an endpoint loses one attempt at most, since after a
// time-out nothing goes over the old connections any more.
func TestSilentConnectionsCostOneAttempt(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 {
			t.Errorf("the request came over %s", r.Proto)
		}
		time.Sleep(5 * time.Millisecond) // so that requests at once need as many connections
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	for _, atOnce := range []bool{true, false} {
		proxy := &silenceable{target: server.Listener.Addr().String()}
		url := strings.Replace(listen(t, proxy.serve), "http:", "https:", 1)
		client := newClient(t, func(c *outbound.Config) {
			c.Timeout, c.Resend = 2*time.Second, true
			c.Roots = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
		})
		attempt := func(endpoint int) error {
			_, err := client.Do(t.Context(), post(t, fmt.Sprintf("%s/%d", url, endpoint), "{}"))
			return err
		}
		six(func(i int) {
			if err := attempt(i); err != nil {
				t.Errorf("before: %v", err)
			}
		}, true)
		if client.Idle(url) < 2 {
			t.Fatalf("%d idle connections", client.Idle(url))
		}
		proxy.silent.Store(proxy.number.Load())
		var lost atomic.Int64
		six(func(i int) {
			if attempt(i) != nil {
				lost.Add(1)
				if err := attempt(i); err != nil {
					t.Errorf("endpoint %d: the second attempt: %v (%v)", i, err, cause(nil, err))
				}
			}
		}, atOnce)
		if lost.Load() == 0 || !atOnce && lost.Load() != 1 {
			t.Errorf("at once %t: %d attempts were lost", atOnce, lost.Load())
		}
		t.Logf("at once %t: %d of 6 endpoints lost one attempt", atOnce, lost.Load())
	}
}

func six(do func(int), atOnce bool) {
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() { do(i) })
		if !atOnce {
			all.Wait()
		}
	}
	all.Wait()
}

// A context that is done ends an exchange at once, and is not a time-out.
func TestDoEndsWithItsContext(t *testing.T) {
	t.Parallel()
	url := listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	client := newClient(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	start := time.Now()
	_, err := client.Do(ctx, post(t, url, "{}").WithContext(ctx))
	if e, ok := err.(*outbound.Error); !ok || e.Kind != outbound.Cancelled || time.Since(start) > time.Second { //nolint:errorlint // Do's own
		t.Errorf("%v after %s", err, time.Since(start))
	}
}

// A connection that the peer has closed while it was idle is not used, so that a request that must not be sent again is not
// lost on it.
func TestAClosedIdleConnectionIsNotUsed(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{}, 100)
	url := listen(t, func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		time.Sleep(time.Millisecond)
		_ = conn.Close()
		closed <- struct{}{}
	})
	client := newClient(t, nil)
	for range 20 {
		if _, err := client.Do(t.Context(), get(t, url)); err != nil {
			t.Fatalf("%v (%v)", err, cause(nil, err))
		}
		<-closed
	}
}
