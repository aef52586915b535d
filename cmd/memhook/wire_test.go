package main

import (
	"bufio"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/memhook/memhook/internal/outbound"
	"github.com/memhook/memhook/internal/outbound/badpeers"
	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/webhook"
)

// worstPeers are receivers that hold an attempt for as long as it may take, or held it for ever before.
func worstPeers(t *testing.T, n int) (out []badpeers.Peer) {
	t.Helper()
	for _, p := range badpeers.Table() {
		holds := p.Kind == outbound.TimeoutAnswer || p.Kind == outbound.TimeoutConnect || p.Kind == outbound.TimeoutRead || p.Status == http.StatusSwitchingProtocols
		if holds || strings.Contains(p.Name, "endless") {
			out = append(out, p)
		}
	}
	if len(out) < n {
		t.Fatalf("%d peers, want %d", len(out), n)
	}
	return out[:n]
}

// Thirty hosts that do the worst at once, each with twenty webhooks, harm nobody else, and SIGTERM ends the process in time.
func TestTheWorstReceiversAtOnceHarmNobodyElse(t *testing.T) {
	t.Parallel()
	const hosts, each, shutdown = 30, 20, 2 * time.Second
	b := newBench(t, memoriestest.Config{})
	b.fast()
	b.env["MEMHOOK_DELIVERY_TIMEOUT"] = "3s"
	b.env["MEMHOOK_RETRY_SCHEDULE"] = "1s,1s,1s,5m"
	b.env["MEMHOOK_SHUTDOWN_TIMEOUT"] = shutdown.String()
	peers := worstPeers(t, hosts)
	servers := make([]*badpeers.Server, hosts)
	for i, p := range peers {
		servers[i] = badpeers.Start(t, p, nil)
		servers[i].URL += "/" // the normal form
	}
	in := b.start("")
	p99 := func(name string) time.Duration {
		before, n, begin := len(b.receiver.all()), pick(300, 2000), time.Now()
		for i := range n {
			time.Sleep(time.Until(begin.Add(time.Duration(i) * 10 * time.Millisecond)))
			in.registerAt(fmt.Sprintf("%s-%d", name, i), b.receiver.URL)
		}
		all := b.receiver.await(t, before+n, 30*time.Second)[before:]
		lags := make([]time.Duration, n)
		for i, got := range all {
			lags[i] = got.at.Sub(got.event.Timestamp.Time)
		}
		slices.Sort(lags)
		return lags[n*99/100]
	}
	alone := p99("alone")
	var registering sync.WaitGroup
	for i, s := range servers {
		registering.Go(func() {
			for k := range each {
				in.registerAt(fmt.Sprintf("bad-%d-%d", i, k), s.URL)
			}
		})
	}
	registering.Wait()
	beside := p99("beside")
	t.Logf("a healthy receiver's p99: %s alone, %s beside %d hosts", alone, beside, hosts)
	if beside > pick(time.Second, 2*alone+30*time.Millisecond) {
		t.Errorf("a healthy receiver's p99: %s alone, %s beside", alone, beside)
	}

	// Each host has an attempt on record, with the outcome that it must have, and a reason in words.
	for i, p := range peers {
		outcome := "failed"
		if p.Status/100 == 2 {
			outcome = "delivered"
		}
		const of = ` from attempts a join deliveries d on d.id = a.delivery_id join endpoints e on e.id = d.endpoint_id where e.url = $1 `
		until(t, 30*time.Second, p.Name+" has an attempt", func() bool { return b.query(`select count(*)::int`+of, servers[i].URL) > 0 })
		if n := b.query(`select count(*)::int`+of+`and a.outcome <> $2`, servers[i].URL, outcome); n > 0 {
			t.Errorf("%s: %d attempts are not %s", p.Name, n, outcome)
		}
		reason := string(p.Kind)
		if outcome == "delivered" {
			reason = "" // the body's end does not matter
		}
		if n := b.query(`select count(*)::int`+of+`and coalesce(a.error, '') <> $2`, servers[i].URL, reason); n > 0 {
			var sample string
			b.scan(&sample, `select coalesce(a.error, '')`+of+`and coalesce(a.error, '') <> $2 limit 1`, servers[i].URL, reason)
			t.Errorf("%s: %d attempts say %q, want %q", p.Name, n, sample, reason)
		}
		if n := b.query(`select coalesce(max(a.duration_ms), 0)::int`+of, servers[i].URL); n > 4000 {
			t.Errorf("%s: an attempt took %d ms", p.Name, n)
		}
	}
	// SIGTERM comes while fresh ones of them all hold an attempt each.
	for i, p := range peers {
		fresh := badpeers.Start(t, p, nil)
		in.registerAt(fmt.Sprintf("fresh-%d", i), fresh.URL)
		servers[i] = fresh
	}
	until(t, 10*time.Second, "the attempts are under way", func() bool {
		return !slices.ContainsFunc(servers, func(s *badpeers.Server) bool { return s.Peer.Serve != nil && s.Accepted() == 0 })
	})
	status, took := in.terminate(shutdown + 10*time.Second)
	t.Logf("SIGTERM: status %d after %s", status, took)
	if took > shutdown+time.Second {
		t.Errorf("SIGTERM took %s, want %s", took, shutdown)
	}
}

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
	until(t, 10*time.Second, "all is recorded", func() bool {
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
		out := make(map[string]int, len(ids))
		for id, n := range ids {
			out[id] = n
		}
		return out
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
