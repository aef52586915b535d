package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

// gate holds one statement of a pool before it reaches the database: the one with the number that left is counted down
// from. It sees begin, commit, queries and copies alike.
type gate struct {
	mu               sync.Mutex
	left             int
	reached, release chan struct{}
}

func (g *gate) arm(statement int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left, g.reached, g.release = statement, make(chan struct{}), make(chan struct{})
}

func (g *gate) start(ctx context.Context, _ string) context.Context {
	g.mu.Lock()
	g.left--
	held, reached, release := g.left == 0, g.reached, g.release
	g.mu.Unlock()
	if held {
		close(reached)
		<-release
	}
	return ctx
}

// duel is a database with two stores: the statements of one can be held, those of the other run beside them.
type duel struct {
	*bundle // over the statements of neither

	held, free *store.Store
	gate       *gate
	cases      int
}

func newDuel(t *testing.T) *duel {
	t.Helper()
	url := storetest.URL(t)
	over := func(name string, g *gate) *store.Store {
		cfg, err := pgxpool.ParseConfig(url)
		if err != nil {
			t.Fatal(err)
		}
		cfg.MaxConns = 3
		cfg.ConnConfig.RuntimeParams["application_name"] = name
		cfg.ConnConfig.RuntimeParams["deadlock_timeout"] = "30ms"
		if g != nil {
			cfg.ConnConfig.Tracer = tracer(g.start)
		}
		return storetest.Over(t, cfg, store.Config{Encode: encode, Settle: time.Minute})
	}
	d := &duel{gate: &gate{}}
	d.held, d.free = over("held", d.gate), over("free", nil)
	plain := over("plain", nil)
	d.bundle = &bundle{Store: plain, t: t, pool: plain.Pool()}
	return d
}

// stage is what two operations meet on: an app of its own, with something of everything.
type stage struct {
	*duel

	n                     int
	account, spare        store.Account
	app                   store.App
	waiting, ready        *store.Task
	endpoint              uuid.UUID // of all tasks
	parking               uuid.UUID // has a parked delivery
	pending, done, failed uuid.UUID // deliveries to endpoint
}

// path returns a callback URL of the stage's app.
func (st *stage) path(rest string) string { return fmt.Sprintf("https://%d.example/in/%s", st.n, rest) }

func (d *duel) newStage() *stage {
	d.t.Helper()
	ctx := d.t.Context()
	must := func(err error) {
		d.t.Helper()
		if err != nil {
			d.t.Fatal(err)
		}
	}
	d.cases++
	st := &stage{duel: d, n: d.cases}
	var err error
	for _, into := range []*store.Account{&st.account, &st.spare} {
		name := newName()
		*into, err = d.CreateAccount(ctx, store.NewAccount{Name: name, APIKey: name, RequestsPerSecond: 1000})
		must(err)
	}
	st.app, err = d.CreateApp(ctx, newName(), st.account.ID)
	must(err)
	listen, err := d.CreateEndpoint(ctx, st.app.ID, store.EndpointSettings{
		URL:        new(fmt.Sprintf("https://listen-%d.example/", st.n)),
		EventTypes: &[]string{store.EventEndpointFailing, store.EventEndpointDisabled, store.EventEndpointRecovered},
	})
	must(err)
	_, err = d.pool.Exec(ctx, `update endpoints set hold_until = now() + interval '1 hour', breaker = 'open' where id = $1`, listen.ID)
	must(err)
	var regs []store.Registration
	for _, r := range [][2]string{{"waiting", "h?w"}, {"ready", "h"}, {"done", "h?d"}, {"failed", "h?f"}, {"parked", "../out/p"}} {
		reg := d.task(r[0], strings.Replace(st.path(r[1]), "/in/../", "/", 1))
		reg.AppID = st.app.ID
		regs = append(regs, reg)
	}
	registered, err := d.RegisterTasks(ctx, regs)
	must(err)
	st.waiting, st.ready = registered[0].Task, registered[1].Task
	st.endpoint, st.parking = registered[0].Task.Subscriptions[0].EndpointID, registered[4].Task.Subscriptions[0].EndpointID
	_, err = d.pool.Exec(ctx, `update endpoints set hold_until = now() + interval '1 hour' where id = $1`, st.parking)
	must(err)
	var wg sync.WaitGroup
	for _, r := range registered[1:] {
		wg.Go(func() { d.ready(r.Task.ID, "PI-1") })
	}
	wg.Wait()
	byTask := func(i int) (id uuid.UUID) {
		must(d.pool.QueryRow(ctx, `select id from deliveries where task = $1`, registered[i].Task.ID).Scan(&id))
		return id
	}
	st.pending, st.done, st.failed = byTask(1), byTask(2), byTask(3)
	must(d.RecordAttempt(ctx, store.AttemptResult{DeliveryID: st.done, EndpointID: st.endpoint, At: time.Now(), SharedJob: true, Delivered: true, Healthy: true}))
	must(d.RecordAttempt(ctx, store.AttemptResult{DeliveryID: st.failed, EndpointID: st.endpoint, At: time.Now(), SharedJob: true}))
	_, err = d.pool.Exec(ctx, `update endpoints set hold_until = null where id = $1`, st.parking)
	must(err)
	return st
}

