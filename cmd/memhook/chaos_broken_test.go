package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The short form builds and runs the first two.

// brokenBuild is memhook with one line changed.
type brokenBuild struct {
	name, file, line, broken string
	rps                      float64
	finding                  string // what the checker must say
}

var brokenBuilds = []brokenBuild{
	{
		"an event is lost", "store/event_emit.go", `queued = append(queued, d.id)`, `if d.id[15]%4 != 0 { queued = append(queued, d.id) }`,
		25, "got 0 events",
	},
	{
		"a slot is used twice", "worker/poller.go", `a.sentAt = time.Now()`,
		`a.sentAt = time.Now(); _ = p.w.cfg.Memories.TaskStatus(ctx, p.account, target.upstreamID, target.uniqueID.Value())`,
		4, "the budget was exceeded",
	},
	{
		"a foreign id is told", "worker/poll_result.go", `p.Videos[i].ID = v.ID`, `p.Videos[i].ID = v.ID; if rand.IntN(5) == 0 { p.Videos[i].ID = "PI-blue-000000-0" }`,
		25, "foreign id",
	},
	{
		"a signature is wrong", "webhook/sign.go", `out.WriteString(base64.StdEncoding.EncodeToString(mac(secret, content)))`, `out.WriteString(base64.StdEncoding.EncodeToString(mac(secret, content[:len(content)-len(content)%2])))`,
		25, "not signed",
	},
	{
		"a final event is missing", "store/task_apply.go", `return []Event{{Type: EventExpired}}`, `return nil`,
		25, "got 0 events task.expired",
	},
	{
		"a webhook is sent twice", "worker/deliver.go", `result := w.attempt(ctx, lim, d, rec)`,
		`lim.takePlace(ctx); _ = w.attempt(ctx, lim, d, rec); result := w.attempt(ctx, lim, d, rec)`,
		25, "again for no reason",
	},
}

// build makes a binary in which the line is broken. The repository's files stay as they are.
func (b brokenBuild) build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	original := repository(t, b.file)
	source, err := os.ReadFile(original)
	if err != nil || strings.Count(string(source), b.line) != 1 {
		t.Fatalf("%s has the line %d times: %v", b.file, strings.Count(string(source), b.line), err)
	}
	changed, overlay, out := filepath.Join(dir, "broken.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "memhook")
	replace, _ := json.Marshal(map[string]any{"Replace": map[string]string{original: changed}})
	if err := os.WriteFile(changed, []byte(strings.Replace(string(source), b.line, b.broken, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := exec.Command("go", "build", "-overlay", overlay, "-o", out, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, text)
	}
	return out
}

// The checker of the chaos test finds what is wrong with builds that are broken on purpose.
func TestChaosFindsBrokenBuilds(t *testing.T) {
	t.Parallel()
	for _, b := range brokenBuilds[:pick(2, len(brokenBuilds))] {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			c := newChaos(t, b.build(t), 1, b.rps)
			c.run(12*time.Second, b.rps/4, false)
			c.settle(40 * time.Second)
			v := c.check()
			found := 0
			for _, w := range v.wrong {
				if strings.Contains(w, b.finding) {
					found++
				}
			}
			t.Logf("%d tasks, %d findings, %d of them %q", len(c.tasks), len(v.wrong), found, b.finding)
			if found == 0 {
				t.Errorf("the checker does not find it: %v", v.wrong)
			}
		})
	}
}
