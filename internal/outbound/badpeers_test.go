package outbound_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/memhook/memhook/internal/outbound"
	"github.com/memhook/memhook/internal/outbound/badpeers"
)

// Every exchange with a peer that misbehaves ends in time, says what came of it, and leaves no goroutine and no socket.
// It does not run in parallel, since it counts those of the whole process.
func TestBadPeersEndInTimeAndLeaveNothing(t *testing.T) { //nolint:paralleltest // see above
	const timeout = 2 * time.Second
	authority := badpeers.NewAuthority()
	servers := badpeers.StartAll(t, authority)
	if len(servers) < 100 {
		t.Fatalf("%d peers", len(servers))
	}
	sockets := func() int {
		n := openFiles(t)
		for _, s := range servers {
			n -= s.Open()
		}
		return n
	}
	socketsBefore := sockets()
	client := outbound.New(outbound.Config{
		Timeout: timeout, MaxHeader: 32 << 10, MaxBody: 4 << 10, MaxIdle: 1000, MaxIdlePerHost: 10, Roots: authority.Pool(), Resend: true,
	})
	var exchanges sync.WaitGroup
	turns := make(chan struct{}, 40) // two cores are enough for the endless ones
	for _, s := range servers {
		body := "{}"
		if s.Peer.LargeRequest {
			body = strings.Repeat("x", 8<<20)
		}
		req := post(t, s.URL, body)
		turns <- struct{}{}
		exchanges.Go(func() {
			defer func() { <-turns }()
			start := time.Now()
			resp, err := client.Do(t.Context(), req)
			took := time.Since(start)
			status, kind := 0, outbound.Kind("")
			if e, ok := err.(*outbound.Error); ok { //nolint:errorlint // Do's own
				kind = e.Kind
			}
			if resp != nil {
				status = resp.Status
				if resp.Broken != nil {
					kind = resp.Broken.Kind
				}
			}
			if status != s.Peer.Status || kind != s.Peer.Kind {
				t.Errorf("%s: %d %q (%v), want %d %q", s.Peer.Name, status, kind, cause(resp, err), s.Peer.Status, s.Peer.Kind)
			}
			if took > timeout+time.Second {
				t.Errorf("%s: took %s", s.Peer.Name, took)
			}
			if s.Accepted() > 1 {
				t.Errorf("%s: %d connections for one request", s.Peer.Name, s.Accepted())
			}
		})
	}
	exchanges.Wait()
	client.Close()
	within(t, "the client's goroutines have ended", func() bool { return !strings.Contains(stacks(), "outbound.(*Client)") })
	within(t, fmt.Sprintf("%d files are open as before", socketsBefore), func() bool { return sockets() == socketsBefore })
}

// What can be used again is, and what cannot be is closed before anything else goes over it.
func TestBadPeersKeepOnlyWhatCanBeUsedAgain(t *testing.T) {
	t.Parallel()
	authority := badpeers.NewAuthority()
	client := newClient(t, func(c *outbound.Config) { c.Roots, c.Resend, c.Timeout = authority.Pool(), true, 2*time.Second })
	for _, s := range badpeers.StartAll(t, authority) {
		if s.Peer.Status == 0 {
			continue
		}
		body := "{}"
		if s.Peer.LargeRequest {
			body = strings.Repeat("x", 8<<20)
		}
		req := post(t, s.URL, body)
		if _, err := client.Do(t.Context(), req); err != nil {
			t.Errorf("%s: %v", s.Peer.Name, err)
		}
		if kept := client.Idle(s.URL) == 1; kept != s.Peer.Keeps {
			t.Errorf("%s: kept: %t", s.Peer.Name, kept)
		}
	}
}

func cause(resp *outbound.Response, err error) error {
	if resp != nil && resp.Broken != nil {
		err = resp.Broken
	}
	if e, ok := err.(*outbound.Error); ok { //nolint:errorlint // Do's own
		return e.Err
	}
	return err
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("open files are counted on Linux only")
	}
	return len(entries)
}

func stacks() string {
	buf := make([]byte, 8<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("not within 3 s: %s", what)
			return
		}
	}
}
