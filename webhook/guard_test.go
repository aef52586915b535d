package webhook_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/memhook/memhook/webhook"
)

// forbidden are targets inside. A port stands where %s is.
var forbidden = []string{
	"127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.254",
	"169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.170", "192.0.2.1", "192.88.99.1", "192.168.0.1", "192.168.255.255",
	"198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
	"[::]", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[::ffff:169.254.169.254]", "[::ffff:7f00:1]", "[::127.0.0.1]",
	"[64:ff9b::127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::1]", "[2002:7f00:1::]", "[2002:a00:1::1]", "[2001::1]", "[2001:db8::1]", "[2001:10::1]",
	"[100::1]", "[fc00::1]", "[fd00:ec2::254]", "[fdff:ffff::1]", "[fe80::1]", "[fec0::1]", "[ff02::1]", "[5f00::1]",
	"2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "127.1", "127.0.1", "1.1", "0", "0x0",
	"localhost", "LOCALHOST", "localhost.", "foo.localhost", "a.b.localhost.",
}

func TestGuardForbidsTheInside(t *testing.T) {
	t.Parallel()
	if len(forbidden) < 60 {
		t.Fatalf("%d targets, want at least 60", len(forbidden))
	}
	// A listener on all addresses of this machine counts who gets through.
	var connections atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	listener, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	server.Listener = listener
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())

	guard := webhook.NewGuard(webhook.Policy{AllowHTTP: true})
	sender := webhook.NewSender(webhook.SenderConfig{Guard: guard, Timeout: 2 * time.Second})
	for _, host := range forbidden {
		url := "http://" + host + ":" + port + "/"
		if _, err := guard.Target(url); !errors.Is(err, webhook.ErrForbidden) || !strings.HasPrefix(err.Error(), "is not permitted: ") {
			t.Errorf("%s can be registered: %v", url, err)
		}
		// At dial time too, however it got there.
		if resp := sender.Send(t.Context(), webhook.Request{URL: url}); resp.Err == nil {
			t.Errorf("%s was sent to: %d", url, resp.Status)
		}
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
	// The same listener is reached where the operator allows it: otherwise this test could not fail.
	allowed := webhook.NewGuard(webhook.Policy{AllowHTTP: true, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if resp := webhook.NewSender(webhook.SenderConfig{Guard: allowed, Timeout: 2 * time.Second}).Send(t.Context(), webhook.Request{URL: "http://127.0.0.1:" + port}); !resp.OK() || connections.Load() != 1 {
		t.Errorf("allowed: %v, %d connections", resp.Err, connections.Load())
	}
	n, _ := strconv.Atoi(port)
	denied := webhook.NewGuard(webhook.Policy{AllowHTTP: true, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, DenyPorts: []uint16{uint16(n)}})
	if _, err := denied.Target("http://127.0.0.1:" + port); !errors.Is(err, webhook.ErrForbidden) {
		t.Errorf("a denied port: %v", err)
	}
}

// names is a DNS server whose answers a test chooses.
type names struct {
	answers func(name string) []netip.Addr
}

// resolver asks the names over a pipe, as a resolver asks a server over TCP.
func (n names) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go n.serve(server)
		return client, nil
	}}
}

func (n names) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return
	}
	raw := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, raw); err != nil {
		return
	}
	var msg dnsmessage.Message
	if msg.Unpack(raw) != nil {
		return
	}
	q := msg.Questions[0]
	msg.Response, msg.Additionals = true, nil
	if q.Type == dnsmessage.TypeA {
		for _, a := range n.answers(q.Name.String()) {
			msg.Answers = append(msg.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: &dnsmessage.AResource{A: a.As4()},
			})
		}
	}
	out, err := msg.Pack()
	if err != nil {
		return
	}
	_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
}

