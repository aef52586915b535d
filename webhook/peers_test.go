package webhook_test

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/memhook/memhook/internal/outbound/badpeers"
	"github.com/memhook/memhook/webhook"
)

// loopback is the guard of tests: it permits this machine.
func loopback() *webhook.Guard {
	return webhook.NewGuard(webhook.Policy{AllowHTTP: true, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
}

// inside matches what an attempt's error must not show: addresses, and the words of Go's errors around them.
var inside = regexp.MustCompile(`\d+\.\d+\.\d+\.\d+|:\d\d|dial|lookup|tcp|context|EOF|x509|syscall`)

// Whatever a receiver does, an attempt ends in time, with the receiver's status or with words that its owner understands.
func TestAttemptsAtMisbehavingReceivers(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	var running sync.WaitGroup
	for _, peer := range badpeers.Peers() {
		over := badpeers.Plain
		if !slices.Contains(peer.Over, over) {
			over = peer.Over[0]
		}
		server := peer.Start(t, over)
		running.Go(func() {
			sender := webhook.NewSender(webhook.SenderConfig{Guard: loopback(), Timeout: timeout, UserAgent: "test", ConnsPerHost: 10, Roots: server.Roots})
			defer sender.Close()
			resp := sender.Send(t.Context(), webhook.Request{URL: server.URL, ID: "evt_1", Body: []byte(strings.Repeat("x", 4<<10))})
			if resp.Duration > timeout+time.Second {
				t.Errorf("%s: %s", peer.Name, resp.Duration)
			}
			delivered := peer.Status >= 200 && peer.Status < 300
			if resp.Status != peer.Status || resp.OK() != delivered || delivered && resp.Err != nil {
				t.Errorf("%s: status %d, accepted %t, %v; want %d", peer.Name, resp.Status, resp.OK(), resp.Err, peer.Status)
			}
			class := classOf(peer)
			if resp.Class() != class {
				t.Errorf("%s: class %q, want %q", peer.Name, resp.Class(), class)
			}
			if peer.Status == 0 && (resp.Err == nil || resp.Err.Error() != string(peer.Kind) || inside.MatchString(resp.Err.Error())) {
				t.Errorf("%s: the owner is told %q, want %q", peer.Name, resp.Err, peer.Kind)
			}
		})
	}
	running.Wait()
}

func classOf(peer badpeers.Peer) string {
	switch {
	case peer.Status != 0:
		return strconv.Itoa(peer.Status/100) + "xx"
	case strings.HasPrefix(string(peer.Kind), "time-out"):
		return "timeout"
	default:
		return "error"
	}
}