func newName() string { return uuid.Must(uuid.NewV7()).String() }

// operation is something that a store does on a stage.
type operation struct {
	name    string
	call    func(context.Context, *store.Store, *stage) error
	prepare string // SQL with the app's id
	deletes bool   // the endpoint
}

const lostSubscribers = "tasks have lost their subscribers"

// works are what clients, pollers and deliveries do.
func works() []operation {
	attempt := func(r store.AttemptResult) func(context.Context, *store.Store, *stage) error {
		return func(ctx context.Context, s *store.Store, st *stage) error {
			r := r // two may record at once
			r.DeliveryID, r.EndpointID, r.At, r.SharedJob = st.pending, st.endpoint, time.Now(), true
			return s.RecordAttempt(ctx, r)
		}
	}
	register := func(id, path string) func(context.Context, *store.Store, *stage) error {
		return func(ctx context.Context, s *store.Store, st *stage) error {
			r := st.task(id, st.path(path))
			r.AppID = st.app.ID
			_, err := s.RegisterTask(ctx, r)
			return err
		}
	}
	next := time.Now().Add(time.Hour)
	return []operation{
		{"register a task at a known endpoint", register("new", "h?new"), "", false},
		{"register a task at a new endpoint", register("new", "new?x"), "", false},
		{"register a waiting task again", register("waiting", "other"), "", false},
		{"register a ready task again", register("ready", "h?again"), "", false},
		{"record a poll that makes ready", func(ctx context.Context, s *store.Store, st *stage) error {
			_, err := s.RecordPoll(ctx, store.Poll{TaskID: st.waiting.ID, At: time.Now(), Videos: []store.Video{{ID: "PI-1"}}})
			return err
		}, "", false},
		{"record a success", attempt(store.AttemptResult{Delivered: true, Healthy: true}), "", false},
		{"record a failure", attempt(store.AttemptResult{NextAttemptAt: &next}), "", false},
		{"record that a receiver is gone", attempt(store.AttemptResult{Gone: true}), "", false},
		{"record a probe that succeeds", attempt(store.AttemptResult{Delivered: true, Released: true}), `update endpoints set breaker = 'half-open', failures = 10 where app_id = $1 and url like '%/h'`, false},
		{"resend", func(ctx context.Context, s *store.Store, st *stage) error {
			return s.Resend(ctx, store.OfApp(st.app.ID), st.done)
		}, "", false},
		{"recover", func(ctx context.Context, s *store.Store, st *stage) error {
			_, err := s.Recover(ctx, store.OfApp(st.app.ID), st.endpoint, new(time.Now().Add(-time.Hour)))
			return err
		}, "", false},
		{"release", func(ctx context.Context, s *store.Store, st *stage) error {
			_, err := s.Release(ctx, []store.Room{{EndpointID: st.parking, Places: 10}})
			return err
		}, "", false},
		{"park", func(ctx context.Context, s *store.Store, st *stage) error {
			return s.ParkDelivery(ctx, &store.Delivery{ID: st.pending, EndpointID: st.endpoint})
		}, "", false},
		{"test an endpoint", func(ctx context.Context, s *store.Store, st *stage) error {
			_, err := s.TestEndpoint(ctx, store.OfApp(st.app.ID), st.endpoint)
			return err
		}, "", false},
		{"expire tasks", func(ctx context.Context, s *store.Store, _ *stage) error {
			_, _, err := s.ExpireTasks(ctx, time.Time{}, 100)
			return err
		},
			`update tasks set expires_at = now() where app_id = $1 and status = 'waiting'`, false},
		{"cancel a task", func(ctx context.Context, s *store.Store, st *stage) error {
			return s.CancelTask(ctx, store.OfApp(st.app.ID), st.waiting.ID)
		}, "", false},
	}
}

