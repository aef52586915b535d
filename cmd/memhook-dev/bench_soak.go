package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/memhook/memhook/cmd/memhook-dev/proc"
	"github.com/memhook/memhook/memories/memoriestest"
)

type benchSoakCommand struct {
	benchOutput

	For         time.Duration `default:"1h" help:"Duration of the load."`
	Warm        time.Duration `default:"10m" help:"Time after which the state is taken that the end is compared with."`
	Every       time.Duration `default:"10s" help:"Time between two samples."`
	Retention   time.Duration `default:"5m" help:"MEMHOOK_RETENTION: older rows are purged during the load."`
	Accounts    int           `default:"300" help:"Accounts, each with one request per second and its own app."`
	Waiting     int           `default:"100" help:"Tasks per account that are never ready."`
	Rate        int           `default:"200" help:"Tasks per second that are registered over HTTP and ready when first polled."`
	Subscribers int           `default:"12" help:"Callback URLs per task."`
	Latency     answerTime    `default:"mix" help:"How long receivers take to answer: a duration, or mix (median 100 ms, every hundredth 2 to 4 s)."`
	SVG         string        `help:"Write the picture to this file."`
}

// soakBatch is how often an app registers: the tasks of that time go into one request.
const soakBatch = 5 * time.Second

// soak is a running soak test.
type soak struct {
	benchSoakCommand
	*rig

	keys               []string // of the apps
	pid                int      // of memhook
	addr, sink, sim    string
	errors             *errorLines
	registered, failed atomic.Int64 // registrations: one per task and subscriber
	received           int64
}

// Run loads the whole bridge with half of the target delivery rate and watches what must not grow: memory,
// goroutines, connections, tables.
func (c benchSoakCommand) Run(ctx context.Context) error {
	s := &soak{benchSoakCommand: c, errors: &errorLines{}}
	if err := s.open(ctx); err != nil {
		return err
	}
	defer s.close()
	fmt.Printf("%d accounts, %d waiting tasks, %d tasks/s for %d subscribers each, for %s\n",
		c.Accounts, c.Accounts*c.Waiting, c.Rate, c.Subscribers, c.For)
	loading, stop := context.WithCancel(ctx)
	defer stop()
	var load errgroup.Group
	load.Go(func() error { return s.load(loading) })
	samples, err := s.watch(ctx)
	stop()
	if err := errors.Join(err, ignoreCancelled(load.Wait())); err != nil {
		return err
	}
	// The last tasks may still wait for their polls.
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

// open starts everything and registers the waiting tasks.
func (s *soak) open(ctx context.Context) (err error) {
	for _, addr := range []*string{&s.sim, &s.sink} {
		if *addr, err = proc.FreePort(); err != nil {
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
	if err = s.start(ctx, s.sim, "sim", "--addr", s.sim, "--requests-per-second", "1", "--median", "1us"); err != nil {
		return err
	}
	if err = s.start(ctx, s.sink, "bench", "sink", "--addr", s.sink,
		"--hosts", strconv.Itoa(s.Subscribers), "--answer", string(s.Latency)); err != nil {
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
	s.addr, s.pid, err = s.serve(ctx)
	return err
}

// load registers tasks at the rate until ctx ends. Each app registers once per soakBatch.
func (s *soak) load(ctx context.Context) error {
	var group errgroup.Group
	group.SetLimit(16)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: time.Minute}
	each := float64(s.Rate) * soakBatch.Seconds() / float64(len(s.keys)) // tasks per request
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
			batch = append(batch, task{"soak-" + strconv.Itoa(from+i), fmt.Sprintf("http://%s/%d", sinkHost(s.sink, k), k), 1})
		}
	}
	// The end of the load must not cancel a request: the tasks that it registered would be missing from the count.
	return postBatch(context.Background(), client, s.addr, key, batch, len(batch))
}
