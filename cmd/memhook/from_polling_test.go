package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
)

// What docs/from-polling.md says an app does now is run as it stands there.
func TestFromPolling(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(repository(t, "docs/from-polling.md"))
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, m := range regexp.MustCompile("(?s)```(python|ts)\n(# |// )after: ([a-z0-9]+)\n(.*?)```").FindAllStringSubmatch(string(raw), -1) {
		ran++
		language, api, program := m[1], m[3], m[4]
		t.Run(language+" "+api, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, memoriestest.Config{Draw: soon})
			b.fast()
			if api == "datalake" {
				b.env["MEMORIES_API_KEY"] = "sk-mai-test"
			}
			in := b.start("")
			file, command := filepath.Join(t.TempDir(), "after.mjs"), "node" // without types TypeScript is JavaScript
			if language == "python" {
				file, command = filepath.Join(t.TempDir(), "after.py"), "python3"
			}
			if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(command, file)
			cmd.Env = append(os.Environ(), "MEMHOOK_URL="+in.url, "MEMHOOK_API_KEY="+testAPIKey, "CALLBACK_URL="+b.receiver.URL)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			got := b.receiver.await(t, 1, 20*time.Second)[0]
			if u := in.uploaded(strings.TrimSpace(string(out))); u.Status != "submitted" || got.task.Metadata["order"] != "42" {
				t.Errorf("%+v, event %s", u, got.body)
			}
		})
	}
	if ran != 2 {
		t.Errorf("%d programs were found, want 2", ran)
	}
}