// What a name resolves to counts when it is dialled, and each of its addresses does. 127.0.0.2 stands for a
// public address (it is allowed), 127.0.0.1 for the inside.
func TestGuardJudgesWhatNamesResolveTo(t *testing.T) {
	t.Parallel()
	var outside, inside atomic.Int64
	serve := func(listener net.Listener, count *atomic.Int64) {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") }))
		_ = server.Listener.Close()
		server.Listener = listener
		server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				count.Add(1)
			}
		}
		server.Start()
		t.Cleanup(server.Close)
	}
	in, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(in, &inside)
	_, port, _ := net.SplitHostPort(in.Addr().String())
	public, private := netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.1")
	var moves atomic.Int64
	dns := names{func(name string) []netip.Addr {
		switch name {
		case "both.example.":
			return []netip.Addr{public, private}
		case "reversed.example.":
			return []netip.Addr{private, public}
		case "private.example.":
			return []netip.Addr{private}
		default: // it moves after it was looked up once
			if moves.Add(1) == 1 {
				return []netip.Addr{public}
			}
			return []netip.Addr{private}
		}
	}}
	guard := webhook.NewGuard(webhook.Policy{AllowHTTP: true, Networks: []netip.Prefix{netip.PrefixFrom(public, 32)}})
	sender := webhook.NewSender(webhook.SenderConfig{Guard: guard, Timeout: 2 * time.Second, Resolver: dns.resolver()})
	send := func(host string) webhook.Response {
		url := "http://" + host + ":" + port + "/"
		if _, err := guard.Target(url); err != nil {
			t.Errorf("%s cannot be registered: %v", host, err)
		}
		return sender.Send(t.Context(), webhook.Request{URL: url})
	}
	// Nobody listens at the public address yet, so a dialler that tries every address comes to the private one.
	for _, host := range []string{"both.example", "reversed.example", "private.example"} {
		if resp := send(host); resp.Err == nil {
			t.Errorf("%s was sent to", host)
		}
	}
	if resp := send("private.example"); !errors.Is(resp.Err, webhook.ErrForbidden) {
		t.Errorf("the reason is %v", resp.Err)
	}
	out, err := net.Listen("tcp", net.JoinHostPort(public.String(), port))
	if err != nil {
		t.Fatal(err)
	}
	serve(out, &outside)
	if resp := send("moves.example"); !resp.OK() || outside.Load() != 1 {
		t.Errorf("before it moves: %v, %d connections", resp.Err, outside.Load())
	}
	if resp := send("moves.example"); !errors.Is(resp.Err, webhook.ErrForbidden) {
		t.Errorf("after it has moved: %v", resp.Err)
	}
	if n := inside.Load(); n != 0 {
		t.Errorf("%d connections to the inside", n)
	}
}

func TestTargetChecks(t *testing.T) {
	t.Parallel()
	guard := webhook.NewGuard(webhook.Policy{})
	for _, ok := range []string{
		"https://example.com/hooks", "https://example.com:8443/a?b=c", "https://93.184.215.14/", "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/", "https://xn--bcher-kva.example/",
		"https://1.example/", "https://example.com/" + strings.Repeat("a", webhook.MaxURLLength-len("https://example.com/")),
	} {
		if _, err := guard.Target(ok); err != nil {
			t.Errorf("%.60s: %v", ok, err)
		}
	}
	for _, bad := range []string{
		"", "example.com", "/hooks", "//example.com/", "ftp://example.com", "https://", "https:///x", "https://:443/", "http://example.com/", "https://u@example.com/", "https://u:p@example.com/",
		"https://example.com/#f", "https://example.com/#", "https://exa mple.com/", "https://example.com/a b", "https://example.com\\@evil.example/", "https://example.com:0/", "https://example.com:65536/",
		"https://example.com:/", "https://example.com:x/", "https://exam\nple.com", "mailto:a@example.com", "javascript:alert(1)", "https://a..b/",
		"https://example.com/" + strings.Repeat("a", webhook.MaxURLLength),
	} {
		if _, err := guard.Target(bad); err == nil {
			t.Errorf("%.60q was accepted", bad)
		}
	}
}

func TestSendDoesNotFollowRedirects(t *testing.T) {
	t.Parallel()
	var inside atomic.Int64
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside.Add(1) }))
	defer target.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		redirect := httptest.NewServer(http.RedirectHandler(target.URL, status))
		guard := webhook.NewGuard(webhook.Policy{AllowHTTP: true, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
		resp := webhook.NewSender(webhook.SenderConfig{Guard: guard, Timeout: 2 * time.Second}).Send(t.Context(), webhook.Request{URL: redirect.URL})
		if resp.OK() || resp.Status != status {
			t.Errorf("%d: %d %v", status, resp.Status, resp.Err)
		}
		redirect.Close()
	}
	if inside.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

func TestSendIsBounded(t *testing.T) {
	t.Parallel()
	guard := webhook.NewGuard(webhook.Policy{AllowHTTP: true, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	sender := webhook.NewSender(webhook.SenderConfig{Guard: guard, Timeout: 500 * time.Millisecond})
	serve := func(h http.HandlerFunc) string {
		s := httptest.NewServer(h)
		t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
		return s.URL
	}
	long := serve(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(strings.Repeat("x", 1<<20))) })
	if resp := sender.Send(t.Context(), webhook.Request{URL: long}); !resp.OK() || len(resp.Body) != webhook.MaxResponse {
		t.Errorf("a long body: %d bytes, %v", len(resp.Body), resp.Err)
	}
	drip := serve(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte("x"))
			_ = http.NewResponseController(w).Flush()
			time.Sleep(20 * time.Millisecond)
		}
	})
	if resp := sender.Send(t.Context(), webhook.Request{URL: drip}); !resp.OK() || resp.Duration > 2*time.Second {
		t.Errorf("a dripping body: %s, %v", resp.Duration, resp.Err)
	}
	headers := serve(func(w http.ResponseWriter, _ *http.Request) {
		for i := range 100 {
			w.Header().Set("X-"+strconv.Itoa(i), strings.Repeat("y", 1000))
		}
	})
	if resp := sender.Send(t.Context(), webhook.Request{URL: headers}); resp.OK() {
		t.Error("100 KB of headers were read")
	}
	if got := webhook.Printable([]byte("a\x00b\xffc\nd")); got != "a\ufffdb\ufffdc\nd" {
		t.Errorf("Printable: %q", got)
	}
}
