package store_test

import (
	"context"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

// adopted calls AdoptOrphans until it adopts something, for at most a time.
func (b *bundle) adopted(within time.Duration) (n int, err error) {
	b.t.Helper()
	for deadline := time.Now().Add(within); n == 0 && err == nil && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		n, err = b.AdoptOrphans(b.t.Context())
	}
	return n, err
}

// exec runs statements by hand.
func (b *bundle) exec(statements ...string) {
	b.t.Helper()
	for _, sql := range statements {
		if _, err := b.pool.Exec(b.t.Context(), sql); err != nil {
			b.t.Fatal(err)
		}
	}
}

const liveOf = `
	select count(*) from river_job
	where state in ('available', 'scheduled', 'running', 'retryable') and kind = 'deliver' and args ->> 'delivery_id' = $1`

// A job that is removed, in whatever way, is replaced: jobs of first attempts, of retries that were scheduled, of released and
// of resent deliveries, and an account's.
func TestWhateverHasLostItsJobIsAdopted(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]string{
		"deleted":   `delete from river_job`,
		"cancelled": `update river_job set state = 'cancelled', finalized_at = now() - interval '2 h'`,
		"completed": `update river_job set state = 'completed', finalized_at = now()`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, list := announced(t, 4)
			first, retried, parked, resent := list[0], list[1], list[2], list[3]
			soon := time.Now().Add(time.Second)
			for _, r := range []store.AttemptResult{{DeliveryID: retried.ID, NextAttemptAt: &soon}, {DeliveryID: resent.ID, Delivered: true, Healthy: true}} {
				r.EndpointID, r.At, r.SharedJob = first.EndpointID, time.Now(), true
				if err := b.RecordAttempt(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.ParkDelivery(t.Context(), &store.Delivery{ID: parked.ID, EndpointID: parked.EndpointID}); err != nil {
				t.Fatal(err)
			}
			if n, err := b.Release(t.Context(), []store.Room{{EndpointID: parked.EndpointID, Places: 1}}); err != nil || n[parked.EndpointID] != 1 {
				t.Fatal(n, err)
			}
			if err := b.Resend(t.Context(), store.OfApp(b.app.ID), resent.ID); err != nil {
				t.Fatal(err)
			}
			b.exec(lose)
			for start := time.Now(); b.count(`select count(*) from river_job where state = 'available' and kind = 'deliver'`) < 4; time.Sleep(50 * time.Millisecond) {
				if _, err := b.AdoptOrphans(t.Context()); err != nil {
					t.Fatal(err)
				}
				if _, err := b.AdoptJobs(t.Context()); err != nil {
					t.Fatal(err)
				}
				if time.Since(start) > 6*time.Second { // and 4 s until the next sweep make 10 s
					t.Fatal("not all deliveries are adopted")
				}
			}
			for _, d := range []store.Delivery{first, retried, parked, resent} {
				if n := b.count(liveOf, d.ID.String()); n != 1 {
					t.Errorf("%d jobs for %v", n, d.ID)
				}
			}
			if n := b.count(livePollJobs); n != 1 {
				t.Errorf("%d poll jobs", n)
			}
			if n, err := b.AdoptOrphans(t.Context()); err != nil || n != 0 {
				t.Errorf("%d adopted again, %v", n, err)
			}
		})
	}
}

