package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/memhook/memhook/migrations"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// bundle is a store with an account and an app.
type bundle struct {
	*store.Store
	t       *testing.T
	pool    *pgxpool.Pool
	account store.Account
	app     store.App
}

func newBundle(t *testing.T) *bundle {
	t.Helper()
	return bundleOf(t, storetest.New(t, store.Config{Encode: encode}))
}

// newBundleOn is newBundle on a pool of the caller's.
func newBundleOn(t *testing.T, pool *pgxpool.Pool) *bundle {
	t.Helper()
	return bundleOf(t, storetest.On(t, pool, store.Config{Encode: encode}))
}

func bundleOf(t *testing.T, s *store.Store) *bundle {
	t.Helper()
	b := &bundle{Store: s, t: t, pool: s.Pool()}
	var err error
	if b.account, err = s.CreateAccount(t.Context(), store.NewAccount{Name: "account", APIKey: "sk-mavi-1", RequestsPerSecond: 1000}); err != nil {
		t.Fatal(err)
	}
	if b.app, err = s.CreateApp(t.Context(), "app", b.account.ID); err != nil {
		t.Fatal(err)
	}
	return b
}

func encode(ev store.Event) ([]byte, error) { return json.Marshal(map[string]string{"type": ev.Type}) }

func (b *bundle) task(id, url string) store.Registration {
	return store.Registration{
		AppID: b.app.ID, UpstreamID: id, UniqueID: "default", CallbackURL: url, Until: store.UntilDownloaded,
		ExpiresIn: time.Hour,
	}
}

func (b *bundle) register(id, url string) store.Registered {
	b.t.Helper()
	r, err := b.RegisterTask(b.t.Context(), b.task(id, url))
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *bundle) count(sql string, args ...any) (n int) {
	b.t.Helper()
	if err := b.pool.QueryRow(b.t.Context(), sql, args...).Scan(&n); err != nil {
		b.t.Fatal(err)
	}
	return n
}

const (
	livePollJobs = `select count(*) from river_job where kind = 'poll' and state in ('available', 'scheduled', 'running')`
	deliverJobs  = `select coalesce(sum(coalesce(jsonb_array_length(args -> 'deliveries'), 1)), 0)::int from river_job where kind like 'deliver%'` // the deliveries that have one
)

func (b *bundle) ready(task uuid.UUID, ids ...string) {
	b.t.Helper()
	p := store.Poll{TaskID: task, At: time.Now()}
	for _, id := range ids {
		p.Videos = append(p.Videos, store.Video{ID: id})
	}
	if _, err := b.RecordPoll(b.t.Context(), p); err != nil {
		b.t.Fatal(err)
	}
}

