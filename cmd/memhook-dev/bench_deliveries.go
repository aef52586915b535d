package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/memhook/memhook/cmd/internal/app"
)

type benchDeliveriesCommand struct {
	benchOutput

	Latency    []answerTime  `default:"0s" help:"How long receivers take to answer: a duration, or mix (median 100 ms, every hundredth 2 to 4 s)."`
	Endpoints  []int         `default:"50" help:"Numbers of callback URLs. Each is measured with each latency."`
	Apps       int           `default:"1" help:"Apps that the callback URLs belong to, where there are as many; else all belong to one app."`
	Hosts      int           `default:"50" help:"Hosts that the callback URLs are spread over: loopback addresses."`
	Events     int           `default:"50000" help:"Events per run; a fifth of it for a single slow callback URL."`
	Runs       int           `default:"5" help:"Runs; the median is reported, with the lowest and the highest."`
	Publishers int           `default:"500" help:"Polls recorded at the same time."`
	Rate       int           `default:"50" help:"Events per second while the latency is measured."`
	For        time.Duration `default:"20s" help:"How long the latency is measured; 0 for not at all."`
	Within     time.Duration `default:"1m" help:"End a run that has not delivered everything after so long."`
	Profile    string        `help:"Measure nothing, but keep a CPU profile of the last load in this file and PostgreSQL's statements in one beside it, .sql."`
	Short      bool          `help:"A selection in about a minute, one run each; the flags above are ignored."`
}

// deliveryLoad is what a run delivers.
type deliveryLoad struct {
	answer          answerTime
	endpoints, apps int
	hosts           int // that the endpoints are spread over
	events          int
	publishers      int
	rate            int // events per second; 0 for as fast as possible
	instances       int
	within          time.Duration // a run ends after so long, whatever has arrived
	profile         string        // the file that gets a CPU profile of the service; empty for none
}

// deliveryHead names the columns of [deliveryRow].
var deliveryHead = []string{
	"", "deliveries/s", "in the middle half", "CPU-s per 1,000", "of it serve", "accepting", "PostgreSQL",
	"most in flight", "serve, peak MiB", "p50 ms", "p99 ms",
}

// Run measures accepting and delivering events with everything on: signing, the guard, the attempt log and durable
// commits. It records polls through the store, as the poll worker does.
func (c *benchDeliveriesCommand) Run(ctx context.Context) error {
	loads := c.loads()
	if c.Profile != "" {
		load := loads[len(loads)-1]
		load.profile = c.Profile
		run, err := load.run(ctx)
		if err != nil {
			return err
		}
		return keepStatements(c.Profile+".sql", run.statements)
	}
	rep := c.newReport("deliveries", deliveryHead...)
	measured := make(map[deliveryLoad][]deliveryRun, len(loads))
	for i, load := range loads {
		runs, paced, err := c.measure(ctx, load, fmt.Sprintf("%d/%d ", i+1, len(loads)))
		if err != nil {
			return err
		}
		measured[load] = runs
		deliveryRow(rep, load.name(), runs, paced)
		load.target(rep, runs, paced)
	}
	compareEndpoints(rep, measured)
	rep.notef("Events per run: %d, for a single slow URL %d, by %d publishers. Signing, the guard, the attempt log and durable commits "+
		"are on. The URLs are of %d hosts, if there are as many. Accepting is the process that records the polls; most in flight is what the "+
		"receiver saw. p50 and p99 are from recorded to received at %d events/s.", c.Events, c.Events/5, c.Publishers, c.Hosts, c.Rate)
	return rep.end()
}

// loads returns what is measured, and with --short replaces the settings by its own.
func (c *benchDeliveriesCommand) loads() (loads []deliveryLoad) {
	if c.Short {
		*c = benchDeliveriesCommand{
			benchOutput: c.benchOutput, Apps: 1000, Hosts: 50, Events: 20_000, Runs: 1, Publishers: 500, Rate: 50, Within: 20 * time.Second,
		}
		return []deliveryLoad{c.load("200ms", 1), c.load("200ms", 50), c.load("0s", 50), c.load("0s", 10_000)}
	}
	for _, answer := range c.Latency {
		for _, n := range c.Endpoints {
			loads = append(loads, c.load(answer, n))
		}
	}
	return loads
}

func (c *benchDeliveriesCommand) load(answer answerTime, endpoints int) deliveryLoad {
	l := deliveryLoad{
		answer: answer, endpoints: endpoints, apps: 1, hosts: min(c.Hosts, endpoints), events: c.Events,
		publishers: c.Publishers, instances: 1, within: c.Within,
	}
	if endpoints >= c.Apps {
		l.apps = c.Apps
	}
	if endpoints == 1 && !answer.none() {
		l.events /= 5
	}
	return l
}