// changes are what owners and operators do to apps, accounts and endpoints.
func changes() []operation {
	patch := func(set func(*stage) store.EndpointSettings) func(context.Context, *store.Store, *stage) error {
		return func(ctx context.Context, s *store.Store, st *stage) error {
			_, err := s.UpdateEndpoint(ctx, store.OfApp(st.app.ID), st.endpoint, set(st))
			return err
		}
	}
	return []operation{
		{"delete the app", func(ctx context.Context, s *store.Store, st *stage) error { return s.DeleteApp(ctx, st.app.ID) }, "", false},
		{"move and rename the app", func(ctx context.Context, s *store.Store, st *stage) error {
			_, err := s.UpdateApp(ctx, st.app.ID, new(newName()), &st.spare.ID)
			return err
		}, "", false},
		{"move the app and delete its account", func(ctx context.Context, s *store.Store, st *stage) error {
			_, err := s.UpdateApp(ctx, st.app.ID, nil, &st.spare.ID)
			return errors.Join(err, s.DeleteAccount(ctx, st.account.ID))
		}, "", false},
		{"delete the spare account", func(ctx context.Context, s *store.Store, st *stage) error { return s.DeleteAccount(ctx, st.spare.ID) }, "", false},
		{"change the account", func(ctx context.Context, s *store.Store, st *stage) error {
			_, err := s.UpdateAccount(ctx, st.account.ID, store.AccountChange{Name: new(newName()), APIKey: new(newName()), RequestsPerSecond: new(5.0)})
			return err
		}, "", false},
		{"delete the endpoint", func(ctx context.Context, s *store.Store, st *stage) error {
			return s.DeleteEndpoint(ctx, store.OfApp(st.app.ID), st.endpoint)
		}, "", true},
		{"move the endpoint", patch(func(st *stage) store.EndpointSettings { return store.EndpointSettings{URL: new(st.path("moved"))} }), "", false},
		{"disable the endpoint", patch(func(*stage) store.EndpointSettings { return store.EndpointSettings{Enabled: new(false)} }), "", false},
		{"enable the endpoint", patch(func(*stage) store.EndpointSettings { return store.EndpointSettings{Enabled: new(true)} }), `update endpoints set enabled = false where app_id = $1 and url like '%/h'`, false},
		{"make one endpoint of all", func(ctx context.Context, s *store.Store, st *stage) error {
			_, err := s.CreateEndpoint(ctx, st.app.ID, store.EndpointSettings{URL: new(st.path("*"))})
			return err
		}, "", false},
	}
}

