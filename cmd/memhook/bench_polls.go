package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sort"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store"
)

type benchPollsCommand struct {
	Accounts int           `default:"1000" help:"Accounts, each with one request a second."`
	Tasks    int           `default:"100" help:"Waiting tasks of each."`
	For      time.Duration `default:"3m" help:"How long."`
}

// Run polls many accounts at once and watches the rate, the CPU and the size of every table and index.
func (c benchPollsCommand) Run(ctx context.Context) error {
	simAddr, err := freePort()
	if err != nil {
		return err
	}
	r, err := newRig(ctx, map[string]string{"MEMORIES_BASE_URL": "http://" + simAddr})
	if err != nil {
		return err
	}
	defer r.close()
	if _, err := r.start(ctx, simAddr, "sim", "--addr", simAddr, "--requests-per-second", "1", "--never", "1"); err != nil {
		return err
	}
	fmt.Printf("registering %d tasks of %d accounts\n", c.Accounts*c.Tasks, c.Accounts)
	if err := c.register(ctx, r); err != nil {
		return err
	}
	addr, err := freePort()
	if err != nil {
		return err
	}
	serve, err := r.start(ctx, addr, "serve")
	if err != nil {
		return err
	}
	pids := []int{serve.Process.Pid, r.pg.PID()}
	var before [2]float64
	for i, pid := range pids {
		if before[i], err = cpuAlone(pid, r.pg.PID()); err != nil {
			return err
		}
	}
	start, from := time.Now(), simStats(simAddr)
	var minute map[string]int64
	fmt.Printf("%8s %10s %12s %12s %10s %10s\n", "", "polls/s", "CPU-ms/poll", "violations", "peak MiB", "tables MiB")
	last, lastAt := from, start
	for time.Since(start) < c.For {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(20*time.Second, c.For-time.Since(start)+10*time.Millisecond)):
		}
		now, at := simStats(simAddr), time.Now()
		var used float64
		for i, pid := range pids {
			total, err := cpuAlone(pid, r.pg.PID())
			if err != nil {
				return err
			}
			used += total - before[i]
		}
		sizes, err := r.sizes(ctx)
		if err != nil {
			return err
		}
		if minute == nil && time.Since(start) >= time.Minute {
			minute = sizes
		}
		var all int64
		for _, n := range sizes {
			all += n
		}
		fmt.Printf("%8s %10.0f %12.3f %12d %10.0f %10d\n", time.Since(start).Round(time.Second), float64(now.Requests-last.Requests)/at.Sub(lastAt).Seconds(),
			1000*used/float64(now.Requests-from.Requests), now.Violations, peakMemory(serve.Process.Pid), all>>20)
		last, lastAt = now, at
	}
	sizes, err := r.sizes(ctx)
	if err != nil {
		return err
	}
	total := simStats(simAddr)
	fmt.Printf("%d polls, %.0f a second, %d violations of the limit\n", total.Requests-from.Requests, float64(total.Requests-from.Requests)/time.Since(start).Seconds(), total.Violations)
	printGrowth(minute, sizes)
	return nil
}

func (c benchPollsCommand) register(ctx context.Context, r *rig) error {
	for i := range c.Accounts {
		account, err := r.store.CreateAccount(ctx, fmt.Sprintf("account-%d", i), fmt.Sprintf("sk-mavi-%d", i), 1)
		if err != nil {
			return err
		}
		app, err := r.store.CreateApp(ctx, fmt.Sprintf("app-%d", i), account.ID)
		if err != nil {
			return err
		}
		batch := make([]store.NewTask, c.Tasks)
		for k := range batch {
			batch[k] = store.NewTask{
				AppID: app.ID, AccountID: account.ID, TaskID: fmt.Sprintf("task-%d-%d", i, k), UniqueID: "default", CallbackURL: "http://127.0.0.1:1/",
				Until: store.UntilDownloaded, ExpiresAt: time.Now().Add(24 * time.Hour),
			}
		}
		if _, err := r.store.RegisterTasks(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

func simStats(addr string) (st memoriestest.Stats) {
	resp, err := http.Get("http://" + addr + "/control/stats")
	if err != nil {
		return st
	}
	defer func() { _ = resp.Body.Close() }()
	_ = json.NewDecoder(resp.Body).Decode(&st)
	return st
}

// sizes gives the size of each table and index, in bytes.
func (r *rig) sizes(ctx context.Context) (map[string]int64, error) {
	rows, err := r.store.Pool().Query(ctx, `
		select c.relname::text, pg_relation_size(c.oid)
		from pg_class c
		join pg_namespace n on n.oid = c.relnamespace
		where n.nspname = 'public' and c.relkind in ('r', 'i')`)
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

func printGrowth(before, after map[string]int64) {
	type growth struct {
		name     string
		from, to int64
	}
	var all []growth
	for name, to := range after {
		if from := before[name]; from > 0 && to > from {
			all = append(all, growth{name, from, to})
		}
	}
	sort.Slice(all, func(i, j int) bool {
		return float64(all[i].to)/float64(all[i].from) > float64(all[j].to)/float64(all[j].from)
	})
	fmt.Println("tables and indexes that have grown since the first minute:")
	for _, g := range all {
		fmt.Printf("  %-40s %8d KiB → %8d KiB, × %.2f\n", g.name, g.from>>10, g.to>>10, float64(g.to)/float64(g.from))
	}
	if all == nil {
		fmt.Println("  none")
	}
}
