package main

import (
	"context"
	"fmt"
	"time"

	"github.com/memhook/memhook/cmd/memhook-dev/proc"
)

type benchIdleCommand struct {
	benchOutput

	For  time.Duration `default:"30s" help:"How long each run measures."`
	Warm time.Duration `default:"10s" help:"How long the service runs before."`
	Runs int           `default:"3" help:"Runs; the median is reported, with the lowest and the highest."`

	Profile string `help:"Measure nothing, but keep a CPU profile of the service in this file and PostgreSQL's statements in one beside it, .sql."`
}

// idleRun is the result of one run: percents of a core, and MiB.
type idleRun struct{ serve, postgres, memory float64 }

func (run idleRun) cpu() float64 { return run.serve + run.postgres }

// Run measures a service that has nothing to do, and its part of PostgreSQL.
func (c benchIdleCommand) Run(ctx context.Context) error {
	if c.Profile != "" {
		return c.profile(ctx)
	}
	r, err := newRig(ctx, nil)
	if err != nil {
		return err
	}
	defer r.close()
	_, pid, err := r.serve(ctx)
	if err != nil {
		return err
	}
	r.store.Pool().Close() // this process must not keep PostgreSQL busy
	rep := c.newReport("idle", "", "% of a core", "of it serve", "PostgreSQL", "serve, resident MiB")
	progress(0, c.Runs+1, fmt.Sprintf("warming up for %s", c.Warm))
	if err := pause(ctx, c.Warm); err != nil {
		return err
	}
	runs := make([]idleRun, c.Runs)
	for i := range runs {
		progress(i+1, c.Runs+1, fmt.Sprintf("idle for %s", c.For))
		if runs[i], err = c.once(ctx, []int{pid, r.pg.PID()}); err != nil {
			return err
		}
	}
	rep.row("idle", spread(runs, 2, idleRun.cpu), spread(runs, 2, func(r idleRun) float64 { return r.serve }),
		spread(runs, 2, func(r idleRun) float64 { return r.postgres }), spread(runs, 0, func(r idleRun) float64 { return r.memory }))
	rep.notef("%s of %s, after %s. One account, no tasks, no webhooks.", plural(c.Runs, "run"), c.For, c.Warm)
	used, memory := medianOf(runs, idleRun.cpu), medianOf(runs, func(r idleRun) float64 { return r.memory })
	rep.target("idle CPU, PostgreSQL included", "1 % of a core", decimals(used, 2)+" %", used <= 1)
	rep.target("idle memory", "40 MiB", decimals(memory, 0)+" MiB", memory <= 40)
	return rep.end()
}

// once measures the processes of the service and of PostgreSQL.
func (c benchIdleCommand) once(ctx context.Context, pids []int) (run idleRun, err error) {
	before, err := cpuOfAll(pids, pids[1])
	if err != nil {
		return run, err
	}
	start := time.Now()
	if err := pause(ctx, c.For); err != nil {
		return run, err
	}
	after, err := cpuOfAll(pids, pids[1])
	if err != nil {
		return run, err
	}
	percent := 100 / time.Since(start).Seconds()
	return idleRun{(after[0] - before[0]) * percent, (after[1] - before[1]) * percent, proc.ResidentMemory(pids[0])}, nil
}

// profile runs an idle service and keeps what it did.
func (c benchIdleCommand) profile(ctx context.Context) error {
	r, err := newRigFor(ctx, deliveryLoad{profile: c.Profile})
	if err != nil {
		return err
	}
	defer r.close()
	if _, _, err := r.serveProfiled(ctx, c.Profile); err != nil {
		return err
	}
	if err := pause(ctx, c.Warm); err != nil {
		return err
	}
	if err := r.resetStatements(ctx, true); err != nil {
		return err
	}
	if err := pause(ctx, c.For); err != nil {
		return err
	}
	all, err := r.statements(ctx, true)
	if err != nil {
		return err
	}
	return keepStatements(c.Profile+".sql", all)
}

// pause waits for d.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
