package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/cmd/memhook-dev/proc"
	"github.com/memhook/memhook/store"
)

// deliveryRun is the result of one run.
type deliveryRun struct {
	perSecond                   float64
	steady                      float64 // deliveries per second in the middle half, without the beginning and the end
	serve, accept, postgres     float64 // CPU seconds per 1,000
	memory                      float64 // MiB, the highest peak of an instance
	peak                        int     // the most attempts in flight
	p50, p95, p99               time.Duration
	received, duplicates, total int

	statements []statement // what PostgreSQL ran, if the run was profiled
}

// cpuOf returns the CPU seconds per 1,000 deliveries of everything but the receiver.
func cpuOf(run deliveryRun) float64 { return run.serve + run.accept + run.postgres }

func (run *deliveryRun) noteLosses(rep *report, name string) {
	if run.received != run.total || run.duplicates > 0 {
		rep.notef("%s: %d of %d received, %d duplicates", name, run.received, run.total, run.duplicates)
	}
}

// run delivers the load on a rig of its own.
func (l deliveryLoad) run(ctx context.Context) (run deliveryRun, err error) {
	r, err := newRigFor(ctx, l)
	if err != nil {
		return run, err
	}
	defer r.close()
	addr, err := proc.FreePort()
	if err != nil {
		return run, err
	}
	if err := r.start(ctx, addr, "bench", "sink", "--addr", addr, "--hosts", strconv.Itoa(l.hosts), "--answer", string(l.answer)); err != nil {
		return run, err
	}
	tasks, err := l.register(ctx, r, addr)
	if err != nil {
		return run, err
	}
	pids := []int{os.Getpid(), r.pg.PID()}
	for range l.instances {
		_, pid, err := r.serveProfiled(ctx, l.profile)
		if err != nil {
			return run, err
		}
		pids = append(pids, pid)
	}
	if _, err := r.store.Pool().Exec(ctx, "vacuum analyze"); err != nil {
		return run, err
	}
	time.Sleep(time.Second) // so that starting up is not measured
	err = l.deliver(ctx, r, addr, tasks, pids, &run)
	return run, err
}

// register registers a task for each event, spread over the apps' callback URLs.
func (l deliveryLoad) register(ctx context.Context, r *rig, addr string) ([]store.Registered, error) {
	apps, err := r.appsFor(ctx, l.apps)
	if err != nil {
		return nil, err
	}
	return r.registerAll(ctx, l.events, func(i int) (uuid.UUID, string) {
		k := i % l.endpoints
		return apps[k%len(apps)], fmt.Sprintf("http://%s/endpoint/%d", sinkHost(addr, k%l.hosts), k)
	})
}

// deliver makes the events and measures until they have arrived, or the time is over. pids are those of this process, of
// PostgreSQL and of the instances.
func (l deliveryLoad) deliver(ctx context.Context, r *rig, addr string, tasks []store.Registered, pids []int, run *deliveryRun) error {
	if err := r.resetStatements(ctx, l.profile != ""); err != nil {
		return err
	}
	stopProfile, err := l.profileAccepting()
	if err != nil {
		return err
	}
	defer stopProfile()
	before, err := cpuOfAll(pids, r.pg.PID())
	if err != nil {
		return err
	}
	within := l.within
	if l.rate > 0 {
		within += time.Duration(l.events/l.rate) * time.Second
	}
	start := time.Now()
	accepting, cancel := context.WithTimeout(ctx, within+time.Minute)
	defer cancel()
	committed, err := l.accept(accepting, r, tasks)
	if err != nil {
		return fmt.Errorf("record polls: %w", err)
	}
	state, err := awaitCount(ctx, addr, l.events, within-time.Since(start))
	if err != nil {
		return err
	}
	took := time.Since(start)
	time.Sleep(300 * time.Millisecond) // until the delivered jobs are completed in the queue
	used, err := cpuOfAll(pids, r.pg.PID())
	if err != nil {
		return err
	}
	if run.statements, err = r.statements(ctx, l.profile != ""); err != nil {
		return err
	}
	done := max(1, float64(state.Count))
	for i := range used {
		used[i] = (used[i] - before[i]) / done * 1000
	}
	run.perSecond, run.accept, run.postgres = float64(state.Count)/took.Seconds(), used[0]*done/float64(l.events), used[1]
	run.total, run.peak = l.events, state.Peak
	for i, pid := range pids[2:] {
		run.serve += used[2+i]
		run.memory = max(run.memory, proc.PeakMemory(pid))
	}
	return run.latency(ctx, r, addr, committed)
}

// profileAccepting begins a CPU profile of this process, which records the polls, beside the service's.
func (l deliveryLoad) profileAccepting() (stop func(), err error) {
	if l.profile == "" {
		return func() {}, nil
	}
	file, err := os.Create(l.profile + ".accept")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() { pprof.StopCPUProfile(); _ = file.Close() }, nil
}

// accept records for each task a poll that found a video, and returns when each was committed.
func (l deliveryLoad) accept(ctx context.Context, r *rig, tasks []store.Registered) (map[uuid.UUID]time.Time, error) {
	var mu sync.Mutex
	var failure error
	committed := make(map[uuid.UUID]time.Time, len(tasks))
	inParallel(l.publishers, len(tasks), l.rate, func(i int) {
		id, at := tasks[i].Task.ID, time.Now()
		_, err := r.store.RecordPoll(ctx, store.Poll{
			TaskID: id, At: at, NextPollAt: at, Videos: []store.Video{{ID: "PI-" + id.String()}},
		})
		done := time.Now()
		mu.Lock()
		defer mu.Unlock()
		committed[id] = done
		if err != nil && failure == nil {
			failure = err
		}
	})
	return committed, failure
}

// latency computes the times from commit to receipt, and the rate in the middle half of the receipts.
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
	var arrivals []int64
	for rows.Next() {
		var id, task uuid.UUID
		if err := rows.Scan(&id, &task); err != nil {
			return err
		}
		if at, ok := received["evt_"+id.String()]; ok {
			lags = append(lags, time.Unix(0, at).Sub(committed[task]))
			arrivals = append(arrivals, at)
		}
	}
	if len(arrivals) == 0 {
		return errors.Join(rows.Err(), errors.New("nothing was delivered"))
	}
	run.quantiles(lags)
	run.steady = middleRate(arrivals)
	return rows.Err()
}

// middleRate returns the rate per second in the middle half of arrivals, given in Unix nanoseconds: without the
// beginning and the end. It returns 0 for fewer than four.
func middleRate(arrivals []int64) float64 {
	slices.Sort(arrivals)
	first, last := len(arrivals)/4, len(arrivals)*3/4
	if len(arrivals) < 4 || arrivals[last] == arrivals[first] {
		return 0
	}
	return float64(last-first) / time.Duration(arrivals[last]-arrivals[first]).Seconds()
}

// quantiles keeps the quantiles of the times from acceptance to receipt, one for each received event.
func (run *deliveryRun) quantiles(lags []time.Duration) {
	run.received = len(lags)
	slices.Sort(lags)
	if len(lags) > 0 {
		run.p50, run.p95, run.p99 = lags[len(lags)/2], lags[len(lags)*95/100], lags[len(lags)*99/100]
	}
}
