package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/cmd/memhook-dev/proc"
	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store"
)

type benchPollsCommand struct {
	benchOutput

	Accounts int           `default:"1000" help:"Accounts, each with a budget of one request per second."`
	Tasks    int           `default:"100" help:"Waiting tasks per account."`
	For      time.Duration `default:"5m" help:"Duration."`
}

// Run polls many accounts at once and measures the rate, the CPU, and the size of every table and index.
func (c benchPollsCommand) Run(ctx context.Context) error {
	simAddr, err := proc.FreePort()
	if err != nil {
		return err
	}
	r, err := newRig(ctx, map[string]string{"MEMORIES_BASE_URL": "http://" + simAddr})
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.start(ctx, simAddr, "sim", "--addr", simAddr, "--requests-per-second", "1", "--never", "1"); err != nil {
		return err
	}
	fmt.Printf("registering %d tasks of %d accounts\n", c.Accounts*c.Tasks, c.Accounts)
	if _, err := c.register(ctx, r); err != nil {
		return err
	}
	_, serve, err := r.serve(ctx)
	if err != nil {
		return err
	}
	rep := c.newReport("polls", "", "polls/s", "CPU-ms a poll", "of it serve", "violations", "serve, peak MiB", "tables MiB")
	samples, err := c.watch(ctx, rep, r, simAddr, serve)
	if err != nil {
		return err
	}
	c.compare(rep, samples)
	return rep.end()
}

// pollsSample is the state at a moment, and the rates since the previous sample.
type pollsSample struct {
	at         time.Time
	requests   int
	violations int
	used       []float64 // CPU seconds of serve and of PostgreSQL so far
	memory     float64   // MiB, peak
	sizes      map[string]int64
	rate, cost float64 // polls per second, CPU milliseconds per poll
	serve      float64 // memhook's own share of the cost
}

// watch takes a sample every 20 s and reports it.
func (c benchPollsCommand) watch(ctx context.Context, rep *report, r *rig, sim string, serve int) (samples []pollsSample, err error) {
	start := time.Now()
	last := pollsSample{at: start, requests: simStats(sim).Requests}
	pids := []int{serve, r.pg.PID()}
	if last.used, err = cpuOfAll(pids, r.pg.PID()); err != nil {
		return nil, err
	}
	for time.Since(start) < c.For {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(min(20*time.Second, c.For-time.Since(start)+10*time.Millisecond)):
		}
		st := simStats(sim)
		now := pollsSample{at: time.Now(), requests: st.Requests, violations: st.Violations, memory: proc.PeakMemory(serve)}
		if now.used, err = cpuOfAll(pids, r.pg.PID()); err != nil {
			return nil, err
		}
		if now.sizes, err = r.sizes(ctx); err != nil {
			return nil, err
		}
		polls := float64(now.requests - last.requests)
		now.rate, now.serve = polls/now.at.Sub(last.at).Seconds(), 1000*(now.used[0]-last.used[0])/max(polls, 1)
		now.cost = now.serve + 1000*(now.used[1]-last.used[1])/max(polls, 1)
		var tables int64
		for _, n := range now.sizes {
			tables += n
		}
		rep.row("after "+time.Since(start).Round(time.Second).String(), decimals(now.rate, 1), decimals(now.cost, 3), decimals(now.serve, 3),
			strconv.Itoa(now.violations), decimals(now.memory, 0), strconv.FormatInt(tables>>20, 10))
		samples, last = append(samples, now), now
	}
	return samples, nil
}

