package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

type benchDeliveriesCommand struct {
	Events     int           `default:"50000" help:"Events a run."`
	Runs       int           `default:"3" help:"Runs; the median counts."`
	Publishers int           `default:"500" help:"Polls that are recorded at once."`
	Endpoints  int           `default:"50" help:"Receivers' URLs."`
	Rate       int           `default:"50" help:"Events a second for the latency."`
	For        time.Duration `default:"20s" help:"How long the latency is measured."`
}

// deliveryRun is what one run has shown.
type deliveryRun struct {
	perSecond                   float64
	serve, accept, postgres     float64 // CPU seconds per 1,000
	memory                      float64 // MiB, peak
	p50, p95, p99               time.Duration
	received, duplicates, total int
}

// Run measures accepting and delivering events, everything on: signing, the guard, the attempts' log,
// durable commits. Polls are recorded through the store, as the poll worker does.
func (c benchDeliveriesCommand) Run(ctx context.Context) error {
	fmt.Printf("%-10s %12s %14s %14s %14s %14s %10s %9s %9s %9s\n", "run", "deliveries/s", "CPU-s/1000", "of it serve", "accept", "PostgreSQL", "peak MiB", "p50 ms", "p95 ms", "p99 ms")
	var runs []deliveryRun
	for i := range c.Runs {
		progress(i, c.Runs+1, fmt.Sprintf("%d events as fast as they go", c.Events))
		run, err := c.once(ctx, c.Events, 0)
		if err != nil {
			return err
		}
		runs = append(runs, run)
		run.print(strconv.Itoa(i + 1))
	}
	slices.SortFunc(runs, func(a, b deliveryRun) int { return int(a.perSecond*1000) - int(b.perSecond*1000) })
	median := runs[len(runs)/2]
	median.print("median")
	progress(c.Runs, c.Runs+1, fmt.Sprintf("%d events/s for %s", c.Rate, c.For))
	run, err := c.once(ctx, int(c.For.Seconds())*c.Rate, c.Rate)
	if err != nil {
		return err
	}
	run.print(fmt.Sprintf("at %d/s", c.Rate))
	return nil
}

func (r *deliveryRun) print(name string) {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	fmt.Printf("%-10s %12.0f %14.3f %14.3f %14.3f %14.3f %10.0f %9.2f %9.2f %9.2f\n", name, r.perSecond, r.serve+r.accept+r.postgres, r.serve, r.accept, r.postgres, r.memory, ms(r.p50), ms(r.p95), ms(r.p99))
	if r.received != r.total || r.duplicates > 0 {
		fmt.Printf("           %d of %d received, %d duplicates\n", r.received, r.total, r.duplicates)
	}
}

// once runs n events, rate a second or, where that is 0, as fast as they go.
func (c benchDeliveriesCommand) once(ctx context.Context, n, rate int) (run deliveryRun, err error) {
	r, err := newRig(ctx, nil)
	if err != nil {
		return run, err
	}
	defer r.close()
	addr, err := freePort()
	if err != nil {
		return run, err
	}
	if _, err := r.start(ctx, addr, "bench", "sink", "--addr", addr); err != nil {
		return run, err
	}
	urls := make([]string, c.Endpoints)
	for i := range urls {
		urls[i] = fmt.Sprintf("http://%s/endpoint/%d", addr, i)
	}
	tasks, err := r.registerAll(ctx, n, urls)
	if err != nil {
		return run, err
	}
	serveAddr, err := freePort()
	if err != nil {
		return run, err
	}
	serve, err := r.start(ctx, serveAddr, "serve")
	if err != nil {
		return run, err
	}
	if _, err := r.store.Pool().Exec(ctx, "vacuum analyze"); err != nil {
		return run, err
	}
	time.Sleep(time.Second) // the starts' own work is not the runs'

	pids := []int{serve.Process.Pid, os.Getpid(), r.pg.PID()}
	before := make([]float64, len(pids))
	for i, pid := range pids {
		if before[i], err = cpuAlone(pid, r.pg.PID()); err != nil {
			return run, err
		}
	}
	start := time.Now()
	committed, err := c.accept(ctx, r, tasks, rate)
	if err != nil {
		return run, err
	}
	if err := awaitCount(ctx, addr, n, 2*time.Minute); err != nil {
		return run, err
	}
	took := time.Since(start)
	time.Sleep(300 * time.Millisecond) // until what was delivered is completed in the queue, too
	used := make([]float64, len(pids))
	for i, pid := range pids {
		if used[i], err = cpuAlone(pid, r.pg.PID()); err != nil {
			return run, err
		}
		used[i] = (used[i] - before[i]) / float64(n) * 1000
	}
	run = deliveryRun{perSecond: float64(n) / took.Seconds(), serve: used[0], accept: used[1], postgres: used[2], memory: peakMemory(pids[0]), total: n}
	return run, run.latency(ctx, r, addr, committed)
}

// cpuAlone gives a process's CPU seconds; PostgreSQL's with its backends.
func cpuAlone(pid, postgres int) (float64, error) {
	if pid == postgres {
		return cpu(pid)
	}
	own, _, err := cpuOf(pid)
	return own, err
}

// accept records a poll that shows a video for each task, and gives the times of the commits.
func (c benchDeliveriesCommand) accept(ctx context.Context, r *rig, tasks []store.Registered, rate int) (map[uuid.UUID]time.Time, error) {
	var (
		mu        sync.Mutex
		wg        sync.WaitGroup
		failure   error
		committed = make(map[uuid.UUID]time.Time, len(tasks))
		queue     = make(chan *store.Task)
	)
	for range c.Publishers {
		wg.Go(func() {
			for t := range queue {
				at := time.Now()
				_, err := r.store.RecordPoll(ctx, store.Poll{Task: t.ID, SentAt: at, At: at, NextPollAt: at, Videos: []store.Video{{ID: "PI-" + t.ID.String()}}})
				done := time.Now()
				mu.Lock()
				committed[t.ID] = done
				if err != nil {
					failure = err
				}
				mu.Unlock()
			}
		})
	}
	start := time.Now()
	for i, t := range tasks {
		if rate > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		}
		queue <- t.Task
	}
	close(queue)
	wg.Wait()
	return committed, failure
}

func awaitCount(ctx context.Context, addr string, n int, within time.Duration) error {
	for deadline := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		resp, err := http.Get("http://" + addr + "/count")
		if err != nil {
			return err
		}
		raw, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return err
		}
		got, err := strconv.Atoi(string(raw))
		if err != nil || got >= n {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("only %d of %d webhooks within %s", got, n, within)
		}
	}
}

// latency joins the receiver's times with those of the commits.
func (run *deliveryRun) latency(ctx context.Context, r *rig, addr string, committed map[uuid.UUID]time.Time) error {
	resp, err := http.Get("http://" + addr + "/results")
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var received map[string]int64
	if err := json.NewDecoder(resp.Body).Decode(&received); err != nil {
		return err
	}
	rows, err := r.store.Pool().Query(ctx, `select id, task from events`)
	if err != nil {
		return err
	}
	defer rows.Close()
	var lags []time.Duration
	for rows.Next() {
		var id, task uuid.UUID
		if err := rows.Scan(&id, &task); err != nil {
			return err
		}
		if at, ok := received["evt_"+id.String()]; ok {
			lags = append(lags, time.Unix(0, at).Sub(committed[task]))
		}
	}
	run.received = len(lags)
	slices.Sort(lags)
	if len(lags) > 0 {
		run.p50, run.p95, run.p99 = lags[len(lags)/2], lags[len(lags)*95/100], lags[len(lags)*99/100]
	}
	return rows.Err()
}
