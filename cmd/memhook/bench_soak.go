package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/memhook/memhook/memories/memoriestest"
)

type benchSoakCommand struct {
	benchOutput

	For         time.Duration `default:"1h" help:"How long."`
	Warm        time.Duration `default:"10m" help:"What is compared with the end: the state after so long."`
	Every       time.Duration `default:"10s" help:"Between two samples."`
	Retention   time.Duration `default:"5m" help:"MEMHOOK_RETENTION: what is older is purged while the load goes on."`
	Accounts    int           `default:"300" help:"Accounts, each with one request a second and an app of its own."`
	Waiting     int           `default:"100" help:"Tasks of each account that are never ready."`
	Rate        int           `default:"200" help:"Tasks a second that are registered over HTTP and ready when first polled."`
	Subscribers int           `default:"12" help:"Callback URLs of each of them."`
	SVG         string        `help:"Write the picture to this file."`
}

// soakBatch is how often an app registers: what has gathered meanwhile goes in one request.
const soakBatch = 5 * time.Second

// soak is a run under way.
type soak struct {
	benchSoakCommand
	*rig

	keys               []string // of the apps
	serve              int      // process id
	addr, sink, sim    string
	errors             *errorLines
	registered, failed atomic.Int64 // registrations: one a task and subscriber
	received           int64
}

// Run loads the whole bridge for long, with half of the deliveries that are aimed at and all that they need, and watches
// what must not grow: memory, goroutines, connections, tables.
func (c benchSoakCommand) Run(ctx context.Context) error {
	s := &soak{benchSoakCommand: c, errors: &errorLines{}}
	if err := s.open(ctx); err != nil {
		return err
	}
	defer s.close()
	fmt.Printf("%d accounts, %d waiting tasks, %d tasks/s for %d subscribers each, for %s\n", c.Accounts, c.Accounts*c.Waiting, c.Rate, c.Subscribers, c.For)
	loading, stop := context.WithCancel(ctx)
	defer stop()
	var load errgroup.Group
	load.Go(func() error { return s.load(loading) })
	samples, err := s.watch(ctx)
	stop()
	if err := errors.Join(err, ignoreCancelled(load.Wait())); err != nil {
		return err
	}
	// What was registered last must still arrive: it may wait for its poll.
	for came := time.Now(); s.received < s.registered.Load() && time.Since(came) < time.Minute && ctx.Err() == nil; time.Sleep(time.Second) {
		before := s.received
		if err := s.collect(); err != nil {
			return err
		}
		if s.received > before {
			came = time.Now()
		}
	}
	if c.SVG != "" {
		if err := os.WriteFile(c.SVG, []byte(soakPicture(samples)), 0o644); err != nil { //nolint:gosec // a picture for everybody
			return err
		}
	}
	return s.report(samples)
}

func ignoreCancelled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// open starts everything, with the waiting tasks registered.
func (s *soak) open(ctx context.Context) (err error) {
	for _, addr := range []*string{&s.sim, &s.sink, &s.addr} {
		if *addr, err = freePort(); err != nil {
			return err
		}
	}
	s.rig, err = newRig(ctx, map[string]string{
		"MEMORIES_BASE_URL": "http://" + s.sim, "MEMHOOK_RETENTION": s.Retention.String(), "MEMHOOK_LOG_FORMAT": "json",
	})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	s.stderr = s.errors
	if _, err = s.start(ctx, s.sim, "sim", "--addr", s.sim, "--requests-per-second", "1", "--median", "1us"); err != nil {
		return err
	}
	if _, err = s.start(ctx, s.sink, "bench", "sink", "--addr", s.sink); err != nil {
		return err
	}
	polls := benchPollsCommand{Accounts: s.Accounts, Tasks: s.Waiting}
	apps, err := polls.register(ctx, s.rig)
	if err != nil {
		return err
	}
	var never []memoriestest.Task
	for i, app := range apps {
		_, key, err := s.store.CreateKey(ctx, app, "soak", nil)
		if err != nil {
			return err
		}
		s.keys = append(s.keys, key)
		for k := range s.Waiting {
			never = append(never, memoriestest.Task{TaskID: polls.taskID(i, k)})
		}
	}
	raw, err := json.Marshal(never)
	if err != nil {
		return err
	}
	resp, err := http.Post("http://"+s.sim+"/control/tasks", "application/json", bytes.NewReader(raw))
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	serve, err := s.start(ctx, s.addr, "serve")
	if err == nil {
		s.serve = serve.Process.Pid
	}
	return err
}

