package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/memhook/memhook/memories/memoriestest"
)

// The Python client registers, waits, verifies, resends and tells problems apart, against the real binary.
func TestThePythonClient(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	in := b.start("")
	b.sim.Add(readyAfter("py-task", 0, "PI-1"))
	b.sim.Add(memoriestest.Task{TaskID: "never"})
	drive := exec.CommandContext(t.Context(), "python3", "testdata/drive.py")
	drive.Env = append(os.Environ(), "BASE="+in.url, "API_KEY="+testAPIKey, "CLIENT="+repository(t, "clients/python"))
	out, err := drive.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "driven" {
		t.Fatalf("%v: %s", err, out)
	}
}