// duels runs each operation of one list with each statement of it held in turn, while one of the other list runs. The
// short form holds every third statement, beginning with another one for each pair.
func duels(t *testing.T, held, free []operation) {
	step := 3
	if os.Getenv("MEMHOOK_LONG") != "" {
		step = 1
	}
	for _, a := range held {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			d := newDuel(t)
			for i, b := range free {
				for statement := 1 + i%step; d.meet(a, b, statement); statement += step {
				}
			}
		})
	}
}

// meet holds the given statement of a until b has ended or waits for a lock, and reports whether a has such a statement.
func (d *duel) meet(a, b operation, statement int) (reached bool) {
	d.t.Helper()
	ctx := d.t.Context()
	st := d.newStage()
	for _, op := range []operation{a, b} {
		if op.prepare != "" {
			if _, err := d.pool.Exec(ctx, op.prepare, st.app.ID); err != nil {
				d.t.Fatal(err)
			}
		}
	}
	d.gate.arm(statement)
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- a.call(ctx, d.held, st) }()
	var errA, errB error
	select {
	case <-d.gate.reached:
		reached = true
	case errA = <-first:
	}
	go func() { second <- b.call(ctx, d.free, st) }()
	ended := false
	for deadline := time.Now().Add(10 * time.Second); !ended && !d.waits(); {
		select {
		case errB = <-second:
			ended = true
		case <-time.After(time.Millisecond):
			if time.Now().After(deadline) {
				d.t.Fatalf("%s (held at statement %d) beside %s: it neither ends nor waits", a.name, statement, b.name)
			}
		}
	}
	if reached {
		close(d.gate.release)
		errA = <-first
	}
	if !ended {
		errB = <-second
	}
	for name, err := range map[string]error{a.name: errA, b.name: errB} {
		if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrConflict) {
			d.t.Errorf("%s (held at statement %d) beside %s: %s: %v", a.name, statement, b.name, name, err)
		}
	}
	for _, wrong := range st.wrongs(a.deletes || b.deletes) {
		d.t.Errorf("%s (held at statement %d) beside %s: %s (%v, %v)", a.name, statement, b.name, wrong, errA, errB)
	}
	return reached
}

// waits reports whether a statement of the free store waits for a lock.
func (d *duel) waits() bool {
	return d.count(`select count(*) from pg_stat_activity
		where datname = current_database() and application_name = 'free' and wait_event_type = 'Lock'`) > 0
}

// wrongs says what of the stage must not be, whatever has happened. deleted says that somebody wanted the endpoint deleted.
func (st *stage) wrongs(deleted bool) (out []string) {
	st.t.Helper()
	for _, check := range []struct{ what, sql string }{
		{"deliveries are pending at a deleted endpoint", `
			select count(*) from deliveries d join endpoints e on e.id = d.endpoint_id
			where d.app_id = $1 and d.status = 'pending' and e.deleted_at is not null`},
		{"subscriptions of a deleted endpoint are left", `
			select count(*) from subscriptions s join endpoints e on e.id = s.endpoint_id where e.app_id = $1 and e.deleted_at is not null`},
		{"tasks of a deleted app are polled", `
			select count(*) from tasks t join apps a on a.id = t.app_id where a.id = $1 and a.deleted_at is not null and t.polling`},
		{"endpoints of a deleted app are left", `
			select count(*) from endpoints e join apps a on a.id = e.app_id where a.id = $1 and a.deleted_at is not null and e.deleted_at is null`},
		{"tasks are polled of another account than their app's", `
			select count(*) from tasks t join apps a on a.id = t.app_id where a.id = $1 and t.polling and t.account_id <> a.account_id`},
		{"tasks are polled whose account has no poll job", `
			select count(*) from tasks t left join accounts a on a.id = t.account_id
			where t.app_id = $1 and t.polling and (a.poll_job is not true or not exists (
				select 1 from river_job j where j.kind = 'poll' and j.args ->> 'account_id' = a.id::text and j.finalized_at is null))`},
		{"parked deliveries are left to an endpoint without a backlog", `
			select count(*) from deliveries d join endpoints e on e.id = d.endpoint_id where d.app_id = $1 and d.parked and not e.backlog`},
		{"pending deliveries have no job", `
			select count(*) from deliveries d
			where d.app_id = $1 and d.status = 'pending' and not d.parked and not exists (
				select 1 from river_job j where j.kind = 'deliver' and j.args ->> 'delivery_id' = d.id::text
					and coalesce((j.args ->> 'generation')::int, 0) = d.generation
				union all
				select 1 from river_job j where j.kind = 'deliver_first' and d.attempt_count = 0 and d.generation = 0
					and j.args -> 'deliveries' ? d.id::text)`},
		{"subscribers have not been sent what happened", `
			select count(*) from events v join subscriptions s on s.task = v.task join endpoints e on e.id = s.endpoint_id
			where v.app_id = $1 and (e.event_types is null or v.type = any(e.event_types)) and not exists (
				select 1 from deliveries d join endpoints f on f.id = d.endpoint_id
				where d.event_id = v.id and (d.endpoint_id = s.endpoint_id and d.suffix = s.suffix
					or f.deleted_at is not null and e.url like '%/*' and f.url || d.suffix = left(e.url, -1) || s.suffix))`},
		{lostSubscribers, `
			select count(*) from tasks t join apps a on a.id = t.app_id
			where a.id = $1 and a.deleted_at is null and not exists (select 1 from subscriptions s where s.task = t.id)`},
	} {
		if n := st.count(check.sql, st.app.ID); n > 0 && (!deleted || check.what != lostSubscribers) {
			out = append(out, fmt.Sprintf("%d %s", n, check.what))
		}
	}
	return out
}

