package app

import (
	"runtime"
	"testing"
)

// The collector's limit is fixed while little is alive and gives way to what is: a limit just above it would have
// the collector run without end.
func TestTheMemoryLimitGivesWay(t *testing.T) {
	if got := fittedLimit(20<<20, 30<<20); got != memoryLimit {
		t.Errorf("with little alive: %d MiB", got>>20)
	}
	held := make([]byte, 200<<20)
	for i := 0; i < len(held); i += 4096 {
		held[i] = 1
	}
	runtime.GC()
	live, other := memoryUse()
	runtime.KeepAlive(held)
	if live < 200<<20 {
		t.Fatalf("200 MiB are alive at the least, not %d MiB", live>>20)
	}
	if limit := fittedLimit(live, other); limit < int64(2*live) {
		t.Errorf("%d MiB are alive, the limit is %d MiB", live>>20, limit>>20)
	}
}
