package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
	"github.com/memhook/memhook/worker"
)

func TestADeadInstancesWorkIsTakenOver(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	var open atomic.Bool
	b.receiver.answers(func(int, received) int {
		for !open.Load() { // in flight until the kill
			time.Sleep(10 * time.Millisecond)
		}
		return http.StatusNoContent
	})
	in := b.start("")
	for i := range 20 {
		in.registerAt(fmt.Sprintf("task-%d", i), b.receiver.URL)
	}
	b.receiver.await(t, 20, 10*time.Second)
	other := b.start("")
	in.kill()
	killed := time.Now()
	open.Store(true)
	all := b.receiver.await(t, 40, 11*time.Second)
	t.Logf("sent again by the other instance %s after the kill", time.Since(killed))
	until(t, 20*time.Second, "all are delivered", func() bool { return b.query(`select count(*) from deliveries where status = 'delivered'`) == 20 })
	if n := len(b.receiver.all()); n > 40 {
		t.Errorf("%d webhooks for 20 that were in flight", n)
	}
	times := make(map[string]int)
	for _, got := range all {
		times[got.id]++
	}
	if len(times) != 20 {
		t.Errorf("%d events, want 20", len(times))
	}
	// Alone, it is its own successor.
	open.Store(false)
	for i := range 10 {
		other.registerAt(fmt.Sprintf("again-%d", i), b.receiver.URL)
	}
	b.receiver.await(t, 50, 10*time.Second)
	other.kill()
	open.Store(true)
	restarted := time.Now()
	b.start(strings.TrimPrefix(other.url, "http://"))
	b.receiver.await(t, 60, 3*time.Second)
	t.Logf("sent again %s after the restart began", time.Since(restarted))
}

// First attempts share a job. One that is in flight at a kill is repeated; those beside it that are on disk are not, and
// were not held up by it.
func TestOnlyWhatWasInFlightIsRepeated(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	hanging := newReceiver(t)
	release := make(chan struct{})
	hanging.answers(func(n int, _ received) int {
		if n == 1 {
			<-release
		}
		return http.StatusNoContent
	})
	in := b.start("")
	b.sim.Add(readyAfter("task", time.Second, "PI-1"))
	for i := range 9 {
		in.register("task", map[string]any{"callback_url": fmt.Sprintf("%s/%d", b.receiver.URL, i)})
	}
	in.register("task", map[string]any{"callback_url": hanging.URL})
	b.receiver.await(t, 9, 10*time.Second)
	hanging.await(t, 1, 10*time.Second)
	until(t, 20*time.Second, "the nine are on disk", func() bool { return b.query(`select count(*) from deliveries where status = 'delivered'`) == 9 })
	if n := b.query(`select count(*) from river_job where kind = 'deliver_first' and state = 'running'`); n != 1 {
		t.Errorf("%d jobs run, want the one of all ten", n)
	}
	in.kill()
	close(release)
	b.start(strings.TrimPrefix(in.url, "http://"))
	hanging.await(t, 2, 5*time.Second)
	until(t, 20*time.Second, "all are delivered", func() bool { return b.query(`select count(*) from deliveries where status = 'delivered'`) == 10 })
	if got := hanging.all(); got[0].id != got[1].id {
		t.Errorf("repeated as %s after %s", got[1].id, got[0].id)
	}
	if n := len(b.receiver.all()); n != 9 {
		t.Errorf("%d webhooks for the nine that were on disk", n)
	}
}

// store opens the bench's database as an instance does.
func (b *bench) store() (*store.Store, store.App) {
	b.t.Helper()
	keys, err := store.ParseKeyring(storetest.EncryptionKey)
	if err != nil {
		b.t.Fatal(err)
	}
	s, err := store.New(storetest.Pool(b.t, b.database), store.Config{Keys: keys, Encode: worker.EncodeEvent, Settle: time.Minute})
	if err != nil {
		b.t.Fatal(err)
	}
	apps, err := s.Apps(b.t.Context(), store.Page{Limit: 10})
	if err != nil || len(apps) == 0 {
		b.t.Fatalf("apps: %v %v", apps, err)
	}
	return s, apps[0]
}

// publish makes n events, rate a second, as polls that show a video do; it returns at once.
func (b *bench) publish(s *store.Store, app store.App, name string, n, rate int) (done <-chan struct{}) {
	b.t.Helper()
	news := make([]store.Registration, n)
	for i := range news {
		news[i] = store.Registration{
			AppID: app.ID, UpstreamID: fmt.Sprintf("%s-%d", name, i), UniqueID: "default",
			CallbackURL: fmt.Sprintf("%s/%d", b.receiver.URL, i%50), Until: store.UntilDownloaded, ExpiresIn: time.Hour,
		}
	}
	tasks := make([]store.Registered, 0, n)
	for len(tasks) < n {
		out, err := s.RegisterTasks(b.t.Context(), news[len(tasks):min(len(tasks)+1000, n)])
		if err != nil {
			b.t.Fatal(err)
		}
		tasks = append(tasks, out...)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		var wg sync.WaitGroup
		begin := time.Now()
		for i, r := range tasks {
			time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(rate))))
			wg.Go(func() {
				at := time.Now()
				p := store.Poll{TaskID: r.Task.ID, At: at, NextPollAt: at, Videos: []store.Video{{ID: "PI-" + r.Task.UpstreamID}}}
				if _, err := s.RecordPoll(context.Background(), p); err != nil {
					b.t.Error(err)
				}
			})
		}
		wg.Wait()
	}()
	return over
}

