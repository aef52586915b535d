package main

import (
	"fmt"
	"strconv"
	"time"
)

// soakWindow is the time over which samples are averaged, because a single sample varies with what is in flight.
const soakWindow = 2 * time.Minute

// stateAt returns the mean of the samples in the window before a time. Counters are those of the last sample.
func stateAt(samples []soakSample, at time.Duration) soakSample {
	var last soakSample
	var memory, goroutines, connections, files, tables, live, dead, n float64
	for _, x := range samples {
		if x.at > at && n > 0 {
			break
		}
		if x.at <= at-soakWindow {
			continue
		}
		last = x
		n++
		memory, tables = memory+x.memory, tables+x.tables
		goroutines, connections, files = goroutines+float64(x.goroutines), connections+float64(x.connections), files+float64(x.files)
		live, dead = live+float64(x.live), dead+float64(x.dead)
	}
	last.memory, last.tables = memory/n, tables/n
	last.goroutines, last.connections, last.files = int(goroutines/n), int(connections/n), int(files/n)
	last.live, last.dead = int64(live/n), int64(dead/n)
	return last
}

// peakOfDead returns the highest number of dead rows in the samples between two times. Between vacuums it rises.
func peakOfDead(samples []soakSample, from, to time.Duration) (most int64) {
	for _, x := range samples {
		if x.at > from && x.at <= to {
			most = max(most, x.dead)
		}
	}
	return most
}

func (s *soak) report(samples []soakSample) error {
	end := samples[len(samples)-1].at
	warm, last := stateAt(samples, min(s.Warm, end/2)), stateAt(samples, end)
	over := (last.at - warm.at).Seconds()
	fmt.Println()
	rep := s.newReport("soak", "", "after "+warm.at.Round(time.Second).String(), "after "+last.at.Round(time.Second).String(), "change")
	row := func(name string, from, to float64) {
		rep.row(name, decimals(from, 0), decimals(to, 0), fmt.Sprintf("%+.1f %%", 100*(to/max(from, 1e-9)-1)))
	}
	row("resident memory, MiB", warm.memory, last.memory)
	row("goroutines", float64(warm.goroutines), float64(last.goroutines))
	row("connections to PostgreSQL", float64(warm.connections), float64(last.connections))
	row("open files", float64(warm.files), float64(last.files))
	row("tables and indexes, MiB", warm.tables, last.tables)
	row("live rows", float64(warm.live), float64(last.live))
	row("dead rows", float64(warm.dead), float64(last.dead))
	rep.notef("Means over two minutes. %d accounts with %d waiting tasks, %d tasks/s with %d subscribers each (%s), retention %s: "+
		"%.0f deliveries/s and %.0f polls/s.", s.Accounts, s.Accounts*s.Waiting, s.Rate, s.Subscribers, s.Latency.describe(), s.Retention,
		float64(last.delivered-warm.delivered)/over, float64(last.polled-warm.polled)/over)
	within := func(what string, from, to float64) {
		rep.target(what+" at the end", "at most 10 % more", fmt.Sprintf("%+.1f %%", 100*(to/max(from, 1e-9)-1)), to <= 1.1*from)
	}
	within("resident memory", warm.memory, last.memory)
	within("goroutines", float64(warm.goroutines), float64(last.goroutines))
	within("connections to PostgreSQL", float64(warm.connections), float64(last.connections))
	early, late := peakOfDead(samples, warm.at, (warm.at+end)/2), peakOfDead(samples, (warm.at+end)/2, end)
	rep.target("highest number of dead rows in the second half after warming up, relative to the first half", "at most × 1.25",
		fmt.Sprintf("× %.2f", float64(late)/float64(max(early, 1))), float64(late) <= 1.25*float64(early))
	violations := simStats(s.sim).Violations
	rep.target("requests over memories.ai's limit", "0", strconv.Itoa(violations), violations == 0)
	rep.target("log lines at level error", "0", strconv.FormatInt(s.errors.count.Load(), 10), s.errors.count.Load() == 0)
	rep.target("webhooks received of those registered", strconv.FormatInt(s.registered.Load(), 10), strconv.FormatInt(s.received, 10),
		s.received == s.registered.Load() && s.failed.Load() == 0)
	return rep.end()
}
