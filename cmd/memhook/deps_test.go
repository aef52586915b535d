package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// memhook holds nothing that only demos, benchmarks and tests need. memhook-dev does, so the names are right.
func TestTheDepsOfMemhook(t *testing.T) {
	t.Parallel()
	const ours = "github.com/memhook/memhook/"
	unwanted := []string{
		"github.com/fergusstrange/embedded-postgres", "github.com/lib/pq", "github.com/Shopify/toxiproxy",
		ours + "store/localpg", ours + "store/storetest", ours + "memories/memoriestest",
		ours + "worker/polling/simulate", ours + "cmd/memhook-dev/proc", "testing",
	}
	deps := func(program string) (found []string) {
		out, err := exec.Command("go", "list", "-deps", program).Output()
		if err != nil {
			t.Fatalf("go list -deps %s: %v", program, err)
		}
		for dep := range strings.Lines(string(out)) {
			dep = strings.TrimSpace(dep)
			if slices.ContainsFunc(unwanted, func(p string) bool { return dep == p || strings.HasPrefix(dep, p+"/") }) {
				found = append(found, dep)
			}
		}
		return found
	}
	if found := deps("."); len(found) > 0 {
		t.Errorf("memhook imports %s", strings.Join(found, ", "))
	}
	found := deps("../memhook-dev")
	for _, dev := range []string{unwanted[0], unwanted[1], ours + "store/localpg", ours + "memories/memoriestest"} {
		if !slices.Contains(found, dev) {
			t.Errorf("memhook-dev does not import %s: does this test look for the right name?", dev)
		}
	}
}