// running gives the deliveries whose jobs an instance has running.
func (b *bench) running(s *store.Store, in *instance) []uuid.UUID {
	b.t.Helper()
	rows, err := s.Pool().Query(b.t.Context(), `
		select d.id
		from river_job j
		join instances i on i.id::text = j.attempted_by[array_upper(j.attempted_by, 1)]
		join deliveries d on d.id::text = j.args ->> 'delivery_id' or j.args -> 'deliveries' ? d.id::text
		where j.kind like 'deliver%' and j.state = 'running' and d.status = 'pending' and i.name like '%' || $1`, strings.TrimPrefix(in.url, "http://"))
	if err != nil {
		b.t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		b.t.Fatal(err)
	}
	return ids
}

// repeated counts the webhooks that came more than once, and the events that came at all.
func (r *receiver) repeated() (events, twice int) {
	ids := make(map[string]bool)
	for _, got := range r.all() {
		if ids[got.id] {
			twice++
		}
		ids[got.id] = true
	}
	return len(ids), twice
}

// One of two instances is killed under load, then the last one, which starts again at once.
func TestAKillUnderLoad(t *testing.T) {
	t.Parallel()
	rate, seconds := pick(200, 1000), pick(6, 20)
	b := newBench(t, memoriestest.Config{})
	b.receiver.answers(func(int, received) int {
		time.Sleep(20 * time.Millisecond) // so that some are always in flight
		return http.StatusNoContent
	})
	victim, other := b.start(""), b.start("")
	s, app := b.store()
	sentAgain := func(ids []uuid.UUID, since time.Time, within time.Duration) {
		t.Helper()
		until(t, within-time.Since(since), "what ran on the dead one is delivered", func() bool {
			return b.query(`select count(*) from deliveries where id = any($1) and status = 'delivered'`, ids) == len(ids)
		})
		t.Logf("the %d that ran on the dead one were delivered %s after it ended or its successor began", len(ids), time.Since(since))
	}
	n := rate * seconds
	done := b.publish(s, app, "two", n, rate)
	b.receiver.await(t, n/3, time.Minute)
	victim.kill()
	killed := time.Now()
	inFlight := b.running(s, victim)
	sentAgain(inFlight, killed, 10*time.Second)
	<-done
	until(t, time.Minute, "all are delivered", func() bool { return b.query(`select count(*) from deliveries where status = 'delivered'`) == n })
	events, twice := b.receiver.repeated()
	t.Logf("%d events at %d/s, %d repeated, %d were in flight", events, rate, twice, len(inFlight))
	if events != n || twice > len(inFlight) {
		t.Errorf("%d events, want %d; %d repeated of %d in flight", events, n, twice, len(inFlight))
	}

	done = b.publish(s, app, "one", n, rate)
	b.receiver.await(t, n+n/3+twice, time.Minute)
	other.kill()
	alone := b.running(s, other)
	restarted := time.Now()
	b.start(strings.TrimPrefix(other.url, "http://"))
	sentAgain(alone, restarted, pick(10*time.Second, 3*time.Second)) // a start takes seconds beside the other tests
	<-done
	until(t, time.Minute, "all are delivered", func() bool { return b.query(`select count(*) from deliveries where status = 'delivered'`) == 2*n })
	all, again := b.receiver.repeated()
	if all != 2*n || again-twice > len(alone) {
		t.Errorf("%d events, want %d; %d repeated of %d in flight", all, 2*n, again-twice, len(alone))
	}
}

// A process that was stopped for a while and wakes up does no harm but repetitions.
func TestAStoppedProcessWakesUp(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{RequestsPerSecond: 50})
	b.env["MEMORIES_REQUESTS_PER_SECOND"] = "50"
	in := b.start("")
	other := b.start("")
	const n = 60
	for i := range n {
		id := fmt.Sprintf("task-%d", i)
		b.sim.Add(readyAfter(id, time.Duration(i)*100*time.Millisecond, "PI-"+id))
		other.register(id, nil)
	}
	if err := in.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(pick(8*time.Second, time.Minute))
	if err := in.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	until(t, 30*time.Second, "all are delivered", func() bool { return b.query(`select count(*) from deliveries where status = 'delivered'`) == n })
	time.Sleep(time.Second)
	ids := make(map[string]bool)
	for _, got := range b.receiver.all() {
		ids[got.id] = true
	}
	st := b.sim.Stats()
	t.Logf("%d webhooks for %d events; %+v", len(b.receiver.all()), n, st)
	if len(ids) != n || st.Violations > 0 {
		t.Errorf("%d events, want %d; %+v", len(ids), n, st)
	}
	if jobs := b.query(`select count(*) from river_job where state = 'running' and kind like 'deliver%'`); jobs != 0 {
		t.Errorf("%d deliveries still run", jobs)
	}
}
