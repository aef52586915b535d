package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// What is alive is small, and what every request leaves behind is much: letting more of it gather saves
// CPU, as long as it stays below a limit.
const (
	gcPercent   = 300
	memoryLimit = 115 << 20
	// memoryInterval is how often the limit is fitted to what is alive.
	memoryInterval = time.Second
)

// tuneMemory shapes the garbage collector of a service until ctx ends. A limit that what is alive comes close to
// would let the collector run without end: with many accounts and tasks it gives way.
func tuneMemory(ctx context.Context) {
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

// fittedLimit gives the limit for so many bytes that are alive on the heap and so many outside it: memoryLimit, or
// what lets as much garbage gather as is alive.
func fittedLimit(live, other uint64) int64 {
	return max(memoryLimit, int64(other+2*live))
}

// memoryUse gives the bytes that were alive on the heap at the last collection, and those of stacks and of the
// runtime itself.
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
