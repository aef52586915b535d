package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/webhook"
)

// verdict is what the checker finds. It reads the simulator's and the receivers' own logs and the API, and
// nothing of memhook's insides.
type verdict struct {
	wrong      []string
	events     int
	webhooks   int
	inFeed     int            // events
	duplicates map[string]int // by their reason
	sim        memoriestest.Stats
}

func (v *verdict) addf(format string, args ...any) {
	v.wrong = append(v.wrong, fmt.Sprintf(format, args...))
}

// settle waits until nothing is waiting or on its way any more.
func (c *chaos) settle(patience time.Duration) (settled bool) {
	none := func(path string) bool { // asked of the lists: the counts of /admin/v1/stats may be old on a busy machine
		var list struct{ Data []json.RawMessage }
		status, answer := c.call(testAdminToken, http.MethodGet, path, nil)
		return status == http.StatusOK && json.Unmarshal(answer, &list) == nil && len(list.Data) == 0
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		if none("/admin/v1/tasks?limit=1&status=waiting") && none("/admin/v1/deliveries?limit=1&status=pending") && c.complete() {
			return true
		}
	}
	return false
}

// complete tells whether every list that grows has been told whole.
func (c *chaos) complete() bool {
	for _, task := range c.tasks {
		if task.fate != "growing" {
			continue
		}
		for _, r := range task.receivers {
			if told := toldOf(r.all(), task.id); len(told.ids) < len(task.videos) {
				return false
			}
		}
	}
	return true
}

// told is what a receiver has heard of a task.
type told struct {
	ids   []string            // the longest list
	types map[string][]string // webhook-ids by event type, each once
	of    map[string]string   // the task's id in memhook, by webhook-id
}

func toldOf(got []received, task string) told {
	out := told{types: make(map[string][]string), of: make(map[string]string)}
	for _, g := range got {
		if g.task.TaskID != task {
			continue
		}
		if !slices.Contains(out.types[g.event.Type], g.id) {
			out.types[g.event.Type], out.of[g.id] = append(out.types[g.event.Type], g.id), g.task.ID
		}
		if len(g.task.VideoIDs) > len(out.ids) {
			out.ids = g.task.VideoIDs
		}
	}
	return out
}

func (c *chaos) check() *verdict {
	c.t.Helper()
	v := &verdict{duplicates: make(map[string]int)}
	resp, err := http.Get(c.simURL + "/control/stats")
	if err != nil {
		c.t.Fatal(err)
	}
	raw, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err := json.Unmarshal(raw, &v.sim); err != nil {
		c.t.Fatal(err)
	}
	for _, at := range v.sim.ViolatedAt {
		// A process that is stopped in the moment of sending may send that one request when it wakes up.
		if harms := c.around(at); !strings.Contains(harms, harmStop) {
			v.addf("the budget was exceeded after %.1f s%s", at.Sub(c.begin).Seconds(), harms)
		}
	}
	for _, app := range c.apps {
		secrets := c.secrets(app)
		for _, r := range app.receivers {
			c.checkReceiver(v, app, r, secrets[r.hook()])
			c.explainDuplicates(v, app, r)
		}
	}
	for _, task := range c.tasks {
		checkTask(v, task)
	}
	c.checkFeed(v)
	for _, in := range c.instances {
		if _, race, found := strings.Cut(in.log.String(), "WARNING: DATA RACE"); found {
			v.addf("%s has a data race:%.2000s", in.addr, race)
		}
	}
	return v
}

// secrets reads the signing secrets of an app's endpoints, by URL.
func (c *chaos) secrets(app *chaosApp) map[string]string {
	c.t.Helper()
	var list struct{ Data []struct{ ID, URL string } }
	_, answer := c.call(app.key, http.MethodGet, "/v1/endpoints", nil)
	if err := json.Unmarshal(answer, &list); err != nil {
		c.t.Fatalf("endpoints: %v %s", err, answer)
	}
	out := make(map[string]string)
	for _, ep := range list.Data {
		var secret struct{ Secret string }
		_, answer := c.call(app.key, http.MethodGet, "/v1/endpoints/"+ep.ID+"/secret", nil)
		if err := json.Unmarshal(answer, &secret); err != nil {
			c.t.Fatalf("secret: %v %s", err, answer)
		}
		out[ep.URL] = secret.Secret
	}
	if len(out) > len(app.receivers) {
		c.t.Errorf("%s has %d endpoints of %d receivers", app.name, len(out), len(app.receivers))
	}
	return out
}

