package webhook_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/memhook/memhook/internal/outbound/badpeers"
	"github.com/memhook/memhook/webhook"
)

// rawReceiver answers 200 to whole requests, and then does to the connection what a test wants.
type rawReceiver struct {
	net.Listener
	url  string
	then func(c *net.TCPConn, conn, request int) bool // reports whether the connection goes on

	mu    sync.Mutex
	seen  map[string]int // requests by id
	conns int
}

// receive starts a receiver. read is asked before a request of a connection is answered; false leaves it unanswered.
func receive(t *testing.T, answer, then func(c *net.TCPConn, conn, request int) bool) *rawReceiver {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rawReceiver{Listener: listener, url: "http://" + listener.Addr().String() + "/", then: then, seen: make(map[string]int)}
	var running sync.WaitGroup
	running.Go(func() {
		for conn := 1; ; conn++ {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns++
			r.mu.Unlock()
			t.Cleanup(func() { _ = c.Close() })
			running.Go(func() { r.serve(c.(*net.TCPConn), conn, answer) })
		}
	})
	t.Cleanup(func() { _ = listener.Close() })
	return r
}

func (r *rawReceiver) serve(c *net.TCPConn, conn int, answer func(c *net.TCPConn, conn, request int) bool) {
	defer func() { _ = c.Close() }()
	in := bufio.NewReader(c)
	for request := 1; ; request++ {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		r.mu.Lock()
		r.seen[req.Header.Get(webhook.HeaderID)]++
		r.mu.Unlock()
		if answer != nil && !answer(c, conn, request) {
			return
		}
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil || !r.then(c, conn, request) {
			return
		}
	}
}

func reset(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() }

func goesOn(*net.TCPConn, int, int) bool { return true }

func newSender(t *testing.T, timeout time.Duration) *webhook.Sender {
	t.Helper()
	s := webhook.NewSender(webhook.SenderConfig{Guard: loopback(), Timeout: timeout, UserAgent: "memhook/test", ConnsPerHost: 50})
	t.Cleanup(s.Close)
	return s
}

// A used connection that dies while the next request is on its way costs no attempt: the request is sent once more, on a
// new connection, under the same id.
func TestSendAgainWhereAUsedConnectionIsDead(t *testing.T) {
	t.Parallel()
	for name, die := range map[string]func(*net.TCPConn){
		"closed":              func(c *net.TCPConn) { _ = c.Close() },
		"reset":               reset,
		"closed on one side":  func(c *net.TCPConn) { _ = c.CloseWrite() },
		"closed after a wait": func(c *net.TCPConn) { time.Sleep(20 * time.Millisecond); _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// The second request of each connection is read whole, and then the connection dies without an answer.
			r := receive(t, func(c *net.TCPConn, _, request int) bool {
				if request == 2 {
					die(c)
				}
				return request < 2
			}, goesOn)
			sender := newSender(t, 5*time.Second)
			for _, id := range []string{"evt_1", "evt_2", "evt_3"} {
				if resp := sender.Send(t.Context(), webhook.Request{URL: r.url, ID: id, Body: []byte("{}")}); !resp.OK() {
					t.Fatalf("%s: %d %v", id, resp.Status, resp.Err)
				}
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			// evt_2 and evt_3 met a connection that was used once: each came twice, and no more.
			if r.conns != 3 || r.seen["evt_1"] != 1 || r.seen["evt_2"] != 2 || r.seen["evt_3"] != 2 {
				t.Errorf("%d connections, %v", r.conns, r.seen)
			}
		})
	}
}

// Many kept connections that are all dead cost nothing, and a new one that dies is a failed attempt, once.
func TestSendAgainPastManyDeadConnections(t *testing.T) {
	t.Parallel()
	var dying atomic.Bool
	arrived := make(chan struct{}, 100)
	release := make(chan struct{})
	r := receive(t, func(c *net.TCPConn, _, request int) bool {
		if request == 1 && !dying.Load() {
			arrived <- struct{}{}
			<-release
		}
		if dying.Load() && request > 1 {
			reset(c)
			return false
		}
		return true
	}, goesOn)
	sender := newSender(t, 5*time.Second)
	var running sync.WaitGroup
	for range 10 { // ten connections at once
		running.Go(func() { sender.Send(t.Context(), webhook.Request{URL: r.url, ID: "evt_first"}) })
	}
	for range 10 {
		<-arrived
	}
	close(release)
	running.Wait()
	dying.Store(true)
	for range 10 {
		if resp := sender.Send(t.Context(), webhook.Request{URL: r.url, ID: "evt_second"}); !resp.OK() {
			t.Fatalf("%d %v", resp.Status, resp.Err)
		}
	}
	never := receive(t, func(c *net.TCPConn, _, _ int) bool { reset(c); return false }, goesOn)
	if resp := sender.Send(t.Context(), webhook.Request{URL: never.url, ID: "evt_third"}); resp.OK() || resp.Class() != "error" {
		t.Errorf("a new connection that is reset: %d %v", resp.Status, resp.Err)
	}
	never.mu.Lock()
	defer never.mu.Unlock()
	if never.seen["evt_third"] != 1 {
		t.Errorf("sent %d times", never.seen["evt_third"])
	}
}

