package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/memhook/memhook/memories/memoriestest"
)

// toldAlerts returns the states that a receiver of alerts was told of a subject's kind, and their sentences.
func toldAlerts(t *testing.T, alerts *receiver, kind string) (states []string, said string) {
	t.Helper()
	for _, r := range alerts.all() {
		var a struct {
			Data struct{ Subject, State, Summary string }
		}
		if err := json.Unmarshal(r.body, &a); err != nil {
			t.Errorf("%v: %s", err, r.body)
		}
		if strings.HasPrefix(a.Data.Subject, kind) {
			states, said = append(states, a.Data.State), said+a.Data.Summary+"\n"
		}
	}
	return states, said
}

// An account that memories.ai refuses is told once, with the reason, and once when an operator has repaired it.
func TestARefusedAccountIsAnAlert(t *testing.T) {
	t.Parallel()
	alerts := newReceiver(t)
	b := newBench(t, memoriestest.Config{})
	b.env["MEMHOOK_ALERT_URL"] = alerts.URL
	b.sim.SetAccount("a", []string{"sk-mavi-test"}, 0, "0402")
	in := b.start("")
	b.start("") // a second one tells nothing twice
	b.sim.Add(readyAfter("task", 0, "PI-1"))
	in.register("task", nil)
	until(t, 30*time.Second, "the alert", func() bool { states, _ := toldAlerts(t, alerts, "account:"); return len(states) > 0 })
	b.sim.SetAccount("a", []string{"sk-mavi-test"}, 100, "")
	var accounts struct{ Data []struct{ ID string } }
	in.admin(http.MethodGet, "/admin/v1/accounts", nil, &accounts)
	in.want(http.StatusOK, testAdminToken, http.MethodPatch, "/admin/v1/accounts/"+accounts.Data[0].ID, map[string]any{"requests_per_second": 50}, nil)
	b.receiver.await(t, 1, 30*time.Second)
	until(t, 30*time.Second, "the end of it", func() bool { states, _ := toldAlerts(t, alerts, "account:"); return len(states) > 1 })
	states, said := toldAlerts(t, alerts, "account:")
	if !slices.Equal(states, []string{"refused", "active"}) || !strings.Contains(said, "credits used up") || !strings.Contains(said, "default was changed and is polled again") {
		t.Errorf("told %q:\n%s", states, said)
	}
}

// Deliveries that wait for a worker are told once, and once when they no longer wait.
func TestALateQueueIsAnAlert(t *testing.T) {
	t.Parallel()
	alerts := newReceiver(t)
	b := newBench(t, memoriestest.Config{})
	b.fast()
	b.env["MEMHOOK_ALERT_URL"] = alerts.URL
	in := b.start("")
	in.admin(http.MethodPost, "/admin/v1/deliveries/pause", nil, nil)
	in.registerAt("task", b.receiver.URL+"/")
	until(t, 20*time.Second, "its job", func() bool {
		return b.query(`select count(*)::int from river_job where kind = 'deliver_first' and state = 'available'`) == 1
	})
	b.exec(`update river_job set scheduled_at = now() - interval '5 minutes' where kind = 'deliver_first'`)
	// No worker can take the job while its row is locked, as if all were busy.
	conn, err := pgx.Connect(t.Context(), b.database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `select 1 from memhook.river_job where kind = 'deliver_first' for update`); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * 2 * time.Second) // alerts were looked for twice while the queue was paused
	if states, _ := toldAlerts(t, alerts, "queue:"); len(states) > 0 {
		t.Errorf("a paused queue is told: %q", states)
	}
	in.admin(http.MethodPost, "/admin/v1/deliveries/resume", nil, nil)
	until(t, 20*time.Second, "the alert", func() bool { states, _ := toldAlerts(t, alerts, "queue:"); return len(states) > 0 })
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, 30*time.Second, "the end of it", func() bool { states, _ := toldAlerts(t, alerts, "queue:"); return len(states) > 1 })
	if states, said := toldAlerts(t, alerts, "queue:"); !slices.Equal(states, []string{"late", "in time"}) || !strings.Contains(said, "the oldest for 5m") {
		t.Errorf("told %q:\n%s", states, said)
	}
}