// What is in flight or waits in a queue that is late is left alone, however old it is. It is found when its job is lost then.
func TestNothingWithALiveJobIsAdopted(t *testing.T) {
	t.Parallel()
	b, list := announced(t, 12)
	next := time.Now().Add(-time.Minute) // due, and its job runs
	retried := list[0]
	if err := b.RecordAttempt(t.Context(), store.AttemptResult{
		DeliveryID: retried.ID, EndpointID: retried.EndpointID, At: time.Now(), SharedJob: true, NextAttemptAt: &next,
	}); err != nil {
		t.Fatal(err)
	}
	b.exec(`update river_job set state = 'running', attempted_at = now(), attempted_by = array['x'] where kind like 'deliver%' and id % 2 = 0`)
	for range 40 {
		if n, err := b.AdoptOrphans(t.Context()); err != nil || n != 0 {
			t.Fatalf("%d adopted, %v", n, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	settled := func() (id uuid.UUID) {
		if err := b.pool.QueryRow(t.Context(), `select settled from sweep`).Scan(&id); err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := list[len(list)-1].ID
	if id := settled(); id.String() > first.String() {
		t.Errorf("the sweep is at %v, beyond the first delivery without an attempt, %v", id, first)
	}
	// A minute later they are among those with a job of their own, and still not adopted.
	b.exec(`update deliveries set id = overlay(id::text placing left(id_at(created_at - interval '2 min')::text, 13) from 1 for 13)::uuid where id = '`+first.String()+`'`,
		`update river_job set args = jsonb_set(args, '{deliveries}', (select jsonb_agg(id) from deliveries where attempt_count = 0)) where kind = 'deliver_first'`,
		`update sweep set settled = '00000000-0000-0000-0000-000000000000'`)
	if n, err := b.AdoptOrphans(t.Context()); err != nil || n != 0 {
		t.Fatalf("%d adopted, %v", n, err)
	}
	if n := b.count(`select count(*) from deliveries where retrying and attempt_count = 0`); n != 1 {
		t.Errorf("%d deliveries with a shared job are marked after a minute, want 1", n)
	}
	b.exec(`delete from river_job where kind like 'deliver%'`)
	if n, err := b.AdoptOrphans(t.Context()); err != nil || n != 12 {
		t.Errorf("%d adopted, %v; want 12", n, err)
	}
}

// The jobs of an instance whose row is gone are freed once it has not beaten for a while; those of one that beats are not.
func TestJobsOfUnlistedInstancesAreFreed(t *testing.T) {
	t.Parallel()
	b, _ := announced(t, 20)
	dead, alive := uuid.Must(uuid.NewV7()), store.Instance{ID: uuid.Must(uuid.NewV7()), Name: "alive", StartedAt: time.Now()}
	for i, id := range []uuid.UUID{dead, alive.ID} {
		if _, err := b.pool.Exec(t.Context(), `
			update river_job set state = 'running', attempted_at = now(), attempted_by = array[$1]
			where id = (select id from river_job where kind = 'deliver_first' order by id offset $2 limit 1)`, id.String(), i); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	for freed := int64(0); freed == 0; time.Sleep(100 * time.Millisecond) {
		var err error
		if freed, err = b.ReapInstances(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.Heartbeat(t.Context(), alive); err != nil {
			t.Fatal(err)
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("nothing was freed within 10 s")
		}
	}
	if time.Since(start) < store.InstanceStale {
		t.Errorf("freed after %s", time.Since(start))
	}
	if n := b.count(`select count(*) from river_job where state = 'running' and attempted_by[1] = $1`, alive.ID.String()); n != 1 {
		t.Error("the job of the living instance was freed")
	}
	if n := b.count(`select count(*) from instances where name = 'alive'`); n != 1 {
		t.Error("the living instance has not its name")
	}
}

// Something is made for an endpoint while it is being deleted: it is cancelled.
func TestStragglersOfDeletedEndpointsAreCancelled(t *testing.T) {
	t.Parallel()
	b, list := announced(t, 3)
	b.exec(`update endpoints set deleted_at = now()`,
		`update deliveries set parked = true where id = '`+list[0].ID.String()+`'`,
		`update deliveries set retrying = true, next_attempt_at = now() + interval '1 h' where id = '`+list[1].ID.String()+`'`)
	for start := time.Now(); b.count(`select count(*) from deliveries where status = 'cancelled' and cancelled and not parked`) < 3; time.Sleep(100 * time.Millisecond) {
		if _, err := b.AdoptOrphans(t.Context()); err != nil {
			t.Fatal(err)
		}
		if time.Since(start) > 7*time.Second {
			t.Fatal("pending deliveries on a deleted endpoint")
		}
	}
}

// overdue inserts n deliveries with an event of their own that are due for a retry, nine of ten with a job that lives.
func (b *bundle) overdue(n int) {
	b.t.Helper()
	_, err := b.pool.Exec(b.t.Context(), `
		with made as (select gen_random_uuid() as id, i from generate_series(1, $2) i), e as (
			insert into events (id, app_id, type, payload, created_at) select id, $1, 'webhook.test', '{}', now() from made
		), d as (
			insert into deliveries (id, app_id, event_id, event_type, endpoint_id, status, retrying, next_attempt_at, created_at)
			select id, $1, id, 'webhook.test', $1, 'pending', true, now() - interval '1 min', now() from made
		)
		insert into river_job (kind, queue, state, args, max_attempts)
		select 'deliver_first', 'deliver_first', 'available', jsonb_build_object('deliveries', coalesce(jsonb_agg(id) filter (where i % 10 > 0), '[]')), 10
		from made
		group by i / 10`, b.app.ID, n)
	if err != nil {
		b.t.Fatal(err)
	}
}

// Among tens of thousands of overdue deliveries with their jobs, those without one are found in seconds, however many pages they fill.
func TestOrphansAmongManyOverdue(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for range 5 {
		b.overdue(5000)
	}
	b.exec(`analyze river_job`)
	start := time.Now()
	if n, err := b.AdoptOrphans(t.Context()); n != 2500 || err != nil {
		t.Errorf("%d adopted, want 2,500: %v", n, err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	if n, err := b.AdoptOrphans(t.Context()); n != 0 || err != nil {
		t.Errorf("%d adopted again: %v", n, err)
	}
}

// However many pages the overdue deliveries of many endpoints fill: each is read once, and none is sorted.
func TestOverdueDeliveriesAreReadOnce(t *testing.T) {
	t.Parallel()
	cfg, err := pgxpool.ParseConfig(storetest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(cfg.ConnConfig.RuntimeParams, map[string]string{
		"session_preload_libraries": "auto_explain", "auto_explain.log_min_duration": "0", "auto_explain.log_analyze": "on",
		"client_min_messages": "log",
	})
	var mu sync.Mutex
	var plans []string
	cfg.ConnConfig.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if strings.Contains(n.Message, "coalesce(next_attempt_at, created_at) <") {
			mu.Lock()
			plans = append(plans, n.Message)
			mu.Unlock()
		}
	}
	b := bundleOf(t, storetest.Over(t, cfg, store.Config{Encode: encode}))
	const all = 25_000
	for range 5 {
		b.overdue(all / 5)
	}
	b.exec(`update deliveries set endpoint_id = md5((hashtext(id::text) % 7)::text)::uuid`, `vacuum analyze deliveries`, `analyze river_job`)
	if n, err := b.AdoptOrphans(t.Context()); n != all/10 || err != nil {
		t.Errorf("%d adopted, want %d: %v", n, all/10, err)
	}
	read := 0
	for _, plan := range plans {
		for _, found := range regexp.MustCompile(`Scan .* rows=(\d+)(?:\.00)? loops=1|Rows Removed by Filter: (\d+)`).FindAllStringSubmatch(plan, -1) {
			n, err := strconv.Atoi(found[1] + found[2])
			if err != nil {
				t.Fatal(err)
			}
			read += n
		}
	}
	if len(plans) != 2 || read != all || strings.Contains(strings.Join(plans, ""), "Sort") {
		t.Errorf("%d rows were read in %d pages, want %d in two:\n%s", read, len(plans), all, strings.Join(plans, "\n"))
	}
}

// Accounts get their jobs although deliveries cannot be looked at.
func TestPollJobsAreAdoptedWithoutDeliveries(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConnConfig.Tracer = tracer(func(ctx context.Context, sql string) context.Context {
		if !strings.Contains(sql, "from deliveries") {
			return ctx
		}
		failed, cancel := context.WithCancel(ctx)
		cancel()
		return failed
	})
	b := bundleOf(t, storetest.Over(t, cfg, store.Config{Encode: encode}))
	b.register("task", "https://a.example/")
	b.exec(`delete from river_job`)
	if _, err := b.AdoptOrphans(t.Context()); err == nil {
		t.Fatal("deliveries could be looked at")
	}
	if n, err := b.AdoptJobs(t.Context()); n != 1 || err != nil || b.count(livePollJobs) != 1 {
		t.Errorf("%d poll jobs, want 1: %v", n, err)
	}
}

// A delivery whose event is gone is cancelled: no attempt can be made of it.
func TestDeliveriesWithoutAnEventAreCancelled(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.overdue(10)
	b.exec(`delete from events`)
	if n, err := b.AdoptOrphans(t.Context()); n != 0 || err != nil {
		t.Errorf("%d adopted: %v", n, err)
	}
	if n := b.count(`select count(*) from deliveries where status = 'cancelled'`); n != 10 {
		t.Errorf("%d cancelled, want 10", n)
	}
}
