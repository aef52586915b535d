package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/memhook/memhook/cmd/memhook-dev/proc"
)

type benchRegistrationsCommand struct {
	benchOutput

	Single      int `default:"20000" help:"Registrations one by one."`
	Batched     int `default:"200000" help:"Registrations in batches of 1,000."`
	Connections int `default:"32" help:"Connections for registrations one by one."`
	Batchers    int `default:"4" help:"Connections for registrations in batches."`
	Runs        int `default:"5" help:"Runs; the median is reported."`
}

// registrationRun is the result of one run.
type registrationRun struct {
	perSecond, serve, postgres float64 // CPU seconds per 1,000
	p50, p99                   time.Duration
	memory                     float64
}

// Run measures registrations over HTTP.
func (c benchRegistrationsCommand) Run(ctx context.Context) error {
	rep := c.newReport("registrations",
		"", "tasks/s", "CPU-s per 1,000", "of it serve", "PostgreSQL", "serve, peak MiB", "p50 ms", "p99 ms")
	kinds := []struct {
		name             string
		total, each, how int
		target           float64
	}{{"one by one", c.Single, 1, c.Connections, 2500}, {"in batches of 1,000", c.Batched, 1000, c.Batchers, 20000}}
	for k, kind := range kinds {
		var runs []registrationRun
		for i := range c.Runs {
			progress(k*c.Runs+i, len(kinds)*c.Runs, kind.name)
			run, err := c.once(ctx, kind.total, kind.each, kind.how)
			if err != nil {
				return err
			}
			runs = append(runs, run)
		}
		registrationRow(rep, kind.name, runs)
		rate := medianOf(runs, func(r registrationRun) float64 { return r.perSecond })
		rep.target("registrations/s "+kind.name, decimals(kind.target, 0), decimals(rate, 0), rate >= kind.target)
	}
	rep.notef("One by one over %d connections, in batches over %d. The client shares the machine; its CPU is not counted.",
		c.Connections, c.Batchers)
	return rep.end()
}

func registrationRow(rep *report, name string, runs []registrationRun) {
	of := func(digits int, value func(registrationRun) float64) string { return spread(runs, digits, value) }
	ms := func(value func(registrationRun) time.Duration) string {
		return of(2, func(r registrationRun) float64 { return value(r).Seconds() * 1000 })
	}
	rep.row(name, of(0, func(r registrationRun) float64 { return r.perSecond }),
		of(3, func(r registrationRun) float64 { return r.serve + r.postgres }),
		of(3, func(r registrationRun) float64 { return r.serve }), of(3, func(r registrationRun) float64 { return r.postgres }),
		of(0, func(r registrationRun) float64 { return r.memory }),
		ms(func(r registrationRun) time.Duration { return r.p50 }), ms(func(r registrationRun) time.Duration { return r.p99 }))
}

// once registers total tasks, each per request, over a number of connections.
func (c benchRegistrationsCommand) once(ctx context.Context, total, each, connections int) (run registrationRun, err error) {
	key := "bench-" + randomBase64(24)
	simAddr, err := proc.FreePort()
	if err != nil {
		return run, err
	}
	r, err := newRig(ctx, map[string]string{"MEMHOOK_API_KEY": key, "MEMORIES_BASE_URL": "http://" + simAddr})
	if err != nil {
		return run, err
	}
	defer r.close()
	if err := r.start(ctx, simAddr, "sim", "--addr", simAddr, "--never", "1"); err != nil {
		return run, err
	}
	addr, serve, err := r.serve(ctx)
	if err != nil {
		return run, err
	}
	time.Sleep(time.Second) // so that starting up is not measured
	pids := []int{serve, r.pg.PID()}
	before, err := cpuOfAll(pids, r.pg.PID())
	if err != nil {
		return run, err
	}
	var next atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	var failure error
	var wg sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	start := time.Now()
	for range connections {
		wg.Go(func() {
			for ctx.Err() == nil {
				from := int(next.Add(int64(each))) - each
				if from >= total {
					return
				}
				began := time.Now()
				err := registerOver(ctx, client, addr, key, from, each)
				mu.Lock()
				took = append(took, time.Since(began))
				if err != nil {
					failure = err
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	if failure != nil {
		return run, failure
	}
	after, err := cpuOfAll(pids, r.pg.PID())
	if err != nil {
		return run, err
	}
	slices.Sort(took)
	per := func(i int) float64 { return (after[i] - before[i]) / float64(total) * 1000 }
	return registrationRun{
		perSecond: float64(total) / elapsed.Seconds(), serve: per(0), postgres: per(1), memory: proc.PeakMemory(pids[0]),
		p50: took[len(took)/2], p99: took[len(took)*99/100],
	}, ctx.Err()
}

// registerOver registers each tasks in one request, numbered from from.
func registerOver(ctx context.Context, client *http.Client, addr, key string, from, each int) error {
	type task struct {
		TaskID      string            `json:"task_id"`
		CallbackURL string            `json:"callback_url"`
		Metadata    map[string]string `json:"metadata"`
	}
	tasks := make([]task, each)
	for i := range tasks {
		n := strconv.Itoa(from + i)
		tasks[i] = task{
			TaskID:      "4b2d85ea-8b61-4689-96c3-75d907140242_" + n,
			CallbackURL: fmt.Sprintf("http://127.0.0.1:1/customer/%d", (from+i)%50), Metadata: map[string]string{"order": n},
		}
	}
	if each > 1 {
		return postBatch(ctx, client, addr, key, tasks, each)
	}
	_, err := sendJSON(ctx, client, http.MethodPost, "http://"+addr+"/v1/tasks", key, tasks[0])
	return err
}
