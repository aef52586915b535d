package app

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A service has a small live heap and makes much garbage. Collecting less often saves CPU, as long as the
// process stays below a memory limit.
const (
	gcPercent   = 300
	memoryLimit = 115 << 20 // bytes
	// memoryInterval is how often the limit is fitted to the live heap.
	memoryInterval = time.Second
)

// TuneMemory sets the garbage collector's target and memory limit for a service until ctx ends. It raises
// the limit as the live heap grows: a limit just above the live heap would make the collector run all the
// time.
func TuneMemory(ctx context.Context) {
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit)
	ticker := time.NewTicker(memoryInterval)
	defer ticker.Stop()
	for last := int64(memoryLimit); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if limit := fittedLimit(memoryUse()); limit != last {
			debug.SetMemoryLimit(limit)
			last = limit
		}
	}
}

// fittedLimit returns the memory limit in bytes for a live heap and other memory of these sizes. It leaves
// room for as much garbage as there is live heap.
func fittedLimit(live, other uint64) int64 {
	return max(memoryLimit, int64(other+2*live))
}

// memoryUse returns the bytes that were live on the heap at the last collection, and those of stacks and
// of the runtime.
func memoryUse() (live, other uint64) {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(samples)
	other = samples[1].Value.Uint64()
	for _, s := range samples[2:] {
		other -= s.Value.Uint64()
	}
	return samples[0].Value.Uint64(), other
}
