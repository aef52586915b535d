package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

type benchRegistrationsCommand struct {
	Single      int `default:"20000" help:"Registrations one by one."`
	Batched     int `default:"200000" help:"Registrations in batches of 1,000."`
	Connections int `default:"32" help:"Connections that register one by one."`
	Batchers    int `default:"4" help:"Connections that register in batches."`
	Runs        int `default:"3" help:"Runs; the median counts."`
}

// registrationRun is what one run has shown.
type registrationRun struct {
	perSecond, serve, postgres float64 // CPU seconds per 1,000
	p50, p99                   time.Duration
	memory                     float64
}

// Run measures registering over HTTP against a service of its own.
func (c benchRegistrationsCommand) Run(ctx context.Context) error {
	fmt.Printf("%-22s %12s %14s %14s %14s %10s %9s %9s\n", "run", "tasks/s", "CPU-s/1000", "of it serve", "PostgreSQL", "peak MiB", "p50 ms", "p99 ms")
	bar := newProgress("registering")
	kinds := []struct {
		name             string
		total, each, how int
	}{{"one by one", c.Single, 1, c.Connections}, {"in batches of 1,000", c.Batched, 1000, c.Batchers}}
	for k, kind := range kinds {
		var runs []registrationRun
		for i := range c.Runs {
			bar.update(k*c.Runs+i, len(kinds)*c.Runs)
			run, err := c.once(ctx, kind.total, kind.each, kind.how)
			if err != nil {
				return err
			}
			runs = append(runs, run)
			run.print(fmt.Sprintf("%s, %d", kind.name, i+1))
		}
		slices.SortFunc(runs, func(a, b registrationRun) int { return int(a.perSecond) - int(b.perSecond) })
		runs[len(runs)/2].print(kind.name + ", median")
	}
	bar.end()
	return nil
}

func (r registrationRun) print(name string) {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	fmt.Printf("%-22s %12.0f %14.3f %14.3f %14.3f %10.0f %9.2f %9.2f\n", name, r.perSecond, r.serve+r.postgres, r.serve, r.postgres, r.memory, ms(r.p50), ms(r.p99))
}

// once registers total tasks, each a request, over so many connections.
func (c benchRegistrationsCommand) once(ctx context.Context, total, each, connections int) (run registrationRun, err error) {
	key := "bench-" + randomBase64(24)
	simAddr, err := freePort()
	if err != nil {
		return run, err
	}
	r, err := newRig(ctx, map[string]string{"MEMHOOK_API_KEY": key, "MEMORIES_BASE_URL": "http://" + simAddr})
	if err != nil {
		return run, err
	}
	defer r.close()
	if _, err := r.start(ctx, simAddr, "sim", "--addr", simAddr, "--never", "1"); err != nil {
		return run, err
	}
	addr, err := freePort()
	if err != nil {
		return run, err
	}
	serve, err := r.start(ctx, addr, "serve")
	if err != nil {
		return run, err
	}
	time.Sleep(time.Second) // the start's own work is not the run's
	pids := []int{serve.Process.Pid, r.pg.PID()}
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
		perSecond: float64(total) / elapsed.Seconds(), serve: per(0), postgres: per(1), memory: peakMemory(pids[0]),
		p50: took[len(took)/2], p99: took[len(took)*99/100],
	}, ctx.Err()
}

// cpuOfAll gives the CPU seconds of processes so far; PostgreSQL's with its backends.
func cpuOfAll(pids []int, postgres int) ([]float64, error) {
	out := make([]float64, len(pids))
	for i, pid := range pids {
		var err error
		if out[i], err = cpuAlone(pid, postgres); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func registerOver(ctx context.Context, client *http.Client, addr, key string, from, each int) error {
	type task struct {
		TaskID      string            `json:"task_id"`
		CallbackURL string            `json:"callback_url"`
		Metadata    map[string]string `json:"metadata"`
	}
	tasks := make([]task, each)
	for i := range tasks {
		n := strconv.Itoa(from + i)
		tasks[i] = task{"4b2d85ea-8b61-4689-96c3-75d907140242_" + n, fmt.Sprintf("http://127.0.0.1:1/customer/%d", (from+i)%50), map[string]string{"order": n}}
	}
	path, body := "/v1/tasks/batch", any(map[string]any{"tasks": tasks})
	if each == 1 {
		path, body = "/v1/tasks", tasks[0]
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+path, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 || (each > 1 && bytes.Count(answer, []byte(`{"status":201`)) != each) {
		return fmt.Errorf("%s: %s: %.300s", path, resp.Status, answer)
	}
	return nil
}
