package store_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

// allocated returns how many bytes fn allocates. Tests that call it are not parallel.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Whoever subscribes late to a task with many long events, and whoever looks at its history, reads none of their payloads.
func TestPayloadsThatNobodyNeedsAreNotRead(t *testing.T) { //nolint:paralleltest // it measures what the process allocates
	b := newBundle(t)
	task := b.register("task", "https://first.example/").Task
	b.ready(task.ID, "PI-1")
	_, err := b.pool.Exec(t.Context(), `
		insert into events (id, app_id, task, type, payload, created_at)
		select overlay(gen_random_uuid()::text placing left(id_at(now())::text, 13) from 1 for 13)::uuid, $1, $2, 'task.updated', repeat('x', 1 << 20), now()
		from generate_series(1, 50)`, b.app.ID, task.ID)
	if err != nil {
		t.Fatal(err)
	}
	const most = 10 << 20
	if n := allocated(func() { b.register("task", "https://second.example/") }); n > most {
		t.Errorf("a late subscriber costs %d MiB", n>>20)
	}
	if n := b.count(`select count(*) from deliveries d join endpoints e on e.id = d.endpoint_id where e.url = 'https://second.example/'`); n != 51 {
		t.Errorf("%d deliveries to a late subscriber, want 51", n)
	}
	n := allocated(func() {
		events, err := b.TaskHistory(t.Context(), task.ID, 40)
		if err != nil || len(events) != 40 || events[0].ID.String() > events[39].ID.String() || events[39].Payload != "" {
			t.Errorf("%d events of the history, %v", len(events), err)
		}
	})
	if n > most {
		t.Errorf("a task's history costs %d MiB", n>>20)
	}
}

// long is n videos of which each has some 600 bytes.
func long(n int) (videos []store.Video) {
	for i := range n {
		videos = append(videos, store.Video{ID: fmt.Sprint("PI-", i), URL: new("https://videos.example/" + strings.Repeat("x", 500)), Status: new("UNPARSE")})
	}
	return videos
}

// Tasks with long lists that are registered again, searched for or expire together are not all in memory at a time.
func TestLongListsOfManyTasksAreNotReadTogether(t *testing.T) { //nolint:paralleltest // it measures what the process allocates
	const tasks, videos = 24, 1100
	b := newBundle(t)
	regs := make([]store.Registration, tasks)
	for i := range regs {
		regs[i] = b.task(fmt.Sprintf("task-%02d", i), "https://a.example/")
		regs[i].Until = store.UntilIndexed
	}
	created, err := b.RegisterTasks(t.Context(), regs)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.RecordPoll(t.Context(), store.Poll{TaskID: created[0].Task.ID, At: time.Now(), Videos: long(videos)}); err != nil {
		t.Fatal(err)
	}
	b.exec(`update tasks set videos = (select videos from tasks where task_id = 'task-00'), status = 'ready'`)
	const most = 20 << 20 // the lists of three tasks, in their forms
	var again []store.Registered
	if n := allocated(func() { again, err = b.RegisterTasks(t.Context(), regs) }); n > most || err != nil {
		t.Errorf("registering again costs %d MiB: %v", n>>20, err)
	}
	if err != nil {
		t.FailNow()
	}
	for i, r := range again {
		if len(r.Task.Videos)+r.Task.VideosOmitted != videos || (i < 3) != (len(r.Task.Videos) == 1000) {
			t.Errorf("task %d is answered with %d videos, and %d are omitted", i, len(r.Task.Videos), r.Task.VideosOmitted)
		}
	}
	var found store.Found
	if n := allocated(func() { found, err = b.Search(t.Context(), store.Everything(), "task-", 20) }); n > most || err != nil || len(found.Tasks) != 20 {
		t.Errorf("searching costs %d MiB for %d tasks: %v", n>>20, len(found.Tasks), err)
	}
	// A list that compresses badly.
	b.exec(`update tasks set expires_at = now() - interval '1 hour',
		videos = (select jsonb_agg(jsonb_build_object('video_id', gen_random_uuid() || '-' || n, 'status', md5(random()::text))) from generate_series(1, 5000) n)`)
	var expired int
	for range tasks {
		before := expired
		if n := allocated(func() {
			var n int
			if n, _, err = b.ExpireTasks(t.Context(), time.Time{}, 500); err != nil {
				t.Fatal(err)
			}
			expired += n
		}); n > 2*most {
			t.Errorf("expiring costs %d MiB", n>>20)
		}
		if expired == before {
			break
		}
	}
	if expired != tasks {
		t.Errorf("%d tasks expired, want %d", expired, tasks)
	}
}

// mostSubscriptions is how many subscriptions a task can have.
const mostSubscriptions = 1000

// callbacks are registrations of one task, each with a callback URL of its own.
func (b *bundle) callbacks(task string, from, to int) (regs []store.Registration) {
	for i := from; i < to; i++ {
		regs = append(regs, b.task(task, fmt.Sprintf("https://a.example/?n=%d", i)))
	}
	return regs
}

