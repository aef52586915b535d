package webhook_test

import (
	"bufio"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/memhook/memhook/webhook"
)

// loopback is a guard that permits this machine.
func loopback() *webhook.Guard {
	return webhook.NewGuard(webhook.Policy{AllowHTTP: true, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
}

// tinyproxy starts Debian's forward proxy and returns its URL and what stops it.
func tinyproxy(t *testing.T) (proxy *url.URL, stop func()) {
	t.Helper()
	program, err := exec.LookPath("tinyproxy")
	if err != nil {
		t.Fatal("install tinyproxy to run this test")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	_ = listener.Close()
	config := filepath.Join(t.TempDir(), "tinyproxy.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, "Port %d\nListen 127.0.0.1\nTimeout 30\nMaxClients 50\nAllow 127.0.0.1\n", port), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-d", "-c", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(stop)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return &url.URL{Scheme: "http", Host: address}, stop
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// Webhooks go through a real forward proxy, plain ones and those over TLS. Private targets are refused before it, and what
// the proxy itself gets wrong is not the receiver's.
func TestWebhooksGoThroughAProxy(t *testing.T) {
	t.Parallel()
	proxy, stop := tinyproxy(t)
	var got, direct atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Add(1)
		if r.TLS == nil && r.Header.Get("Via") == "" {
			direct.Add(1)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	t.Cleanup(func() { plain.Close(); secure.Close() })
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	sender := webhook.NewSender(webhook.SenderConfig{Guard: loopback(), Timeout: 5 * time.Second, ConnsPerHost: 10, Proxy: proxy, Roots: roots})
	t.Cleanup(sender.Close)
	for _, target := range []string{plain.URL, secure.URL, plain.URL, secure.URL} {
		if resp := sender.Send(t.Context(), webhook.Request{URL: target, ID: "evt_1", Body: []byte("{}")}); resp.Status != http.StatusNoContent {
			t.Errorf("%s: %d %v (%v)", target, resp.Status, resp.Err, resp.Details())
		}
	}
	if got.Load() != 4 || direct.Load() != 0 {
		t.Errorf("%d webhooks, %d of them past the proxy", got.Load(), direct.Load())
	}

	strict := webhook.NewSender(webhook.SenderConfig{Guard: webhook.NewGuard(webhook.Policy{AllowHTTP: true}), Timeout: 5 * time.Second, Proxy: proxy, Roots: roots})
	t.Cleanup(strict.Close)
	for _, target := range []string{plain.URL, secure.URL, "http://localhost:" + plain.URL[strings.LastIndexByte(plain.URL, ':')+1:], "http://169。254。169。254/"} {
		if resp := strict.Send(t.Context(), webhook.Request{URL: target}); !errors.Is(resp.Err, webhook.ErrForbidden) || resp.Class() != "forbidden" {
			t.Errorf("%s through the proxy: %d %v", target, resp.Status, resp.Err)
		}
	}
	if got.Load() != 4 {
		t.Error("a forbidden target was reached through the proxy")
	}

	stop()
	for _, target := range []string{plain.URL, secure.URL} {
		resp := sender.Send(t.Context(), webhook.Request{URL: target, ID: "evt_1", Body: []byte("{}")})
		if !resp.ProxyFailed() || resp.Class() != "proxy" || strings.Contains(resp.Err.Error(), proxy.Host) {
			t.Errorf("%s without the proxy: %s, %v", target, resp.Class(), resp.Err)
		}
	}
}

// A receiver that a working proxy cannot connect to is to blame itself, so that its breaker opens.
func TestReceiversThatAProxyCannotReachAreToBlame(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	opened := make(chan struct{}, 1)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			go tunnel(conn, opened)
		}
	}()
	sender := webhook.NewSender(webhook.SenderConfig{Guard: loopback(), Timeout: 5 * time.Second, Proxy: &url.URL{Scheme: "http", Host: listener.Addr().String()}, Roots: roots})
	t.Cleanup(sender.Close)
	if resp := sender.Send(t.Context(), webhook.Request{URL: "https://127.0.0.1:502/"}); resp.Class() != "proxy" {
		t.Errorf("502 of a proxy that nothing is known of: %s", resp.Class())
	}
	silent := make(chan webhook.Response)
	go func() { silent <- sender.Send(t.Context(), webhook.Request{URL: "https://127.0.0.1:1/"}) }()
	<-opened // the silent one is under way
	if resp := sender.Send(t.Context(), webhook.Request{URL: server.URL}); !resp.OK() {
		t.Fatalf("%v (%v)", resp.Err, resp.Details())
	}
	if resp := sender.Send(t.Context(), webhook.Request{URL: "https://127.0.0.1:502/"}); resp.Class() != "error" || resp.ProxyFailed() {
		t.Errorf("502 of a proxy that works: %s %v", resp.Class(), resp.Err)
	}
	if resp := <-silent; resp.Class() != "timeout" || resp.ProxyFailed() {
		t.Errorf("silence of a proxy that works: %s %v", resp.Class(), resp.Err)
	}
}

// tunnel is a proxy: it answers 502 for port 502, nothing for port 1, and connects otherwise.
func tunnel(client net.Conn, silent chan<- struct{}) {
	req, err := http.ReadRequest(bufio.NewReader(client))
	switch {
	case err != nil:
	case strings.HasSuffix(req.Host, ":502"):
		_, _ = io.WriteString(client, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
	case strings.HasSuffix(req.Host, ":1"):
		silent <- struct{}{}
	default:
		upstream, err := net.Dial("tcp", req.Host)
		if err != nil {
			return
		}
		defer func() { _ = upstream.Close() }()
		_, _ = io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(upstream, client) }()
		_, _ = io.Copy(client, upstream)
	}
}
