package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/cmd/internal/app"
	"github.com/memhook/memhook/cmd/memhook-dev/proc"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
	"github.com/memhook/memhook/worker"
)

type benchFloorCommand struct {
	benchOutput

	Events      int    `default:"30000" help:"POSTs, groups of rows and events per run."`
	Runs        int    `default:"3" help:"Runs; the median is reported, with the lowest and the highest."`
	Connections int    `default:"50" help:"Connections of the bare POST."`
	Group       int    `default:"100" help:"Events, deliveries and attempts written in a transaction."`
	Parts       bool   `default:"true" negatable:"" help:"Make one more run with a CPU profile, which says what the parts take. Needs the go command."`
	Profile     string `help:"File that keeps that profile, for go tool pprof; a file beside it, .sql, keeps PostgreSQL's statements."`
}

// floorRun is the CPU of one run, in seconds per 1,000.
type floorRun struct {
	post            float64
	client, rows    float64 // of the groups: the writer's and PostgreSQL's
	serve, postgres float64 // of a delivery
}

func (run floorRun) floor() float64    { return run.post + run.client + run.rows }
func (run floorRun) delivery() float64 { return run.serve + run.postgres }

// Run measures what a delivery cannot do without, and a delivery beside it: a bare signed POST with net/http, of which
// the sender counts, and its event, its delivery and its attempt, written in groups.
func (c benchFloorCommand) Run(ctx context.Context) error {
	tuning, stop := context.WithCancel(ctx)
	defer stop()
	go app.TuneMemory(tuning)
	load := deliveryLoad{answer: "0s", endpoints: 50, apps: 1, hosts: 1, events: c.Events, publishers: 500, instances: 1, within: time.Minute}
	runs := make([]floorRun, c.Runs)
	for i := range runs {
		progress(i, c.Runs+1, fmt.Sprintf("%d bare POSTs, their rows, and %d deliveries", c.Events, c.Events))
		if err := c.once(ctx, load, &runs[i]); err != nil {
			return err
		}
	}
	rep := c.newReport("floor", "CPU-s per 1,000", "all", "× floor", "of it sending", "PostgreSQL")
	floor := medianOf(runs, floorRun.floor)
	line := func(name string, sending, postgres func(floorRun) float64) {
		both := func(r floorRun) float64 { return sending(r) + postgres(r) }
		rep.row(name, spread(runs, 3, both), spread(runs, 2, func(r floorRun) float64 { return both(r) / r.floor() }),
			spread(runs, 3, sending), spread(runs, 3, postgres))
	}
	line("bare signed POST", func(r floorRun) float64 { return r.post }, func(floorRun) float64 { return 0 })
	line("event, delivery and attempt in groups",
		func(r floorRun) float64 { return r.client }, func(r floorRun) float64 { return r.rows })
	line("the floor: both", func(r floorRun) float64 { return r.post + r.client }, func(r floorRun) float64 { return r.rows })
	line("a delivery", func(r floorRun) float64 { return r.serve }, func(r floorRun) float64 { return r.postgres })
	times := medianOf(runs, func(r floorRun) float64 { return r.delivery() / r.floor() })
	if c.Parts {
		progress(c.Runs, c.Runs+1, "the same with a CPU profile")
		if err := c.parts(ctx, rep, load, medianOf(runs, func(r floorRun) float64 { return r.serve }),
			medianOf(runs, func(r floorRun) float64 { return r.postgres }), floor); err != nil {
			rep.notef("The parts could not be measured: %v.", err)
		}
	}
	rep.notef("%d events, %d connections, groups of %d. The floor's POST has a v1 signature and net/http's client; its rows go into "+
		"memhook's own tables. Of a delivery, sending includes "+
		"the process that records the polls: tasks, events, deliveries and their jobs.", c.Events, c.Connections, c.Group)
	rep.target("CPU of a delivery", "× 2.00 of its floor", "× "+decimals(times, 2), times <= 2)
	return rep.end()
}

// once measures the floor and a delivery, one right after the other.
func (c benchFloorCommand) once(ctx context.Context, load deliveryLoad, run *floorRun) error {
	if err := c.floor(ctx, load, run); err != nil {
		return err
	}
	delivered, err := load.run(ctx)
	if err != nil {
		return err
	}
	if delivered.received != delivered.total {
		return fmt.Errorf("only %d of %d were delivered", delivered.received, delivered.total)
	}
	run.serve, run.postgres = delivered.serve+delivered.accept, delivered.postgres
	return nil
}

// floor sends bare POSTs to a sink, and writes their rows.
func (c benchFloorCommand) floor(ctx context.Context, load deliveryLoad, run *floorRun) error {
	r, err := newRig(ctx, nil)
	if err != nil {
		return err
	}
	defer r.close()
	addr, err := proc.FreePort()
	if err != nil {
		return err
	}
	if err := r.start(ctx, addr, "bench", "sink", "--addr", addr); err != nil {
		return err
	}
	registered, err := r.registerAll(ctx, load.endpoints, func(i int) (uuid.UUID, string) {
		return r.app.ID, fmt.Sprintf("http://%s/endpoint/%d", addr, i)
	})
	if err != nil {
		return err
	}
	pids := []int{os.Getpid(), r.pg.PID()}
	measured := func(work func() error) (self, postgres float64, err error) {
		before, err := cpuOfAll(pids, r.pg.PID())
		if err != nil {
			return 0, 0, err
		}
		if err := work(); err != nil {
			return 0, 0, err
		}
		after, err := cpuOfAll(pids, r.pg.PID())
		if err != nil {
			return 0, 0, err
		}
		return (after[0] - before[0]) / float64(c.Events) * 1000, (after[1] - before[1]) / float64(c.Events) * 1000, nil
	}
	body, err := samplePayload(registered[0])
	if err != nil {
		return err
	}
	if run.post, _, err = measured(func() error { return c.post(ctx, addr, body) }); err != nil {
		return fmt.Errorf("bare POST: %w", err)
	}
	if run.client, run.rows, err = measured(func() error { return c.write(ctx, r, registered, string(body)) }); err != nil {
		return fmt.Errorf("rows in groups: %w", err)
	}
	return nil
}