func (l deliveryLoad) name() string {
	name := plural(l.endpoints, "URL")
	if l.apps > 1 {
		name += " of " + plural(l.apps, "app")
	}
	return name + ", " + l.answer.describe()
}

// measure makes the runs of a load as fast as possible, and one at the paced rate unless For is 0.
func (c *benchDeliveriesCommand) measure(
	ctx context.Context, load deliveryLoad, name string,
) (runs []deliveryRun, paced *deliveryRun, err error) {
	// This process records the polls, which a service does with these garbage collector settings.
	tuning, stop := context.WithCancel(ctx)
	defer stop()
	go app.TuneMemory(tuning)
	for i := range c.Runs {
		progress(i, c.Runs, fmt.Sprintf("%s%s: %d events as fast as they go", name, load.name(), load.events))
		run, err := load.run(ctx)
		if err != nil {
			return nil, nil, err
		}
		runs = append(runs, run)
	}
	if c.For == 0 {
		return runs, nil, nil
	}
	progress(c.Runs-1, c.Runs, fmt.Sprintf("%s%s: %d events/s for %s", name, load.name(), c.Rate, c.For))
	load.rate, load.events = c.Rate, int(c.For.Seconds()*float64(c.Rate))
	run, err := load.run(ctx)
	return runs, &run, err
}

// deliveryRow adds the medians of runs with their spreads, and the latencies of the paced run if there is one.
func deliveryRow(rep *report, name string, runs []deliveryRun, paced *deliveryRun) {
	of := func(digits int, value func(deliveryRun) float64) string { return spread(runs, digits, value) }
	p50, p99 := "–", "–"
	if paced != nil {
		p50, p99 = milliseconds(paced.p50), milliseconds(paced.p99)
		paced.noteLosses(rep, name+", paced")
	}
	only := func(digits int, value func(deliveryRun) float64) string {
		return decimals(medianOf(runs, value), digits)
	}
	rep.row(name, of(0, func(r deliveryRun) float64 { return r.perSecond }), of(0, func(r deliveryRun) float64 { return r.steady }),
		of(3, cpuOf), only(3, func(r deliveryRun) float64 { return r.serve }), only(3, func(r deliveryRun) float64 { return r.accept }),
		only(3, func(r deliveryRun) float64 { return r.postgres }), only(0, func(r deliveryRun) float64 { return float64(r.peak) }),
		only(0, func(r deliveryRun) float64 { return r.memory }), p50, p99)
	for _, run := range runs {
		run.noteLosses(rep, name)
	}
}

// target adds the targets that the load has.
func (l deliveryLoad) target(rep *report, runs []deliveryRun, paced *deliveryRun) {
	rate := medianOf(runs, func(r deliveryRun) float64 { return r.perSecond })
	wanted := map[int]float64{1: 1000, 50: 4000}
	if l.answer.none() {
		wanted = map[int]float64{50: 5000}
		if l.endpoints == 50 {
			used := medianOf(runs, cpuOf)
			rep.target(l.name()+": CPU-seconds per 1,000", "0.35", decimals(used, 3), used <= 0.35)
		}
	}
	if least, ok := wanted[l.endpoints]; ok && l.answer != mixed {
		rep.target(l.name()+": deliveries/s", decimals(least, 0), decimals(rate, 0), rate >= least)
	}
	if paced != nil && l.answer.none() {
		rep.target(l.name()+": p50 and p99", "4 ms, 15 ms", milliseconds(paced.p50)+" ms, "+milliseconds(paced.p99)+" ms",
			paced.p50 < 4*time.Millisecond && paced.p99 < 15*time.Millisecond)
	}
	memory := slices.MaxFunc(runs, func(a, b deliveryRun) int { return int(a.memory - b.memory) }).memory
	rep.target(l.name()+": memory of serve", "150 MiB", decimals(memory, 0)+" MiB", memory < 150)
}

// compareEndpoints relates the CPU of 10,000 URLs to that of 50 that answer as fast.
func compareEndpoints(rep *report, measured map[deliveryLoad][]deliveryRun) {
	for many, runs := range measured {
		for few, base := range measured {
			if many.endpoints == 10_000 && few.endpoints == 50 && many.answer == few.answer && few.answer.none() {
				times := medianOf(runs, cpuOf) / medianOf(base, cpuOf)
				rep.target("CPU of "+many.name()+", relative to 50 URLs", "× 1.30", "× "+decimals(times, 2), times <= 1.3)
			}
		}
	}
}
