package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/memhook/memhook/cmd/memhook-dev/proc"
)

// soakSample is the state at a moment.
type soakSample struct {
	at                      time.Duration
	memory                  float64 // MiB, resident
	goroutines, connections int
	files                   int     // open file descriptors
	tables                  float64 // MiB, with indexes
	live, dead              int64   // rows
	delivered, polled       int64   // so far
	errors                  int64
}

// watch takes samples until the load ends, and prints one a minute.
func (s *soak) watch(ctx context.Context) ([]soakSample, error) {
	var samples []soakSample
	start := time.Now()
	fmt.Printf("%8s %10s %10s %11s %6s %10s %10s %10s %12s %8s %7s\n",
		"", "memory MiB", "goroutines", "connections", "files", "tables MiB", "live rows", "dead rows", "deliveries/s", "polls/s", "errors")
	for printed := time.Duration(0); time.Since(start) < s.For; {
		select {
		case <-ctx.Done():
			return samples, ctx.Err()
		case <-time.After(s.Every):
		}
		now, err := s.sample(ctx)
		if err != nil {
			return samples, err
		}
		now.at = time.Since(start)
		samples = append(samples, now)
		if now.at-printed >= time.Minute {
			printed = now.at
			now.print(samples[max(0, len(samples)-7)])
		}
	}
	if len(samples) < 2 {
		return nil, errors.New("a soak takes at least two samples")
	}
	return samples, nil
}

func (x soakSample) print(before soakSample) {
	over := (x.at - before.at).Seconds()
	fmt.Printf("%8s %10.0f %10d %11d %6d %10.0f %10d %10d %12.0f %8.0f %7d\n",
		x.at.Round(time.Second), x.memory, x.goroutines, x.connections, x.files, x.tables, x.live, x.dead,
		float64(x.delivered-before.delivered)/over, float64(x.polled-before.polled)/over, x.errors)
}

func (s *soak) sample(ctx context.Context) (x soakSample, err error) {
	if err := s.collect(); err != nil {
		return x, err
	}
	x.delivered, x.polled, x.errors = s.received, int64(simStats(s.sim).Requests), s.errors.count.Load()
	x.memory = proc.ResidentMemory(s.pid)
	files, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(s.pid), "fd"))
	if err != nil {
		return x, err
	}
	x.files = len(files)
	if x.goroutines, err = goroutines(s.addr); err != nil {
		return x, err
	}
	err = s.store.Pool().QueryRow(ctx, `
		select (select count(*) from pg_stat_activity where backend_type = 'client backend'),
			(select sum(pg_total_relation_size(relid)) / 1048576.0 from pg_stat_user_tables)::float8,
			(select sum(n_live_tup) from pg_stat_user_tables)::bigint, (select sum(n_dead_tup) from pg_stat_user_tables)::bigint`).
		Scan(&x.connections, &x.tables, &x.live, &x.dead)
	x.connections -= int(s.store.Pool().Stat().TotalConns()) // those of this process
	return x, err
}

// collect counts the webhooks that the receiver got since the last call.
func (s *soak) collect() error {
	got, err := drainSink(s.sink)
	if err != nil {
		return err
	}
	s.received += int64(len(got))
	return nil
}

// goroutines reads the number of goroutines from the metrics of the memhook at addr.
func goroutines(addr string) (int, error) {
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			return strconv.Atoi(value)
		}
	}
	return 0, errors.New("/metrics has no go_goroutines")
}

// errorLines copies a log to standard error and counts its lines at level error.
type errorLines struct {
	count atomic.Int64
}

func (e *errorLines) Write(p []byte) (int, error) {
	e.count.Add(int64(bytes.Count(p, []byte(`"level":"ERROR"`))))
	return os.Stderr.Write(p)
}