// What a receiver sends on an idle connection is no answer to the next webhook.
func TestAnswersThatNobodyAskedForCountForNothing(t *testing.T) {
	t.Parallel()
	said := make(chan struct{}, 10)
	r := receive(t, nil, func(c *net.TCPConn, _, _ int) bool {
		time.Sleep(10 * time.Millisecond) // the connection is idle by then
		_, err := io.WriteString(c, "HTTP/1.1 500 Too Late\r\nContent-Length: 0\r\n\r\n")
		said <- struct{}{}
		return err == nil
	})
	sender := newSender(t, 5*time.Second)
	for range 5 {
		if resp := sender.Send(t.Context(), webhook.Request{URL: r.url, ID: "evt_1"}); !resp.OK() {
			t.Fatalf("%d %v", resp.Status, resp.Err)
		}
		<-said
	}
}

// Receivers that close a kept connection at once, or a little later, lose nothing and get nothing twice.
func TestReceiversThatCloseKeptConnections(t *testing.T) {
	t.Parallel()
	for _, after := range []time.Duration{0, 3 * time.Millisecond, 20 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			t.Parallel()
			r := receive(t, nil, func(*net.TCPConn, int, int) bool { time.Sleep(after); return false })
			sender := newSender(t, 5*time.Second)
			var running sync.WaitGroup
			for worker := range 4 {
				running.Go(func() {
					for i := range 250 {
						id := "evt_" + strings.Repeat("x", worker) + "_" + strings.Repeat("y", i)
						if resp := sender.Send(t.Context(), webhook.Request{URL: r.url, ID: id, Body: []byte("{}")}); !resp.OK() {
							t.Errorf("%d %v (%v)", resp.Status, resp.Err, resp.Details())
						}
						time.Sleep(time.Duration(i%5) * time.Millisecond) // so that connections are found in each state
					}
				})
			}
			running.Wait()
			r.mu.Lock()
			defer r.mu.Unlock()
			twice := 0
			for _, n := range r.seen {
				if n > 1 {
					twice++
				}
			}
			if len(r.seen) != 1000 || twice > 0 {
				t.Errorf("%d webhooks received, %d of them more than once", len(r.seen), twice)
			}
			t.Logf("1,000 webhooks over %d connections", r.conns)
		})
	}
}

// A TLS proxy goes silent on the connections that exist, while new ones work: each host loses the attempts that are under
// way, and every attempt after them uses a new connection.
func TestSilentConnectionsCostOneTimeout(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	proxy := badpeers.NewSilencer(t, server.Listener.Addr().String())
	roots := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	sender := webhook.NewSender(webhook.SenderConfig{Guard: loopback(), Timeout: timeout, ConnsPerHost: 50, Roots: roots})
	t.Cleanup(sender.Close)
	send := func(path string) webhook.Response {
		return sender.Send(t.Context(), webhook.Request{URL: "https://" + proxy.Addr + path, ID: "evt_1", Body: []byte("{}")})
	}
	var running sync.WaitGroup
	for range 6 { // some connections, so that more are idle than one attempt uses
		running.Go(func() { send("/warm") })
	}
	running.Wait()
	if resp := send("/"); !resp.OK() {
		t.Fatalf("%v (%v)", resp.Err, resp.Details())
	}
	proxy.Silence()
	if resp := send("/"); resp.Class() != "timeout" {
		t.Fatalf("on a silent connection: %d %v", resp.Status, resp.Err)
	}
	for i := range 6 {
		running.Go(func() {
			if resp := send("/" + strings.Repeat("x", i)); !resp.OK() {
				t.Errorf("after the time-out: %v", resp.Err)
			}
		})
	}
	running.Wait()
}