func TestRegisterIsIdempotentUnderConcurrency(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	created := 0
	for range 100 {
		wg.Go(func() {
			// Half goes around the grouping, so that transactions really meet.
			r, err := b.RegisterTasks(context.Background(), []store.Registration{b.task("same", "https://a.example/"), b.task("same", "https://a.example/")})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, one := range r {
				if one.Created {
					created++
				}
			}
		})
	}
	wg.Wait()
	if n := b.count(`select count(*) from tasks`); n != 1 || created != 1 {
		t.Errorf("%d tasks, %d created", n, created)
	}
	if n := b.count(`select count(*) from subscriptions`); n != 1 {
		t.Errorf("%d subscriptions", n)
	}
	if n := b.count(livePollJobs); n != 1 {
		t.Errorf("%d poll jobs", n)
	}
	if err := b.FlushActivity(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := b.count(`select coalesce(sum(registrations), 0)::int from activity`); n != 1 {
		t.Errorf("%d new registrations are counted", n)
	}
}

// Purging takes what is finished and past its time, and nothing that is still waiting or on its way.
func TestPurgeKeepsWhatIsNotFinished(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	done, waits, due := b.register("done", "https://a.example/"), b.register("waits", "https://a.example/"), b.register("due", "https://a.example/")
	at := time.Now()
	for _, r := range []store.Registered{done, due} {
		if _, err := b.RecordPoll(t.Context(), store.Poll{TaskID: r.Task.ID, At: at, NextPollAt: at, Videos: []store.Video{{ID: "PI-1"}}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, sql := range []string{
		`update deliveries d set status = 'delivered', next_attempt_at = null, attempt_count = 1 from tasks t where t.id = d.task and t.task_id = 'done'`,
		`insert into attempts (delivery_id, number, at, duration_ms, outcome) select id, 1, now(), 1, 'delivered' from deliveries`,
		`update tasks set polling = false, ended_at = now() where task_id in ('done', 'due')`,
	} {
		if _, err := b.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Purge(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if n := b.count(`select count(*) from tasks`) + b.count(`select count(*) from events`) + b.count(`select count(*) from deliveries`) + b.count(`select count(*) from attempts`); n != 9 {
		t.Errorf("%d rows are left before their time, want 9", n)
	}
	if _, err := b.Purge(t.Context(), -time.Minute); err != nil {
		t.Fatal(err)
	}
	for what, sql := range map[string]string{
		"the waiting task": `select count(*) from tasks where task_id = 'waits'`, "its subscription": `select count(*) from subscriptions where task = '` + waits.Task.ID.String() + `'`,
		"the pending delivery": `select count(*) from deliveries`, "its attempt": `select count(*) from attempts`, "its event": `select count(*) from events`,
	} {
		if n := b.count(sql); n != 1 {
			t.Errorf("%s: %d, want 1", what, n)
		}
	}
	if n := b.count(`select count(*) from tasks where task_id = 'done'`); n != 0 {
		t.Error("the finished task is still there")
	}
}

// A task that turns ready while a second subscriber registers: the event reaches both, whoever is first.
func TestASubscriberThatComesAsTheTaskTurnsReadyGetsItsEvent(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	task := b.register("task", "https://first.example/").Task
	// The poll's transaction is held up after it has locked the task.
	tx, err := b.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `select 1 from tasks where id = $1 for update`, task.ID); err != nil {
		t.Fatal(err)
	}
	registered := make(chan error, 1)
	go func() {
		_, err := b.RegisterTask(context.Background(), b.task("task", "https://second.example/"))
		registered <- err
	}()
	waitForLock(t, b.pool)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.ready(task.ID, "PI-1")
	if err := <-registered; err != nil {
		t.Fatal(err)
	}
	if n := b.count(`select count(*) from deliveries`); n != 2 {
		t.Errorf("%d deliveries, want one for each subscriber", n)
	}
}

func TestEventExistsExactlyIfItsDeliveriesDo(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	task := b.register("task", "https://a.example/").Task
	b.ready(task.ID)
	if n := b.count(`select count(*) from events`); n != 0 {
		t.Errorf("%d events of an empty list", n)
	}
	b.ready(task.ID, "PI-1", "PI-2")
	again := store.Poll{TaskID: task.ID, At: time.Now().Truncate(time.Millisecond), Videos: []store.Video{{ID: "PI-1"}}}
	polled, err := b.RecordPoll(t.Context(), again)
	if err != nil || !polled.Polling || polled.Target.LastPolledAt == nil || !polled.Target.LastPolledAt.Equal(again.At) {
		t.Errorf("the poller is told %+v, %v", polled, err)
	}
	if e, d, j := b.count(`select count(*) from events`), b.count(`select count(*) from deliveries`), b.count(deliverJobs); e != 1 || d != 1 || j != 1 {
		t.Errorf("%d events, %d deliveries, %d jobs", e, d, j)
	}
	// Where the deliveries cannot be stored, neither is the event, and the task waits on.
	other := b.register("other", "https://a.example/").Task
	if _, err := b.pool.Exec(t.Context(), `alter table deliveries rename to away`); err != nil {
		t.Fatal(err)
	}
	if _, err := b.RecordPoll(t.Context(), store.Poll{TaskID: other.ID, At: time.Now(), Videos: []store.Video{{ID: "PI-3"}}}); err == nil {
		t.Error("recorded without deliveries")
	}
	if n := b.count(`select count(*) from tasks where status = 'waiting'`) + 10*b.count(`select count(*) from events`); n != 11 {
		t.Errorf("got %d, want one waiting task and the one event from before", n)
	}
}

func TestAttemptsKeepTheirDelivery(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.ready(b.register("task", "https://a.example/").Task.ID, "PI-1")
	list, err := b.Deliveries(t.Context(), store.DeliveryFilter{Scope: store.OfApp(b.app.ID)}, store.Page{Limit: 10})
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	d := list[0]
	next := time.Now().Add(time.Minute)
	// Two instances have sent the same delivery at once: one was refused, one was not.
	var wg sync.WaitGroup
	for _, r := range []store.AttemptResult{
		{DeliveryID: d.ID, EndpointID: d.EndpointID, At: time.Now(), NextAttemptAt: &next},
		{DeliveryID: d.ID, EndpointID: d.EndpointID, At: time.Now(), Delivered: true, Healthy: true},
		{DeliveryID: d.ID, EndpointID: d.EndpointID, At: time.Now(), NextAttemptAt: &next},
	} {
		wg.Go(func() {
			if err := b.RecordAttempt(context.Background(), r); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got, err := b.Delivery(t.Context(), store.OfApp(b.app.ID), d.ID)
	if err != nil || got.Status != store.DeliveryDelivered || got.AttemptCount != 3 || len(got.Attempts) != 3 || got.NextAttemptAt != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := b.Delivery(t.Context(), store.OfApp(uuid.New()), d.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("another app reads it: %v", err)
	}
}

// A job that fails because the database is away must not be given up after River's 25 tries.
func TestEachKindOfJobHasItsQueueAndManyTries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := w.Resend(t.Context(), store.OfApp(w.app.ID), w.delivered); err != nil {
		t.Fatal(err)
	}
	if n := w.count(`select count(distinct kind) from river_job`); n != 4 {
		t.Fatalf("%d kinds of jobs, want 4", n)
	}
	if n := w.count(`select count(*) from river_job where queue <> kind or max_attempts <> 10000`); n != 0 {
		t.Errorf("%d jobs have another queue or fewer tries", n)
	}
}

func TestDeadInstancesAreReaped(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.register("task", "https://a.example/")
	dead, alive := uuid.New(), uuid.New()
	for id, age := range map[uuid.UUID]time.Duration{dead: store.InstanceStale + time.Second, alive: 0} {
		if err := b.Heartbeat(t.Context(), store.Instance{ID: id, Name: id.String(), StartedAt: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.pool.Exec(t.Context(), `update instances set beat_at = now() - $2::interval where id = $1`, id, age); err != nil {
			t.Fatal(err)
		}
		if _, err := b.pool.Exec(t.Context(), `insert into river_job (state, kind, args, max_attempts, attempted_at, attempted_by, queue) values ('running', 'deliver', '{}', 5, now(), array['x', $1::text], 'deliver')`, id); err != nil {
			t.Fatal(err)
		}
	}
	freed, err := b.ReapInstances(t.Context())
	if err != nil || freed != 1 {
		t.Errorf("freed %d, %v", freed, err)
	}
	if n := b.count(`select count(*) from river_job where state = 'running' and attempted_by[2] = $1`, alive.String()); n != 1 {
		t.Error("a living instance's job was freed")
	}
}

func TestAWrongEncryptionKeyIsNoticedAtTheStart(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	if err := b.CheckKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.CheckKeys(t.Context()); err != nil {
		t.Errorf("the same key again: %v", err)
	}
	wrong, err := store.ParseKeyring("d3JvbmcgdGVzdHMgc2VhbCB3aXRoIHRoaXMga2V5ISE=")
	if err != nil {
		t.Fatal(err)
	}
	other, err := store.New(b.pool, store.Config{Keys: wrong, Encode: encode})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.CheckKeys(t.Context()); err == nil {
		t.Error("a wrong key was accepted")
	}
}

// Expiry ends what waits. What is ready and settles is told whole all the same, unless nobody polls it for a day.
func TestExpiryDoesNotCutTheSettleWindow(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	ready, waiting := b.register("ready", "https://a.example/").Task.ID, b.register("waiting", "https://a.example/").Task.ID
	b.ready(ready, "PI-1")
	expire := func(sql string) int {
		t.Helper()
		if _, err := b.pool.Exec(t.Context(), `update tasks set expires_at = `+sql); err != nil {
			t.Fatal(err)
		}
		n, _, err := b.ExpireTasks(t.Context(), time.Time{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := expire(`now() - interval '1 hour'`); n != 1 {
		t.Errorf("%d tasks expired, want the waiting one", n)
	}
	b.ready(ready, "PI-1", "PI-2")
	if n := b.count(`select count(*) from events where type = 'task.updated' and task = $1`, ready); n != 1 {
		t.Errorf("%d events tell of the second video", n)
	}
	if n := b.count(`select count(*) from events where type = 'task.expired' and task = $1`, waiting); n != 1 {
		t.Errorf("%d events tell of the expiry", n)
	}
	if n := expire(`now() - interval '25 hours'`); n != 1 {
		t.Errorf("%d tasks ended after a day", n)
	}
	if n := b.count(`select count(*) from tasks where polling`); n != 0 {
		t.Errorf("%d tasks are polled still", n)
	}
	if n := b.count(`select count(*) from events where type = 'task.expired'`); n != 1 {
		t.Errorf("%d tasks expired in all", n)
	}
}

// The version before did not note whose secret was read: its endpoints are kept. Migrating changes no row of theirs.
func TestMigrateKeepsEndpointsWhoseSecretMayBeKnown(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.register("before", "https://before.example/")
	db := stdlib.OpenDBFromPool(b.pool)
	defer func() { _ = db.Close() }()
	before, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := before.DownTo(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	const row = `select xmin::text::bigint::int from endpoints where url = 'https://before.example/'`
	written := b.count(row)
	if err := store.Migrate(t.Context(), b.pool, nil); err != nil {
		t.Fatal(err)
	}
	b.register("after", "https://after.example/")
	b.exec(`delete from subscriptions`)
	if n := b.count(row); n != written {
		t.Error("the row was written")
	}
	if _, err := b.Purge(t.Context(), -time.Hour); err != nil {
		t.Fatal(err)
	}
	if n, m := b.count(`select count(*) from endpoints`), b.count(`select count(*) from endpoints where url = 'https://before.example/'`); n != 1 || m != 1 {
		t.Errorf("%d endpoints are left, %d of them of the version before", n, m)
	}
}

func TestMigrateUpAndDown(t *testing.T) {
	t.Parallel()
	pool := storetest.Pool(t, storetest.EmptyURL(t))
	var wg sync.WaitGroup
	for range 3 { // as instances that start together do
		wg.Go(func() {
			if err := store.Migrate(t.Context(), pool, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := store.CheckSchema(t.Context(), pool); err != nil {
		t.Error(err)
	}
	if _, err := pool.Exec(t.Context(), `insert into goose_db_version (version_id, is_applied) values (99999, true)`); err != nil {
		t.Fatal(err)
	}
	if err := store.CheckSchema(t.Context(), pool); !errors.Is(err, store.ErrSchemaNewer) {
		t.Errorf("a newer schema: %v", err)
	}
	if err := store.Migrate(t.Context(), pool, nil); !errors.Is(err, store.ErrSchemaNewer) {
		t.Errorf("migrating a newer schema: %v", err)
	}
	if _, err := pool.Exec(t.Context(), `delete from goose_db_version where version_id = 99999`); err != nil {
		t.Fatal(err)
	}
	if err := store.MigrateDown(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := pool.QueryRow(t.Context(), `select count(*) from pg_namespace where nspname = 'memhook'`).Scan(&left); err != nil || left != 0 {
		t.Errorf("the schema is left: %d, %v", left, err)
	}
}
