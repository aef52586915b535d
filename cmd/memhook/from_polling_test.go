package main

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
)

// The programs of docs/from-polling.md are run as they stand there: those from before with memories.ai alone, those from after with
// memhook.
func TestFromPolling(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(repository(t, "docs/from-polling.md"))
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	programs := regexp.MustCompile("(?s)```(python|ts)\n(?:# |// )(before|after): ([a-z0-9]+)\n(.*?)```")
	for _, m := range programs.FindAllStringSubmatch(string(raw), -1) {
		ran++
		language, side, api, program := m[1], m[2], m[3], m[4]
		t.Run(side+" "+language+" "+api, func(t *testing.T) {
			t.Parallel()
			// The first poll finds nothing.
			b := newBench(t, memoriestest.Config{Draw: func(*rand.Rand) (time.Duration, int) { return time.Second, 1 }})
			b.fast()
			if api == "datalake" {
				b.env["MEMORIES_API_KEY"] = "sk-mai-test"
			}
			run := func(env ...string) string {
				file, command := filepath.Join(t.TempDir(), "program.mjs"), "node" // without types TypeScript is JavaScript
				if language == "python" {
					file, command = filepath.Join(t.TempDir(), "program.py"), "python3"
				}
				if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
					t.Fatal(err)
				}
				cmd := exec.CommandContext(t.Context(), command, file)
				cmd.Env = append(os.Environ(), env...)
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				return strings.TrimSpace(string(out))
			}
			if side == "before" {
				out := run("MEMORIES_BASE_URL="+b.env["MEMORIES_BASE_URL"], "MEMORIES_API_KEY="+b.env["MEMORIES_API_KEY"])
				if st := b.sim.Stats(); !regexp.MustCompile(`^PI-\d+$`).MatchString(out) || st.Requests != 2 || len(b.sim.Uploads()) != 1 {
					t.Errorf("it says %q after %d polls of %d uploads", out, st.Requests, len(b.sim.Uploads()))
				}
				return
			}
			in := b.start("")
			id := run("MEMHOOK_URL="+in.url, "MEMHOOK_API_KEY="+testAPIKey, "CALLBACK_URL="+b.receiver.URL)
			got := b.receiver.await(t, 1, 20*time.Second)[0]
			if u := in.uploaded(id); u.Status != "submitted" || got.task.Metadata["order"] != "42" {
				t.Errorf("%+v, event %s", u, got.body)
			}
		})
	}
	if ran != 8 {
		t.Errorf("%d programs were found, want 8", ran)
	}
}