// load registers at the rate until ctx ends. Each app has its turn once a soakBatch.
func (s *soak) load(ctx context.Context) error {
	var group errgroup.Group
	group.SetLimit(16)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: time.Minute}
	each := float64(s.Rate) * soakBatch.Seconds() / float64(len(s.keys)) // tasks of an app's turn
	start, owed, number := time.Now(), 0.0, 0
	for turn := 0; ctx.Err() == nil; turn++ {
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(start.Add(time.Duration(turn) * soakBatch / time.Duration(len(s.keys))))):
		}
		owed += each
		tasks := int(owed)
		owed -= float64(tasks)
		from, key := number, s.keys[turn%len(s.keys)]
		number += tasks
		if tasks == 0 {
			continue
		}
		group.Go(func() error {
			if err := s.register(client, key, from, tasks); err != nil {
				s.failed.Add(1)
				return err
			}
			s.registered.Add(int64(tasks * s.Subscribers))
			return nil
		})
	}
	return group.Wait()
}

// register registers tasks with all their subscribers in one batch.
func (s *soak) register(client *http.Client, key string, from, tasks int) error {
	type task struct {
		TaskID         string `json:"task_id"`
		CallbackURL    string `json:"callback_url"`
		ExpectedVideos int    `json:"expected_videos"`
	}
	batch := make([]task, 0, tasks*s.Subscribers)
	for i := range tasks {
		for k := range s.Subscribers {
			batch = append(batch, task{"soak-" + strconv.Itoa(from+i), fmt.Sprintf("http://%s/%d", s.sink, k), 1})
		}
	}
	// The load's end must not tear a request that is under way: what it registered would be missing from the count.
	return postBatch(context.Background(), client, s.addr, key, batch, len(batch))
}

// soakSample is the state at a moment.
type soakSample struct {
	at                      time.Duration
	memory                  float64 // MiB, resident
	goroutines, connections int
	files                   int     // open file descriptors
	tables                  float64 // MiB, with indexes
	live, dead              int64   // rows
	delivered, polled       int64   // so far
	errors                  int64
}

func (s *soak) watch(ctx context.Context) ([]soakSample, error) {
	var samples []soakSample
	bar := newProgress("soaking")
	defer bar.end()
	start := time.Now()
	fmt.Printf("%8s %10s %10s %11s %6s %10s %10s %10s %12s %8s %7s\n", "", "memory MiB", "goroutines", "connections", "files", "tables MiB", "live rows", "dead rows", "deliveries/s", "polls/s", "errors")
	for said := time.Duration(0); time.Since(start) < s.For; {
		select {
		case <-ctx.Done():
			return samples, ctx.Err()
		case <-time.After(s.Every):
		}
		now, err := s.sample(ctx)
		if err != nil {
			return samples, err
		}
		now.at = time.Since(start)
		samples = append(samples, now)
		if bar.terminal {
			bar.update(int(now.at.Seconds()), int(s.For.Seconds()))
		}
		if now.at-said >= time.Minute {
			said = now.at
			now.print(samples[max(0, len(samples)-7)])
		}
	}
	if len(samples) < 2 {
		return nil, errors.New("a soak takes at least two samples")
	}
	return samples, nil
}

func (x soakSample) print(before soakSample) {
	over := (x.at - before.at).Seconds()
	fmt.Printf("%8s %10.0f %10d %11d %6d %10.0f %10d %10d %12.0f %8.0f %7d\n", x.at.Round(time.Second), x.memory, x.goroutines, x.connections, x.files, x.tables, x.live, x.dead,
		float64(x.delivered-before.delivered)/over, float64(x.polled-before.polled)/over, x.errors)
}

func (s *soak) sample(ctx context.Context) (x soakSample, err error) {
	if err := s.collect(); err != nil {
		return x, err
	}
	x.delivered, x.polled, x.errors = s.received, int64(simStats(s.sim).Requests), s.errors.count.Load()
	x.memory = residentMemory(s.serve)
	files, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(s.serve), "fd"))
	if err != nil {
		return x, err
	}
	x.files = len(files)
	if x.goroutines, err = goroutines(s.addr); err != nil {
		return x, err
	}
	err = s.store.Pool().QueryRow(ctx, `
		select (select count(*) from pg_stat_activity where backend_type = 'client backend'),
			(select sum(pg_total_relation_size(relid)) / 1048576.0 from pg_stat_user_tables)::float8,
			(select sum(n_live_tup) from pg_stat_user_tables)::bigint, (select sum(n_dead_tup) from pg_stat_user_tables)::bigint`).
		Scan(&x.connections, &x.tables, &x.live, &x.dead)
	x.connections -= int(s.store.Pool().Stat().TotalConns()) // ours
	return x, err
}

// collect takes over what the receiver has got since the last time.
func (s *soak) collect() error {
	got, err := drainSink(s.sink)
	if err != nil {
		return err
	}
	s.received += int64(len(got))
	return nil
}

