package memories_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/memhook/memhook/memories"
)

// What a peer does with a request instead of answering it.
const (
	cutBefore  = "cut before the request is read"
	cutAfter   = "cut after the request is read"
	halfAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
	answered   = "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"done\":false}"
)

// peer is a server on raw sockets. It notes each request as it comes over the wire.
type peer struct {
	url      string
	listener net.Listener
	then     []string // what comes of the requests, in order; answered after them

	mu       sync.Mutex
	requests []string
	conns    int
	turn     int
}

// nobody is the URL of a port that nothing listens on: a port that was free a moment ago may be another test's by now.
const nobody = "http://127.0.0.1:1"

func newPeer(t *testing.T) *peer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	p := &peer{url: "http://" + listener.Addr().String(), listener: listener}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.conns++
			p.mu.Unlock()
			go p.serve(conn)
		}
	}()
	return p
}

func (p *peer) seen() (requests []string, conns int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.requests), p.conns
}

// serve reads requests up to a silence, so that a body which nobody announced would show.
func (p *peer) serve(conn net.Conn) {
	defer conn.Close()
	var raw strings.Builder
	reader := bufio.NewReader(io.TeeReader(conn, &raw))
	for {
		if _, err := reader.Peek(1); err != nil {
			return
		}
		p.mu.Lock()
		what := answered
		if p.turn < len(p.then) {
			what = p.then[p.turn]
		}
		p.turn++
		p.mu.Unlock()
		if what == cutBefore {
			_ = conn.(*net.TCPConn).SetLinger(0)
			return
		}
		req, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		_, _ = reader.Peek(1)
		_ = conn.SetReadDeadline(time.Time{})
		p.mu.Lock()
		p.requests = append(p.requests, raw.String())
		raw.Reset()
		p.mu.Unlock()
		if what == cutAfter {
			return
		}
		if _, err := io.WriteString(conn, what); err != nil || what != answered {
			return
		}
	}
}

// A poll is one request without a body on the wire, also when the connection, used before or new, is cut
// before or after the request: the budget has one slot for it. (Go's transport sends a GET again on its
// own where a connection that was used before breaks.)
func TestOneCallIsOneRequestWithoutABody(t *testing.T) {
	t.Parallel()
	for _, account := range []memories.Account{{Key: "sk-mavi-1"}, lake} {
		p := newPeer(t)
		// Those in the second half of each pair come over a connection that was used before.
		p.then = []string{cutAfter, cutBefore, answered, cutAfter, answered, cutBefore, answered, halfAnswer, halfAnswer, answered, answered}
		client := memories.New(p.url, 10, "memhook/test")
		defer client.Close()
		for i := range p.then {
			got := client.TaskStatus(t.Context(), account, "t", "default")
			if lost := p.then[i] != answered; lost != (got.Outcome == memories.Unavailable) {
				t.Errorf("request %d, %.20q: %+v", i, p.then[i], got)
			}
		}
		requests, conns := p.seen()
		p.mu.Lock()
		turns := p.turn
		p.mu.Unlock()
		if turns != len(p.then) || len(requests) != 9 || conns != 7 {
			t.Errorf("%d calls were %d requests, %d of them read, on %d connections; want 9 read on 7", len(p.then), turns, len(requests), conns)
		}
		for _, r := range requests {
			head, body, _ := strings.Cut(r, "\r\n\r\n")
			if lower := strings.ToLower(head); body != "" || strings.Contains(lower, "transfer-encoding") || strings.Contains(lower, "content-length") || strings.Contains(lower, "content-type") {
				t.Errorf("a request with a body:\n%s", r)
			}
		}
	}
}

// A server that offers HTTP/2 is asked over HTTP/1.1: one request a second has nothing to share, and a
// connection that goes silent must not hold up more than one.
func TestPollsSpeakHTTP1(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []*http.Request
	var bodies []string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		seen, bodies = append(seen, r), append(bodies, string(body))
		mu.Unlock()
		if len(seen)%2 == 0 {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, `{"done":false}`)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	client := memories.New(server.URL, 10, "memhook/test")
	client.Trust(server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs)
	defer client.Close()
	for i := range 6 {
		if got := client.TaskStatus(t.Context(), lake, "t", ""); (i%2 == 0) != (got.Outcome == memories.Listed) {
			t.Errorf("call %d: %+v", i, got)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 6 {
		t.Errorf("6 calls were %d requests", len(seen))
	}
	for i, r := range seen {
		if r.ProtoMajor != 1 || bodies[i] != "" || r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
			t.Errorf("%s with a body of %d bytes, %v: %q", r.Proto, r.ContentLength, r.TransferEncoding, bodies[i])
		}
	}
}

// What goes wrong is told without the URL, which holds the task's id, without the key, and without addresses.
func TestMessagesNameNoSecrets(t *testing.T) {
	t.Parallel()
	addresses := regexp.MustCompile(`\d+\.\d+\.\d+\.\d+`)
	for _, base := range []string{nobody, "http://[::1]:namedport", "https://127.0.0.1:1", "http://user:secretpass@127.0.0.1:1", "http://name.invalid"} {
		client := memories.New(base, 1, "memhook/test")
		for _, key := range []string{"sk-mavi-secret", "sk-mai-secret", "sk-mavi-secret\n"} {
			got := client.TaskStatus(t.Context(), memories.Account{Key: key}, "task-id-1", "default")
			if got.Outcome != memories.Unavailable || got.Message == "" || strings.Contains(got.Message, "secret") || strings.Contains(got.Message, "task-id-1") || addresses.MatchString(got.Message) {
				t.Errorf("%s: %+v", base, got)
			}
		}
	}
}

// What a proxy with TLS passes on to a server is a GET without a body, too.
func TestPollsThroughAProxyHaveNoBody(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	target, err := url.Parse(p.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(target))
	proxy.EnableHTTP2 = true
	proxy.StartTLS()
	defer proxy.Close()
	client := memories.New(proxy.URL, 10, "memhook/test")
	client.Trust(proxy.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs)
	defer client.Close()
	for range 3 {
		if got := client.TaskStatus(t.Context(), lake, "t", ""); got.Outcome != memories.Listed {
			t.Errorf("%+v", got)
		}
	}
	requests, _ := p.seen()
	if len(requests) != 3 {
		t.Errorf("3 calls were %d requests", len(requests))
	}
	for _, r := range requests {
		if head, body, _ := strings.Cut(strings.ToLower(r), "\r\n\r\n"); body != "" || strings.Contains(head, "transfer-encoding") || strings.Contains(head, "content-length") {
			t.Errorf("a request with a body:\n%s", r)
		}
	}
}

// A redirect is not followed: it would carry the key to whoever it names.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	var followed atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Add(1) }))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, status) }))
		client := memories.New(server.URL, 1, "memhook/test")
		for _, account := range []memories.Account{{Key: "sk-mavi-1"}, lake} {
			if got := client.TaskStatus(t.Context(), account, "t", "default"); got.Outcome != memories.Blocked || got.HTTPStatus != status {
				t.Errorf("%+v", got)
			}
			if got := client.Submit(t.Context(), account, video); got.Outcome != memories.Blocked || got.HTTPStatus != status {
				t.Errorf("%+v", got)
			}
		}
		client.Close()
		server.Close()
	}
	if n := followed.Load(); n != 0 {
		t.Errorf("%d redirects were followed", n)
	}
}
