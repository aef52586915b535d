package outbound_test

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/memhook/memhook/internal/outbound"
	"github.com/memhook/memhook/internal/outbound/badpeers"
)

// Whatever a peer does, an exchange ends within its time-out and a second, says what happened, and leaves neither a
// goroutine nor a socket. (This test runs beside no other, since it counts goroutines and sockets.)
func TestNoPeerHoldsAnExchange(t *testing.T) { //nolint:paralleltest // see above
	const timeout = time.Second
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	peers := badpeers.Peers()
	if len(peers) < 40 {
		t.Fatalf("%d peers, want at least 40", len(peers))
	}
	exchanges := 0
	for _, over := range []badpeers.Transport{badpeers.Plain, badpeers.TLS, badpeers.ALPN} {
		var running sync.WaitGroup
		for _, peer := range peers {
			if !slices.Contains(peer.Over, over) {
				continue
			}
			exchanges++
			running.Go(func() {
				server, err := peer.Serve(over)
				if err != nil {
					t.Error(err)
					return
				}
				defer server.Close()
				client := outbound.New(outbound.Config{
					Timeout: timeout, MaxHeader: 32 << 10, MaxBody: 4 << 10, MaxIdle: 10, MaxIdlePerHost: 10, Resend: true, Roots: server.Roots,
				})
				body := make([]byte, 100)
				if peer.Unread() {
					body = make([]byte, 4<<20) // more than the sockets hold
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, bytes.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				start := time.Now()
				resp, err := client.Do(t.Context(), req)
				took := time.Since(start)
				if took > timeout+time.Second {
					t.Errorf("%s (%s): %s", peer.Name, over, took)
				}
				checkOutcome(t, peer, over, resp, err)
				client.Close()
				if !server.Abandoned(badpeers.Unread + time.Second) {
					t.Errorf("%s (%s): a connection is left", peer.Name, over)
				}
			})
		}
		running.Wait()
	}
	t.Logf("%d peers, %d exchanges", len(peers), exchanges)
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > goroutines || openFiles(t) > files; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines (%d before), %d files (%d before):\n%s",
				runtime.NumGoroutine(), goroutines, openFiles(t), files, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

func checkOutcome(t *testing.T, peer badpeers.Peer, over badpeers.Transport, resp *outbound.Response, err error) {
	t.Helper()
	fault, failed := errors.AsType[*outbound.Error](err)
	switch {
	case peer.Status != 0 && (resp == nil || resp.Status != peer.Status):
		t.Errorf("%s (%s): %+v %v (%v), want status %d", peer.Name, over, resp, err, errors.Unwrap(err), peer.Status)
	case peer.Status == 0 && (!failed || fault.Kind != peer.Kind):
		t.Errorf("%s (%s): %+v %v (%v), want %q", peer.Name, over, resp, err, errors.Unwrap(err), peer.Kind)
	}
}

// openFiles counts this process's file descriptors; 0 where the system does not tell.
func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(list)
}