// goroutines reads how many a running memhook has from its metrics.
func goroutines(addr string) (int, error) {
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			return strconv.Atoi(value)
		}
	}
	return 0, errors.New("/metrics has no go_goroutines")
}

// errorLines passes a process's log on and counts its lines at level error.
type errorLines struct {
	count atomic.Int64
}

func (e *errorLines) Write(p []byte) (int, error) {
	e.count.Add(int64(bytes.Count(p, []byte(`"level":"ERROR"`))))
	return os.Stderr.Write(p)
}

// soakWindow is what a state is the mean of: what is in flight in one moment is chance.
const soakWindow = 2 * time.Minute

// stateAt gives the mean of the samples of the window before a time; what only counts up is the last one's.
func stateAt(samples []soakSample, at time.Duration) soakSample {
	var last soakSample
	var memory, goroutines, connections, files, tables, live, dead, n float64
	for _, x := range samples {
		if x.at > at && n > 0 {
			break
		}
		if x.at <= at-soakWindow {
			continue
		}
		last = x
		n++
		memory, tables = memory+x.memory, tables+x.tables
		goroutines, connections, files = goroutines+float64(x.goroutines), connections+float64(x.connections), files+float64(x.files)
		live, dead = live+float64(x.live), dead+float64(x.dead)
	}
	last.memory, last.tables = memory/n, tables/n
	last.goroutines, last.connections, last.files = int(goroutines/n), int(connections/n), int(files/n)
	last.live, last.dead = int64(live/n), int64(dead/n)
	return last
}

// peakOfDead gives the most dead rows that a sample within a time has: vacuum comes and goes.
func peakOfDead(samples []soakSample, from, to time.Duration) (most int64) {
	for _, x := range samples {
		if x.at > from && x.at <= to {
			most = max(most, x.dead)
		}
	}
	return most
}

func (s *soak) report(samples []soakSample) error {
	end := samples[len(samples)-1].at
	warm, last := stateAt(samples, min(s.Warm, end/2)), stateAt(samples, end)
	over := (last.at - warm.at).Seconds()
	fmt.Println()
	rep := s.newReport("soak", "", "after "+warm.at.Round(time.Second).String(), "after "+last.at.Round(time.Second).String(), "change")
	row := func(name string, from, to float64) {
		rep.row(name, decimals(from, 0), decimals(to, 0), fmt.Sprintf("%+.1f %%", 100*(to/max(from, 1e-9)-1)))
	}
	row("resident memory, MiB", warm.memory, last.memory)
	row("goroutines", float64(warm.goroutines), float64(last.goroutines))
	row("connections to PostgreSQL", float64(warm.connections), float64(last.connections))
	row("open files", float64(warm.files), float64(last.files))
	row("tables and indexes, MiB", warm.tables, last.tables)
	row("live rows", float64(warm.live), float64(last.live))
	row("dead rows", float64(warm.dead), float64(last.dead))
	rep.notef("Means of the two minutes before. %d accounts with %d waiting tasks, %d tasks/s with %d subscribers each, what is older than %s purged meanwhile: %.0f deliveries/s and %.0f polls/s.",
		s.Accounts, s.Accounts*s.Waiting, s.Rate, s.Subscribers, s.Retention, float64(last.delivered-warm.delivered)/over, float64(last.polled-warm.polled)/over)
	within := func(what string, from, to float64) {
		rep.target(what+" at the end", "at most 10 % more", fmt.Sprintf("%+.1f %%", 100*(to/max(from, 1e-9)-1)), to <= 1.1*from)
	}
	within("resident memory", warm.memory, last.memory)
	within("goroutines", float64(warm.goroutines), float64(last.goroutines))
	within("connections to PostgreSQL", float64(warm.connections), float64(last.connections))
	early, late := peakOfDead(samples, warm.at, (warm.at+end)/2), peakOfDead(samples, (warm.at+end)/2, end)
	rep.target("most dead rows in the second half of the rest, of the most in the first", "at most × 1.25", fmt.Sprintf("× %.2f", float64(late)/float64(max(early, 1))), float64(late) <= 1.25*float64(early))
	violations := simStats(s.sim).Violations
	rep.target("requests over memories.ai's limit", "0", strconv.Itoa(violations), violations == 0)
	rep.target("log lines at level error", "0", strconv.FormatInt(s.errors.count.Load(), 10), s.errors.count.Load() == 0)
	rep.target("webhooks received of those registered", strconv.FormatInt(s.registered.Load(), 10), strconv.FormatInt(s.received, 10), s.received == s.registered.Load() && s.failed.Load() == 0)
	return rep.end()
}