// samplePayload returns the body of a webhook as the benchmarks' deliveries have it.
func samplePayload(registered store.Registered) ([]byte, error) {
	t := *registered.Task
	t.Videos = []store.Video{{ID: "PI-" + t.ID.String()}}
	return worker.EncodeEvent(store.Event{Type: store.EventReady, CreatedAt: time.Now(), Task: &t})
}

// post sends signed webhooks with net/http.
func (c benchFloorCommand) post(ctx context.Context, addr string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: c.Connections}}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var failure error
	inParallel(c.Connections, c.Events, 0, func(i int) {
		if err := postSigned(ctx, client, fmt.Sprintf("http://%s/endpoint/%d", addr, i%50), "evt_"+uuid.NewString(), body, secret); err != nil {
			mu.Lock()
			defer mu.Unlock()
			failure = err
		}
	})
	return failure
}

func postSigned(ctx context.Context, client *http.Client, url, id string, body, secret []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	at := time.Now()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(webhook.HeaderID, id)
	req.Header.Set(webhook.HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	req.Header.Set(webhook.HeaderSignature, webhook.Sign(id, at, body, [][]byte{secret}))
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return errors.Join(err, resp.Body.Close())
}

// write inserts an event, its delivery and its attempt for each, a group in a transaction.
func (c benchFloorCommand) write(ctx context.Context, r *rig, registered []store.Registered, payload string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	conn, err := r.store.Pool().Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	answer := `{"received":true}`
	for done := 0; done < c.Events; done += c.Group {
		n := min(c.Group, c.Events-done)
		events, deliveries, tasks, endpoints := make([]uuid.UUID, n), make([]uuid.UUID, n), make([]uuid.UUID, n), make([]uuid.UUID, n)
		payloads, answers := make([]string, n), make([]string, n)
		for i := range n {
			from := registered[(done+i)%len(registered)]
			events[i], deliveries[i] = uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
			tasks[i], endpoints[i] = from.Task.ID, from.Task.Subscriptions[0].EndpointID
			payloads[i], answers[i] = payload, answer
		}
		tx, err := conn.Begin(ctx)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `insert into events (id, app_id, task, type, payload, created_at)
			select e, $4, t, 'task.ready', p, now() from unnest($1::uuid[], $2::uuid[], $3::text[]) as n (e, t, p)`,
			events, tasks, payloads, r.app.ID)
		if err == nil {
			_, err = tx.Exec(ctx, `insert into deliveries (id, app_id, event_id, event_type, task, endpoint_id, suffix, status, attempt_count,
					created_at, delivered_at)
				select d, $5, e, 'task.ready', t, p, '', 'delivered', 1, now(), now()
				from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[]) as n (d, e, t, p)`,
				deliveries, events, tasks, endpoints, r.app.ID)
		}
		if err == nil {
			_, err = tx.Exec(ctx, `insert into attempts (delivery_id, number, at, duration_ms, outcome, response_status, response_body)
				select d, 1, now(), 1, 'delivered', 200, a from unnest($1::uuid[], $2::text[]) as n (d, a)`, deliveries, answers)
		}
		if err != nil {
			return errors.Join(err, tx.Rollback(ctx))
		}
		if err := tx.Commit(ctx); err != nil {
			return err
		}
	}
	return nil
}

// parts adds rows that divide a delivery's CPU by the shares that a profile of the service and PostgreSQL's statements have.
func (c benchFloorCommand) parts(ctx context.Context, rep *report, load deliveryLoad, serve, postgres, floor float64) error {
	dir, err := os.MkdirTemp("", "memhook-profile-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	load.profile = cmp.Or(c.Profile, filepath.Join(dir, "cpu.pprof"))
	run, err := load.run(ctx)
	if err != nil {
		return err
	}
	if c.Profile != "" {
		if err := keepStatements(c.Profile+".sql", run.statements); err != nil {
			return err
		}
	}
	inService, err := profileShares(ctx, load.profile)
	if err != nil {
		return err
	}
	accept := run.accept / (run.accept + run.serve)
	inPostgres := statementShares(run.statements)
	for i, p := range parts {
		var a, b float64
		if inService != nil {
			a = inService[i] * serve * (1 - accept)
		}
		if p.name == recordPolls {
			a += serve * accept
		}
		if inPostgres != nil {
			b = inPostgres[i] * postgres
		}
		if a+b >= 0.0005 {
			rep.row("of it: "+p.name, decimals(a+b, 3), decimals((a+b)/floor, 2), decimals(a, 3), decimals(b, 3))
		}
	}
	rep.notef("The parts are shares of one more run: of the service by its CPU profile, of PostgreSQL by the time its statements took.")
	return nil
}
