package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/cmd/internal/app"
	"github.com/memhook/memhook/cmd/internal/proc"
	"github.com/memhook/memhook/store"
)

type benchDeliveriesCommand struct {
	benchOutput
	Events     int           `default:"50000" help:"Events per run."`
	Runs       int           `default:"5" help:"Runs; the median is reported."`
	Publishers int           `default:"500" help:"Polls recorded at the same time."`
	Endpoints  int           `default:"50" help:"Callback URLs."`
	Rate       int           `default:"50" help:"Events per second while the latency is measured."`
	For        time.Duration `default:"20s" help:"How long the latency is measured."`
}

// deliveryHead names the columns of [deliveryRun.row].
var deliveryHead = []string{
	"", "deliveries/s", "CPU-s per 1,000", "of it serve", "accepting", "PostgreSQL", "serve, peak MiB", "p50 ms", "p95 ms", "p99 ms",
}

// deliveryRun is the result of one run.
type deliveryRun struct {
	perSecond                   float64
	serve, accept, postgres     float64 // CPU seconds per 1,000
	memory                      float64 // MiB, the highest peak of an instance
	p50, p95, p99               time.Duration
	received, duplicates, total int
}

// Run measures accepting and delivering events with everything on: signing, the guard, the attempt log and
// durable commits. It records polls through the store, as the poll worker does.
func (c benchDeliveriesCommand) Run(ctx context.Context) error {
	rep := c.newReport("deliveries", deliveryHead...)
	median, err := c.median(ctx, rep, 1, "")
	if err != nil {
		return err
	}
	progress(c.Runs, c.Runs+1, fmt.Sprintf("%d events/s for %s", c.Rate, c.For))
	paced, err := c.once(ctx, int(c.For.Seconds())*c.Rate, c.Rate, 1)
	if err != nil {
		return err
	}
	paced.row(rep, fmt.Sprintf("at %d/s", c.Rate))
	used := median.serve + median.accept + median.postgres
	rep.notef("%d events per run by %d publishers to %d URLs; signing, the guard, the attempt log and durable commits are on. "+
		"Accepting is the process that records the polls.", c.Events, c.Publishers, c.Endpoints)
	rep.target("deliveries/s", "5,000", decimals(median.perSecond, 0), median.perSecond >= 5000)
	rep.target("CPU-seconds per 1,000, PostgreSQL included", "0.35", decimals(used, 3), used <= 0.35)
	rep.target("event recorded → received at 50/s, p50 and p99", "4 ms, 15 ms", milliseconds(paced.p50)+" ms, "+milliseconds(paced.p99)+" ms",
		paced.p50 < 4*time.Millisecond && paced.p99 < 15*time.Millisecond)
	rep.target("memory of serve", "150 MiB", decimals(median.memory, 0)+" MiB", median.memory < 150)
	return rep.end()
}

// median makes the runs with a number of instances, reports them, and returns the one with the median rate.
func (c benchDeliveriesCommand) median(ctx context.Context, rep *report, instances int, name string) (*deliveryRun, error) {
	// This process records the polls, which a service does with these garbage collector settings.
	tuning, stop := context.WithCancel(ctx)
	defer stop()
	go app.TuneMemory(tuning)
	var runs []deliveryRun
	for i := range c.Runs {
		progress(i, c.Runs+1, fmt.Sprintf("%s%d events as fast as they go", name, c.Events))
		run, err := c.once(ctx, c.Events, 0, instances)
		if err != nil {
			return nil, err
		}
		runs = append(runs, run)
		run.row(rep, name+strconv.Itoa(i+1))
	}
	slices.SortFunc(runs, byRate)
	runs[len(runs)/2].row(rep, name+"median")
	return &runs[len(runs)/2], nil
}

func byRate(a, b deliveryRun) int { return cmp.Compare(a.perSecond, b.perSecond) }

func (run *deliveryRun) row(rep *report, name string) {
	rep.row(name, decimals(run.perSecond, 0), decimals(run.serve+run.accept+run.postgres, 3),
		decimals(run.serve, 3), decimals(run.accept, 3), decimals(run.postgres, 3),
		decimals(run.memory, 0), milliseconds(run.p50), milliseconds(run.p95), milliseconds(run.p99))
	run.noteLosses(rep, name)
}

func (run *deliveryRun) noteLosses(rep *report, name string) {
	if run.received != run.total || run.duplicates > 0 {
		rep.notef("%s: %d of %d received, %d duplicates", name, run.received, run.total, run.duplicates)
	}
}

// once delivers n events with a number of instances: rate per second, or as fast as possible if rate is 0.
func (c benchDeliveriesCommand) once(ctx context.Context, n, rate, instances int) (run deliveryRun, err error) {
	r, err := newRig(ctx, nil)
	if err != nil {
		return run, err
	}
	defer r.close()
	addr, err := proc.FreePort()
	if err != nil {
		return run, err
	}
	if err := r.start(ctx, addr, "bench", "sink", "--addr", addr); err != nil {
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
	pids := []int{os.Getpid(), r.pg.PID()}
	for range instances {
		_, pid, err := r.serve(ctx)
		if err != nil {
			return run, err
		}
		pids = append(pids, pid)
	}
	if _, err := r.store.Pool().Exec(ctx, "vacuum analyze"); err != nil {
		return run, err
	}
	time.Sleep(time.Second) // so that starting up is not measured

	before, err := cpuOfAll(pids, r.pg.PID())
	if err != nil {
		return run, err
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
	time.Sleep(300 * time.Millisecond) // until the delivered jobs are completed in the queue
	used, err := cpuOfAll(pids, r.pg.PID())
	if err != nil {
		return run, err
	}
	for i := range used {
		used[i] = (used[i] - before[i]) / float64(n) * 1000
	}
	run = deliveryRun{perSecond: float64(n) / took.Seconds(), accept: used[0], postgres: used[1], total: n}
	for i, pid := range pids[2:] {
		run.serve += used[2+i]
		run.memory = max(run.memory, proc.PeakMemory(pid))
	}
	return run, run.latency(ctx, r, addr, committed)
}

// accept records for each task a poll that found a video, and returns when each was committed.
func (c benchDeliveriesCommand) accept(ctx context.Context, r *rig, tasks []store.Registered, rate int) (map[uuid.UUID]time.Time, error) {
	var mu sync.Mutex
	var failure error
	committed := make(map[uuid.UUID]time.Time, len(tasks))
	inParallel(c.Publishers, len(tasks), rate, func(i int) {
		id, at := tasks[i].Task.ID, time.Now()
		_, err := r.store.RecordPoll(ctx, store.Poll{
			TaskID: id, SentAt: at, At: at, NextPollAt: at, Videos: []store.Video{{ID: "PI-" + id.String()}},
		})
		done := time.Now()
		mu.Lock()
		defer mu.Unlock()
		committed[id] = done
		if err != nil {
			failure = err
		}
	})
	return committed, failure
}

// latency computes the times from commit to receipt.
func (run *deliveryRun) latency(ctx context.Context, r *rig, addr string, committed map[uuid.UUID]time.Time) error {
	received, repeated, err := sinkResults(addr)
	if err != nil {
		return err
	}
	run.duplicates = repeated
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
	run.quantiles(lags)
	return rows.Err()
}

// quantiles keeps the quantiles of the times from acceptance to receipt, one for each received event.
func (run *deliveryRun) quantiles(lags []time.Duration) {
	run.received = len(lags)
	slices.Sort(lags)
	if len(lags) > 0 {
		run.p50, run.p95, run.p99 = lags[len(lags)/2], lags[len(lags)*95/100], lags[len(lags)*99/100]
	}
}