// Whatever clients, pollers and deliveries do while an app, an account or an endpoint is changed or deleted: nothing that
// was accepted is lost, nothing lives on of what was deleted, and nobody meets an error of the database.
func TestWorkBesideChanges(t *testing.T) {
	t.Parallel()
	duels(t, works(), changes())
}

func TestChangesBesideWork(t *testing.T) {
	t.Parallel()
	duels(t, changes(), works())
}

func TestChangesBesideChanges(t *testing.T) {
	t.Parallel()
	duels(t, changes(), changes())
}

func TestWorkBesideWork(t *testing.T) {
	t.Parallel()
	duels(t, works(), works())
}

// Many conflicts at once end as conflicts, with fewer connections than there are callers: none of them holds a connection
// while it waits for another.
func TestConflictsNeedOneConnection(t *testing.T) {
	t.Parallel()
	cfg, err := pgxpool.ParseConfig(storetest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	cfg.MaxConns = 2
	s := storetest.Over(t, cfg, store.Config{Encode: encode})
	accounts := make([]store.Account, 2)
	for i := range accounts {
		if accounts[i], err = s.CreateAccount(t.Context(), store.NewAccount{Name: fmt.Sprint(i), APIKey: fmt.Sprint("key ", i), RequestsPerSecond: 1}); err != nil {
			t.Fatal(err)
		}
	}
	app, err := s.CreateApp(t.Context(), "app", accounts[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.CreateEndpoint(t.Context(), app.ID, store.EndpointSettings{URL: new("https://a.example/other")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, op := range []struct {
		name string
		call func() error
	}{
		{"create an endpoint", func() error {
			_, err := s.CreateEndpoint(ctx, app.ID, store.EndpointSettings{URL: new("https://a.example/same")})
			return err
		}},
		{"move an endpoint", func() error {
			_, err := s.UpdateEndpoint(ctx, store.OfApp(app.ID), other.ID, store.EndpointSettings{URL: new("https://a.example/same")})
			return err
		}},
		{"change an account", func() error {
			_, err := s.UpdateAccount(ctx, accounts[1].ID, store.AccountChange{APIKey: new("key 0")})
			return err
		}},
	} {
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if err := op.call(); err != nil && !errors.Is(err, store.ErrConflict) {
					t.Errorf("%s: %v", op.name, err)
				}
			})
		}
		wg.Wait()
	}
}
