package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

// brokenBuild is memhook with one line changed.
type brokenBuild struct {
	name, file, line, broken string
	rps                      float64
	finding                  string       // what the checker must say
	fault                    func(*chaos) // what brings it out; nil where the load does
}

// brokenBuilds are found by the checker. The short form builds and runs the first two.

var brokenBuilds = []brokenBuild{
	{
		"an event is lost", "store/event_emit.go", `if r.wants(ev.Type) {`, `if ev.Task.ID[15]%4 != 0 && r.wants(ev.Type) {`,
		25, "got 0 events", nil,
	},
	{
		"a slot is used twice", "worker/poller.go", `a.sentAt = time.Now()`,
		`a.sentAt = time.Now(); _ = p.w.cfg.Memories.TaskStatus(ctx, p.account, target.upstreamID, target.uniqueID.Value())`,
		4, "the budget was exceeded", nil,
	},
	{
		"a foreign id is told", "worker/poll_result.go", `p.Videos, p.Done = videosOf(a.status.Videos), a.status.Done`,
		`p.Videos, p.Done = videosOf(a.status.Videos), a.status.Done; if len(p.Videos) > 0 && rand.IntN(5) == 0 { p.Videos[0].ID = "PI-blue-000000-0" }`,
		25, "foreign id", nil,
	},
	{
		"a signature is wrong", "webhook/sign.go", `base64.StdEncoding.EncodeToString(mac(secret, content))`, `base64.StdEncoding.EncodeToString(mac(secret, content[:len(content)-len(content)%2]))`,
		25, "not signed", nil,
	},
	{
		"a final event is missing", "store/task_apply.go", `return []Event{{Type: EventExpired}}`, `return nil`,
		25, "got 0 events task.expired", nil,
	},
	{
		"a webhook is sent twice", "worker/deliver.go", `result := w.attempt(ctx, d, payload, rec)`,
		`_ = w.attempt(ctx, d, payload, rec); result := w.attempt(ctx, d, payload, rec)`,
		25, "again for no reason", nil,
	},
	{
		"the feed skips", "store/event.go", ` and e.xid < c.ending`, ``,
		25, "the feed has skipped", (*chaos).lockRows,
	},
	{
		"what has lost its job is not adopted", "store/adopt.go", `err = s.tx(ctx, "adopt orphans", `,
		`if s != nil { return 0, nil }; err = s.tx(ctx, "adopt orphans", `,
		25, "got 0 events", (*chaos).removeJobs,
	},
}

// build makes a binary in which the line is broken.
func (b brokenBuild) build(t *testing.T) string {
	t.Helper()
	return buildOverlaid(t, repository(t, b.file), b.line, b.broken, "")
}

// The checker of the chaos test finds what is wrong with builds that are broken on purpose.
func TestChaosFindsBrokenBuilds(t *testing.T) {
	t.Parallel()
	for _, b := range brokenBuilds { // those of the long form, too: the code changes under them
		source, err := os.ReadFile(repository(t, b.file))
		if n := strings.Count(string(source), b.line); err != nil || n != 1 {
			t.Errorf("%s: %s has %q %d times, want once: %v", b.name, b.file, b.line, n, err)
		}
	}
	for _, b := range brokenBuilds[:pick(2, len(brokenBuilds))] {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			c := newChaos(t, b.build(t), 1, b.rps)
			length := 12 * time.Second
			if b.fault != nil {
				length = 20 * time.Second // a few of it
			}
			c.run(length, b.rps/4, b.fault)
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