// compare compares the medians with the targets. For the cost it takes the last samples: the accounts begin
// together and spread over the second, so fewer and fewer polls share a statement.
func (c benchPollsCommand) compare(rep *report, samples []pollsSample) {
	first, last := samples[min(2, len(samples)-1)], samples[len(samples)-1] // after the first minute, and at the end
	growth, which := mostGrown(first.sizes, last.sizes)
	rate := median(samples, func(x pollsSample) float64 { return x.rate })
	cost := median(samples[max(0, len(samples)-3):], func(x pollsSample) float64 { return x.cost })
	rep.notef("%d waiting tasks of %d accounts with one request per second each. Each line covers the time since the previous line. "+
		"The accounts begin together and spread over the second: fewer polls then share a statement, and each costs more CPU.",
		c.Accounts*c.Tasks, c.Accounts)
	rep.target("polls/s, median of the lines", fmt.Sprintf("%d, less the margin between slots", c.Accounts), decimals(rate, 1),
		rate >= 0.95*float64(c.Accounts))
	rep.target("CPU-milliseconds per poll, median of the last three lines", "1", decimals(cost, 3), cost <= 1)
	rep.target("violations of the limit", "0", strconv.Itoa(last.violations), last.violations == 0)
	rep.target("growth of any table or index after the first minute", "× 1.1", fmt.Sprintf("× %.2f (%s)", growth, which), growth < 1.1)
	rep.target("memory of serve", "150 MiB", decimals(last.memory, 0)+" MiB", last.memory < 150)
}

// median returns the median of a value.
func median[T any](list []T, value func(T) float64) float64 {
	values := make([]float64, len(list))
	for i, x := range list {
		values[i] = value(x)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// register creates the accounts, each with an app and its waiting tasks, and returns the apps.
func (c benchPollsCommand) register(ctx context.Context, r *rig) (apps []uuid.UUID, err error) {
	for i := range c.Accounts {
		account, err := r.store.CreateAccount(ctx, store.NewAccount{
			Name: fmt.Sprintf("account-%d", i), APIKey: fmt.Sprintf("sk-mavi-%d", i), RequestsPerSecond: 1,
		})
		if err != nil {
			return nil, err
		}
		app, err := r.store.CreateApp(ctx, fmt.Sprintf("app-%d", i), account.ID)
		if err != nil {
			return nil, err
		}
		apps = append(apps, app.ID)
		batch := make([]store.Registration, c.Tasks)
		for k := range batch {
			batch[k] = store.Registration{
				AppID: app.ID, UpstreamID: c.taskID(i, k), UniqueID: "default",
				CallbackURL: "http://127.0.0.1:1/", Until: store.UntilDownloaded, ExpiresIn: 24 * time.Hour,
			}
		}
		if _, err := r.store.RegisterTasks(ctx, batch); err != nil {
			return nil, err
		}
	}
	return apps, nil
}

// taskID returns the id of an account's nth waiting task.
func (c benchPollsCommand) taskID(account, n int) string {
	return fmt.Sprintf("task-%d-%d", account, n)
}

// simStats returns the statistics of the simulator at addr.
func simStats(addr string) (st memoriestest.Stats) {
	resp, err := http.Get("http://" + addr + "/control/stats")
	if err != nil {
		return st
	}
	defer func() { _ = resp.Body.Close() }()
	_ = json.NewDecoder(resp.Body).Decode(&st)
	return st
}

// sizes returns the size of each table and index in bytes.
func (r *rig) sizes(ctx context.Context) (map[string]int64, error) {
	rows, err := r.store.Pool().Query(ctx, `
		select c.relname::text, pg_relation_size(c.oid)
		from pg_class c
		join pg_namespace n on n.oid = c.relnamespace
		where n.nspname = current_schema() and c.relkind in ('r', 'i')`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	sizes := make(map[string]int64)
	for rows.Next() {
		var name string
		var size int64
		if err := rows.Scan(&name, &size); err != nil {
			return nil, err
		}
		sizes[name] = size
	}
	return sizes, rows.Err()
}

// mostGrown returns the table or index of at least 1 MiB that has grown by the highest factor.
func mostGrown(before, after map[string]int64) (most float64, which string) {
	for name, to := range after {
		if from := before[name]; from > 0 && to >= 1<<20 && float64(to)/float64(from) > most {
			most, which = float64(to)/float64(from), name
		}
	}
	return most, which
}