// A task has so many subscriptions that its events fit a transaction. Those beyond are refused, each by itself.
func TestSubscriptionsOfATaskAreLimited(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	fresh, err := b.RegisterTasks(t.Context(), b.callbacks("fresh", 0, mostSubscriptions+50))
	if err != nil {
		t.Fatal(err)
	}
	var created, full int
	for _, r := range fresh {
		if r.Created {
			created++
		}
		if r.Full {
			full++
		}
	}
	if created != mostSubscriptions || full != 50 || b.count(`select count(*) from subscriptions`) != mostSubscriptions {
		t.Errorf("%d subscriptions of a new task, %d refused", created, full)
	}
	var refused int
	for i, r := range b.callbacks("fresh", 0, mostSubscriptions+50) {
		if !fresh[i].Full && i%50 != 0 {
			continue // those that were refused, and some that were not
		}
		if again, err := b.RegisterTask(t.Context(), r); errors.Is(err, store.ErrFull) {
			refused++
		} else if err != nil || again.Created {
			t.Errorf("a registration that was there: %+v, %v", again, err)
		}
	}
	if refused != 50 {
		t.Errorf("%d refused again, want 50", refused)
	}
	// Two instances add the last one at the same time.
	if _, err := b.RegisterTasks(t.Context(), b.callbacks("known", 0, mostSubscriptions-1)); err != nil {
		t.Fatal(err)
	}
	tx := begin(t, b)
	for _, sql := range []string{
		`insert into subscriptions (id, task, endpoint_id, suffix) select gen_random_uuid(), id, gen_random_uuid(), '' from tasks where task_id = 'known'`,
		`select 1 from tasks where task_id = 'known' for no key update`,
	} {
		if _, err := tx.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	registered := make(chan error, 1)
	go func() {
		_, err := b.RegisterTask(context.Background(), b.task("known", "https://last.example/"))
		registered <- err
	}()
	waitForLock(t, b.pool)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-registered; !errors.Is(err, store.ErrFull) {
		t.Errorf("beside the last one: %v", err)
	}
}

// Whoever subscribes to a ready task whose event is past its retention is sent another; and while the task is stored, a short
// retention does not delete its events.
func TestALateSubscriberGetsAnEventThatWasPurged(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	reg := b.task("task", "https://first.example/")
	reg.Until = store.UntilIndexed
	first, err := b.RegisterTask(t.Context(), reg)
	if err != nil {
		t.Fatal(err)
	}
	b.ready(first.Task.ID, "PI-1")
	b.exec(`update deliveries set status = 'delivered', delivered_at = now() - interval '2 h',
			id = overlay(id::text placing left(id_at(now() - interval '2 h')::text, 13) from 1 for 13)::uuid`,
		`update events set id = overlay(id::text placing left(id_at(now() - interval '2 h')::text, 13) from 1 for 13)::uuid`)
	if _, err := b.Purge(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if d, e := b.count(`select count(*) from deliveries`), b.count(`select count(*) from events`); d != 0 || e != 1 {
		t.Fatalf("%d deliveries and %d events after the purge, want 0 and 1", d, e)
	}
	const to = `select count(*) from deliveries d join events ev on ev.id = d.event_id join endpoints e on e.id = d.endpoint_id
		where ev.type = 'task.ready' and e.url = $1`
	b.register("task", "https://second.example/")
	if n := b.count(to, "https://second.example/"); n != 1 {
		t.Errorf("%d deliveries to a late subscriber, want 1", n)
	}
	b.exec(`delete from events`, `delete from deliveries`) // as with their day
	b.register("task", "https://third.example/")
	if n := b.count(to, "https://third.example/"); n != 1 {
		t.Errorf("%d deliveries to a late subscriber after the event is gone, want 1", n)
	}
	if n := b.count(`select count(*) from deliveries`); n != 1 {
		t.Errorf("%d deliveries, want no other subscriber's", n)
	}
}

// Registering and telling subscribers read the subscriptions of their tasks, not all that the endpoint has, also before PostgreSQL
// knows that these are many.
func TestOneEndpointOfManyTasksIsNotReadWhole(t *testing.T) {
	t.Parallel()
	url := storetest.URL(t)
	pool, err := store.Open(t.Context(), store.Database{URL: url, Conns: 10, Patience: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	b := newBundleOn(t, pool)
	b.exec(`alter table subscriptions set (autovacuum_enabled = off)`, `alter table tasks set (autovacuum_enabled = off)`)
	const batches, size = 15, 1000
	var last []store.Registered
	for i := range batches {
		regs := make([]store.Registration, size)
		for k := range regs {
			regs[k] = b.task(fmt.Sprint(i*size+k), "https://one.example/")
		}
		if last, err = b.RegisterTasks(t.Context(), regs); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range last[:5] {
		b.ready(r.Task.ID, "PI-1")
	}
	pool.Close() // which makes its sessions report what they read
	stats := storetest.Pool(t, url)
	var read int
	var open bool
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := stats.QueryRow(t.Context(), `
			select coalesce(seq_tup_read, 0) + (select sum(idx_tup_read) from pg_stat_user_indexes where relname = 'subscriptions'),
				(select count(*) from pg_stat_activity where datname = current_database()) > 1
			from pg_stat_user_tables where relname = 'subscriptions'`).Scan(&read, &open)
		if err != nil {
			t.Fatal(err)
		}
		if !open {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the sessions do not end")
		}
	}
	if read < batches*size || read > 4*batches*size {
		t.Errorf("%d entries were read for %d subscriptions", read, batches*size)
	}
}
