package main

import (
	"bufio"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/memhook/memhook/internal/outbound/badpeers"
	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/webhook"
)

// A TLS proxy in front of a receiver goes silent on the connections that exist. The next attempt of each webhook is
// delivered, and six endpoints of that host lose one time-out each at most.
func TestSilentConnectionsLoseOneAttemptAtMost(t *testing.T) {
	t.Parallel()
	const endpoints = 6
	r := newReceiver(t)
	server := httptest.NewUnstartedServer(r)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	proxy := badpeers.NewSilencer(t, server.Listener.Addr().String())
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, memoriestest.Config{})
	b.fast()
	b.env["MEMHOOK_CALLBACK_CA"] = ca
	b.env["MEMHOOK_DELIVERY_TIMEOUT"] = "2s"
	b.env["MEMHOOK_RETRY_SCHEDULE"] = "200ms,200ms,5m"
	in := b.start("")
	round := func(name string) {
		for i := range endpoints {
			in.registerAt(fmt.Sprintf("%s-%d", name, i), fmt.Sprintf("https://%s/%d", proxy.Addr, i))
		}
	}
	round("before")
	r.await(t, endpoints, 10*time.Second)
	connections := proxy.Silence()
	for i := range 5 {
		round(fmt.Sprintf("after-%d", i))
	}
	r.await(t, 6*endpoints, 20*time.Second)
	until(t, 20*time.Second, "all is recorded", func() bool {
		return b.query(`select count(*)::int from deliveries where status = 'delivered'`) == 6*endpoints
	})
	if n := b.query(`select coalesce(max(attempt_count), 0)::int from deliveries`); n > 2 {
		t.Errorf("a webhook took %d attempts", n)
	}
	lost := b.query(`select count(*)::int from attempts where outcome = 'failed'`)
	t.Logf("%d connections went silent: %d attempts were lost", connections, lost)
	if lost == 0 || lost > endpoints {
		t.Errorf("%d attempts were lost, want 1 to %d", lost, endpoints)
	}
}

// closing answers each webhook, keeps the connection for a moment as if for more, and closes it.
func closing(t *testing.T, after time.Duration) (url string, seen func() map[string]int) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	var mu sync.Mutex
	ids := make(map[string]int)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				req, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, req.Body)
				mu.Lock()
				ids[req.Header.Get(webhook.HeaderID)]++
				mu.Unlock()
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				time.Sleep(after)
			}()
		}
	}()
	return "http://" + listener.Addr().String() + "/", func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(ids)
	}
}

// Receivers that close the connections that they seemed to keep get each webhook once, and no attempt fails.
func TestReceiversThatCloseTheirConnectionsLoseNothing(t *testing.T) {
	t.Parallel()
	const each = 1000
	b := newBench(t, memoriestest.Config{})
	b.fast()
	in := b.start("")
	var registering sync.WaitGroup
	seen := make(map[time.Duration]func() map[string]int)
	for _, after := range []time.Duration{0, 3 * time.Millisecond, 20 * time.Millisecond} {
		url, got := closing(t, after)
		seen[after] = got
		registering.Go(func() {
			for i := range each {
				in.registerAt(fmt.Sprintf("%s-%d", after, i), url)
			}
		})
	}
	registering.Wait()
	until(t, 60*time.Second, "all are delivered", func() bool {
		return b.query(`select count(*)::int from deliveries where status = 'delivered'`) == 3*each
	})
	for after, got := range seen {
		twice, ids := 0, got()
		for _, n := range ids {
			twice += n - 1
		}
		if len(ids) != each || twice != 0 {
			t.Errorf("%s: %d webhooks, %d received again", after, len(ids), twice)
		}
	}
	if n := b.query(`select count(*)::int from attempts where outcome <> 'delivered'`); n != 0 {
		t.Errorf("%d attempts failed", n)
	}
}