// checkReceiver judges what one receiver got: signed, its own, and nothing of anybody else's.
func (c *chaos) checkReceiver(v *verdict, app *chaosApp, r *chaosReceiver, secret string) {
	for _, astray := range r.astray {
		v.addf("%s: %s", r.name, astray)
	}
	seen := make(map[string]bool)
	for _, got := range r.all() {
		v.webhooks++
		if !seen[got.id] {
			v.events++
		}
		seen[got.id] = true
		verifier, err := standardwebhooks.NewWebhook(secret)
		if err != nil || verifier.VerifyIgnoringTimestamp(got.body, got.header) != nil {
			v.addf("%s: %s of %s is not signed by its secret", r.name, got.event.Type, got.task.TaskID)
		}
		if got.event.Type == webhook.Test {
			continue
		}
		if !strings.HasPrefix(got.task.TaskID, app.name+"-") || got.task.Metadata["app"] != app.name {
			v.addf("%s got what is not its own: %s", r.name, got.body)
		}
		for _, id := range got.task.VideoIDs {
			if !strings.HasPrefix(id, "PI-"+got.task.TaskID+"-") {
				v.addf("%s was told the foreign id %s of %s", r.name, id, got.task.TaskID)
			}
		}
	}
}

// checkTask judges whether every subscriber of a task has heard what became of it, each event under one id.
func checkTask(v *verdict, task *chaosTask) {
	want := []string{webhook.TaskReady}
	switch task.fate {
	case "never":
		want = []string{webhook.TaskExpired}
	case "indexed":
		want = append(want, webhook.TaskIndexed)
	case "failed":
		want = []string{webhook.TaskFailed}
	}
	// Who registers a task that has failed or expired starts it anew, under another id, and with events of its own.
	ends := task.fate == "never" || task.fate == "failed"
	ids := make(map[string]string) // by event type and the task's id in memhook
	for _, r := range task.receivers {
		told := toldOf(r.all(), task.id)
		for _, eventType := range want {
			got := told.types[eventType]
			if len(got) == 0 || len(got) > 1 && !ends {
				v.addf("%s (%s): %s got %d events %s, want one", task.id, task.fate, r.name, len(got), eventType)
				continue
			}
			for _, id := range got {
				once := eventType + told.of[id]
				if ids[once] == "" {
					ids[once] = id
				}
				if ids[once] != id {
					v.addf("%s (%s): %s came under two ids", task.id, task.fate, eventType)
				}
			}
		}
		for _, eventType := range []string{webhook.TaskReady, webhook.TaskIndexed, webhook.TaskFailed, webhook.TaskExpired} {
			if !slices.Contains(want, eventType) && len(told.types[eventType]) > 0 {
				v.addf("%s (%s): %s got %s, which is not so", task.id, task.fate, r.name, eventType)
			}
		}
		if !slices.Equal(told.ids, task.videos) {
			v.addf("%s (%s): %s was told %v, want %v", task.id, task.fate, r.name, told.ids, task.videos)
		}
	}
}

// Whatever happens to the instances, the database, memories.ai and the receivers: every subscriber hears what
// became of its tasks, and nothing else. A seed that fails replays its faults with -chaos-seed. The short form
// runs instances with the race detector, the long form some whose clock is wrong.
func TestChaos(t *testing.T) {
	t.Parallel()
	seed := *chaosSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	build := raceBinary
	if long {
		build = skewableBinary
	}
	// With six a second, what the budget allows in a second and what it must not are 180 ms apart: what a busy machine
	// makes of requests that were sent in time does not count as a violation.
	c := newChaos(t, build(t), seed, 6)
	c.run(pick(80*time.Second, 20*time.Minute), 3, (*chaos).fault)
	healed := time.Now()
	if !c.settle(pick(3*time.Minute, 7*time.Minute)) {
		t.Error("something is still waiting or on its way")
	}
	t.Logf("faults and load for %.0f s, then settled within %.0f s", healed.Sub(c.begin).Seconds(), time.Since(healed).Seconds())
	c.report(c.check(), seed)
	if t.Failed() {
		for _, in := range c.instances {
			lines := strings.Split(in.log.String(), "\n")
			t.Logf("the end of the log of %s:\n%s", in.addr, strings.Join(lines[max(0, len(lines)-60):], "\n"))
		}
	}
}

// raceBinary builds memhook with the race detector.
func raceBinary(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "memhook")
	if text, err := exec.Command("go", "build", "-race", "-o", out, ".").CombinedOutput(); err != nil {
		t.Fatalf("build with the race detector: %v: %s", err, text)
	}
	return out
}
