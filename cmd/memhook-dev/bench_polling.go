package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/memhook/memhook/worker/polling/simulate"
)

type benchPollingCommand struct {
	benchOutput

	Seeds    int           `default:"5" help:"Runs of each policy on each workload, each with its own arrivals."`
	Interval time.Duration `default:"1s" help:"Time between two requests: the account's budget."`
	SVG      string        `help:"Write the picture to this file."`
}

// benchPolicies are the rows of the comparison; memhook's own policy is first.
var benchPolicies = []struct {
	name string
	make func(simulate.Workload) simulate.Policy
}{
	{"memhook: expected lag so far, learnt", func(simulate.Workload) simulate.Policy { return simulate.Learnt() }},
	{"the same, distribution known", simulate.Knowing},
	{"F(τ) × τ, known", rival("F(τ) × τ")},
	{"Whittle: τF(τ) − ∫F, known", rival("Whittle: τF(τ) − ∫F")},
	{"hazard(age) × τ², known", rival("hazard(age) × τ²")},
	{"F(τ) alone, known", rival("F(τ) alone")},
	{"least recently polled first", func(simulate.Workload) simulate.Policy { return simulate.LeastRecent() }},
	{"each task every 15 s", func(simulate.Workload) simulate.Policy {
		return simulate.OwnInterval(15*time.Second, 15*time.Second, 1)
	}},
	{"each task's own backoff, 5 s × 1.5 to 300 s", func(simulate.Workload) simulate.Policy {
		return simulate.OwnInterval(5*time.Second, 5*time.Minute, 1.5)
	}},
}

func rival(name string) func(simulate.Workload) simulate.Policy {
	return func(w simulate.Workload) simulate.Policy { return simulate.Rivals(w)[name] }
}

// benchRow is the mean of a policy's runs on a workload, in seconds.
type benchRow struct {
	mean, p50, p95, p99 float64
	requests            int
}

// Run prints a table for each workload.
func (c benchPollingCommand) Run(ctx context.Context) error {
	var all [][]benchRow
	workloads := simulate.Workloads()
	for i, w := range workloads {
		progress(i, len(workloads), w.Name)
		rows, err := c.measure(ctx, w)
		if err != nil {
			return err
		}
		all = append(all, rows)
		c.print(os.Stdout, w, rows)
	}
	if c.SVG != "" {
		if err := os.WriteFile(c.SVG, []byte(pollingPicture(workloads, all)), 0o644); err != nil { //nolint:gosec // a picture for everybody
			return err
		}
	}
	return c.summarize(workloads, all)
}

// summarize reports mean and p95 of every policy on every workload.
func (c benchPollingCommand) summarize(workloads []simulate.Workload, all [][]benchRow) error {
	head := []string{"mean, p95 of the lag in seconds"}
	for _, w := range workloads {
		head = append(head, w.Name)
	}
	rep := c.newReport("polling", head...)
	for p, policy := range benchPolicies {
		cells := []string{policy.name}
		for _, rows := range all {
			cells = append(cells, decimals(rows[p].mean, 1)+", "+decimals(rows[p].p95, 1))
		}
		rep.row(cells...)
	}
	rep.notef("One request every %s on virtual time, the mean of %d seeds, the same arrivals for all policies.", c.Interval, c.Seeds)
	for g, w := range workloads {
		best := all[g][1].mean
		for _, row := range all[g][1:6] { // those that know the distribution
			best = min(best, row.mean)
		}
		learnt := all[g][0].mean
		rep.target(w.Name+": mean lag, learnt online", "within 10 % of "+decimals(best, 1)+" s, the best that knows the distribution",
			decimals(learnt, 1)+" s", learnt <= 1.1*best)
	}
	return rep.end()
}

// progress prints on standard error how far a benchmark is.
func progress(done, of int, what string) {
	fmt.Fprintf(os.Stderr, "[%d/%d] %s\n", done+1, of, what)
}

func (c benchPollingCommand) measure(ctx context.Context, w simulate.Workload) ([]benchRow, error) {
	rows := make([]benchRow, len(benchPolicies))
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(2)
	for i, p := range benchPolicies {
		for seed := range c.Seeds {
			group.Go(func() error {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				o := simulate.Simulate(w, p.make(w), c.Interval, uint64(seed+1))
				mu.Lock()
				defer mu.Unlock()
				n := float64(c.Seeds)
				r := &rows[i]
				r.mean += o.Mean().Seconds() / n
				r.p50 += o.Quantile(0.5).Seconds() / n
				r.p95 += o.Quantile(0.95).Seconds() / n
				r.p99 += o.Quantile(0.99).Seconds() / n
				r.requests += o.Requests / c.Seeds
				return nil
			})
		}
	}
	return rows, group.Wait()
}

func (benchPollingCommand) print(out io.Writer, w simulate.Workload, rows []benchRow) {
	const head, line = "%s\n%-46s %8s %8s %8s %8s %10s\n", "%-46s %8.1f %8.1f %8.1f %8.1f %10d\n"
	_, _ = fmt.Fprintf(out, head, w.Name, "lag in seconds", "mean", "p50", "p95", "p99", "requests")
	for i, r := range rows {
		_, _ = fmt.Fprintf(out, line, benchPolicies[i].name, r.mean, r.p50, r.p95, r.p99, r.requests)
	}
	_, _ = fmt.Fprintln(out)
}

// pollingPicture draws the mean lags as bars, one group for each workload, scaled to the longest bar of its group.
func pollingPicture(workloads []simulate.Workload, all [][]benchRow) string {
	const left, barHeight, barGap, groupGap, width = 290, 13, 3, 34, 880
	shown := []int{0, 6, 7, 8}
	colours := []string{"#0b7285", "#adb5bd", "#ced4da", "#e8a87c"}
	var b strings.Builder
	y := 40
	for g, w := range workloads {
		longest := 0.0
		for _, i := range shown {
			longest = max(longest, all[g][i].mean)
		}
		fmt.Fprintf(&b, `<text x="10" y="%d" font-weight="600">%s</text>`+"\n", y, w.Name)
		y += 8
		for k, i := range shown {
			length := all[g][i].mean / longest * (width - left - 80)
			fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, left-8, y+barHeight-2, benchPolicies[i].name)
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, left, y, length, barHeight, colours[k])
			fmt.Fprintf(&b, `<text x="%.1f" y="%d">%.1f s</text>`+"\n", float64(left)+length+6, y+barHeight-2, all[g][i].mean)
			y += barHeight + barGap
		}
		y += groupGap
	}
	const title = `<text x="10" y="20" font-size="14" font-weight="600">` +
		"Mean time from ready to detected, at one request a second (shorter is better)</text>\n"
	return picture("Mean time from ready to detected, by polling policy", width, float64(y), title+b.String())
}
