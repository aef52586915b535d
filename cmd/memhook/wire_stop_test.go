package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/memhook/memhook/internal/outbound/badpeers"
	"github.com/memhook/memhook/memories/memoriestest"
)

// SIGTERM ends the process within MEMHOOK_SHUTDOWN_TIMEOUT while receivers hold attempts that may take longer. The attempts
// that are cut short are not counted, and their webhooks wait for the next instance.
func TestStoppingWhileReceiversHoldTheirAttempts(t *testing.T) {
	t.Parallel()
	const shutdown, hosts = 2 * time.Second, 30
	b := newBench(t, memoriestest.Config{})
	b.fast()
	b.env["MEMHOOK_DELIVERY_TIMEOUT"], b.env["MEMHOOK_SHUTDOWN_TIMEOUT"] = "60s", shutdown.String()
	var holding []badpeers.Peer
	for _, p := range worst() {
		if p.Status == 0 {
			holding = append(holding, p)
		}
	}
	in := b.start("")
	servers := make([]*badpeers.Server, hosts)
	for i := range servers {
		servers[i] = badpeers.Start(t, holding[i%len(holding)], nil)
		in.registerAt(fmt.Sprintf("held-%d", i), servers[i].URL)
	}
	for _, s := range servers {
		until(t, 20*time.Second, s.Peer.Name+" holds an attempt", func() bool { return s.Accepted() > 0 })
	}
	status, took := in.terminate(shutdown + 10*time.Second)
	t.Logf("SIGTERM: status %d after %s", status, took)
	if status != 0 || took > shutdown+shutdown/4 {
		t.Errorf("SIGTERM: status %d after %s, want 0 within %s", status, took, shutdown)
	}
	if n := b.query(`select count(*)::int from deliveries where status = 'pending' and attempt_count = 0`); n != hosts {
		t.Errorf("%d of %d webhooks wait as if they had not been tried", n, hosts)
	}
}
