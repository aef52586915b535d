package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/memhook/memhook/cmd/memhook-dev/proc"
)

type benchOutpostCommand struct {
	benchOutput

	URL        string        `required:"" help:"URL of a running Outpost, such as http://127.0.0.1:3333."`
	APIKey     string        `required:"" env:"OUTPOST_API_KEY" help:"Its API_KEY."`
	PID        []int         `required:"" help:"Ids of the processes whose CPU is measured: Outpost, PostgreSQL, Redis, the message queue."`
	Latency    []answerTime  `default:"0s" help:"How long receivers take to answer: a duration, or mix (median 100 ms, every hundredth 2 to 4 s)."`
	Topic      string        `default:"task.ready" help:"One of its TOPICS."`
	Events     int           `default:"5000" help:"Events per run."`
	Runs       int           `default:"5" help:"Runs; the median is reported."`
	Publishers int           `default:"32" help:"Connections that publish at once."`
	Endpoints  int           `default:"50" help:"Callback URLs, each of its own tenant."`
	Rate       int           `default:"50" help:"Events per second while the latency is measured."`
	For        time.Duration `default:"20s" help:"How long the latency is measured."`
}

// Run measures Outpost as `bench deliveries` measures memhook: with the same receiver and clock, and CPU as the
// operating system accounts for it. It publishes over Outpost's API. docs/benchmarks.md says how to start Outpost.
func (c benchOutpostCommand) Run(ctx context.Context) error {
	rep := c.newReport("outpost", "", "deliveries/s", "in the middle half", "CPU-s per 1,000", "most in flight", "p50 ms", "p99 ms")
	for i, answer := range c.Latency {
		if err := c.measure(ctx, rep, answer, fmt.Sprintf("%d/%d ", i+1, len(c.Latency))); err != nil {
			return err
		}
	}
	rep.notef("%d events per run by %d publishers to %d tenants with one URL each. CPU is that of %d processes with their children.",
		c.Events, c.Publishers, c.Endpoints, len(c.PID))
	return rep.end()
}

// measure makes the runs with receivers of one answer time.
func (c benchOutpostCommand) measure(ctx context.Context, rep *report, answer answerTime, name string) error {
	sink, err := proc.FreePort()
	if err != nil {
		return err
	}
	r := &rig{stderr: os.Stderr}
	defer r.close()
	if err := r.start(ctx, sink, "bench", "sink", "--addr", sink, "--answer", string(answer)); err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: c.Publishers}, Timeout: time.Minute}
	session := strconv.FormatInt(time.Now().UnixNano(), 36)
	for i := range c.Endpoints {
		if err := c.tenant(ctx, client, session, i, sink); err != nil {
			return err
		}
	}
	load := deliveryLoad{answer: answer, endpoints: c.Endpoints}
	runs := make([]deliveryRun, c.Runs)
	for i := range runs {
		progress(i, c.Runs+1, fmt.Sprintf("%s%s: %d events as fast as they go", name, load.name(), c.Events))
		if runs[i], err = c.once(ctx, client, sink, session, strconv.Itoa(i), c.Events, 0); err != nil {
			return err
		}
		runs[i].noteLosses(rep, load.name())
	}
	progress(c.Runs, c.Runs+1, fmt.Sprintf("%s%s: %d events/s for %s", name, load.name(), c.Rate, c.For))
	paced, err := c.once(ctx, client, sink, session, "paced", int(c.For.Seconds())*c.Rate, c.Rate)
	if err != nil {
		return err
	}
	rep.row(load.name(), spread(runs, 0, func(r deliveryRun) float64 { return r.perSecond }),
		spread(runs, 0, func(r deliveryRun) float64 { return r.steady }), spread(runs, 3, cpuOf),
		spread(runs, 0, func(r deliveryRun) float64 { return float64(r.peak) }), milliseconds(paced.p50), milliseconds(paced.p99))
	paced.noteLosses(rep, load.name()+", paced")
	return nil
}

// tenant creates a tenant with one webhook destination at the sink.
func (c benchOutpostCommand) tenant(ctx context.Context, client *http.Client, session string, i int, sink string) error {
	path := fmt.Sprintf("/api/v1/tenants/%s-%d", session, i)
	if _, err := sendJSON(ctx, client, http.MethodPut, c.URL+path, c.APIKey, map[string]any{}); err != nil {
		return err
	}
	_, err := sendJSON(ctx, client, http.MethodPost, c.URL+path+"/destinations", c.APIKey, map[string]any{
		"type": "webhook", "topics": []string{c.Topic}, "config": map[string]string{"url": fmt.Sprintf("http://%s/endpoint/%d", sink, i)},
	})
	return err
}

// once publishes n events: rate per second, or as fast as possible if rate is 0.
func (c benchOutpostCommand) once(
	ctx context.Context, client *http.Client, sink, session, name string, n, rate int,
) (run deliveryRun, err error) {
	before, err := c.used()
	if err != nil {
		return run, err
	}
	var mu sync.Mutex
	var failure error
	accepted := make(map[string]time.Time, n)
	start := time.Now()
	inParallel(c.Publishers, n, rate, func(i int) {
		id := fmt.Sprintf("%s-%s-%d", session, name, i)
		_, err := sendJSON(ctx, client, http.MethodPost, c.URL+"/api/v1/publish", c.APIKey, map[string]any{
			"id": id, "tenant_id": fmt.Sprintf("%s-%d", session, i%c.Endpoints), "topic": c.Topic,
			"data": map[string]any{"task_id": id, "video_ids": []string{"PI-" + id}},
		})
		at := time.Now()
		mu.Lock()
		defer mu.Unlock()
		accepted[id] = at
		failure = errors.Join(failure, err)
	})
	if failure != nil {
		return run, failure
	}
	state, err := awaitCount(ctx, sink, n, 5*time.Minute)
	if err != nil {
		return run, err
	}
	if state.Count < n {
		return run, fmt.Errorf("only %d of %d webhooks within five minutes", state.Count, n)
	}
	took := time.Since(start)
	time.Sleep(time.Second) // for what is still written in the background
	after, err := c.used()
	if err != nil {
		return run, err
	}
	run = deliveryRun{perSecond: float64(n) / took.Seconds(), serve: (after - before) / float64(n) * 1000, total: n}
	received, repeated, err := sinkResults(sink)
	if err != nil {
		return run, err
	}
	run.peak = state.Peak
	var lags []time.Duration
	arrivals := make([]int64, 0, len(accepted))
	for id, at := range accepted {
		if when, ok := received[id]; ok {
			lags = append(lags, time.Unix(0, when).Sub(at))
			arrivals = append(arrivals, when)
		}
	}
	run.duplicates = repeated
	run.quantiles(lags)
	run.steady = middleRate(arrivals)
	return run, nil
}

// used returns the CPU seconds of all the processes with their children.
func (c benchOutpostCommand) used() (total float64, err error) {
	for _, pid := range c.PID {
		seconds, err := proc.CPU(pid)
		if err != nil {
			return 0, fmt.Errorf("process %d: %w", pid, err)
		}
		total += seconds
	}
	return total, nil
}
