package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/webhook"
)

func never(*rand.Rand) (time.Duration, int) { return 0, 0 }

// registerAs registers a task with another app's key.
func (in *instance) registerAs(key, taskID string) {
	in.t.Helper()
	body := map[string]any{"task_id": taskID, "callback_url": in.receiver.URL}
	if status := in.callWith(key, http.MethodPost, "/v1/tasks", body, nil); status != http.StatusCreated {
		in.t.Fatalf("register %s: %d", taskID, status)
	}
}

// hintWithoutEnd hints the tasks whose ids are like the pattern all the time, until the test or its stop ends it.
func (b *bench) hintWithoutEnd(pattern string) (stop func()) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	conn, err := pgx.Connect(ctx, b.database)
	if err != nil {
		b.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer func() { _ = conn.Close(context.Background()) }()
		for ctx.Err() == nil {
			_, err := conn.Exec(ctx, `
				update tasks set urgent = true, hinted_at = now()
				where id in (select id from tasks where task_id like $1 and polling order by id for update skip locked)`, pattern)
			if err != nil && ctx.Err() == nil {
				b.t.Errorf("hint: %v", err)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(300 * time.Millisecond):
			}
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	b.t.Cleanup(stop)
	return stop
}

// Two apps share an account. While one is idle the other has all slots. Then the first hints a thousand tasks without end:
// the other has half of the slots, and a third app's ready task is found within three of that app's slots.
func TestHintsDoNotCostANeighbourItsSlots(t *testing.T) {
	t.Parallel()
	const rps, crowd, quiet = 2, 1000, 24
	b := newBench(t, memoriestest.Config{RequestsPerSecond: rps, Draw: never})
	b.env["MEMORIES_REQUESTS_PER_SECOND"] = fmt.Sprint(rps)
	in := b.start("")
	_, key, _ := in.newApp("quiet")
	for i := range quiet {
		in.registerAs(key, fmt.Sprintf("quiet-%d", i))
	}
	used := func(slots int) time.Duration {
		began, goal := time.Now(), b.sim.Stats().Requests+slots
		until(t, 60*time.Second, fmt.Sprintf("%d slots are used", slots), func() bool { return b.sim.Stats().Requests >= goal })
		return time.Since(began)
	}
	polls := func(pattern string) int {
		return b.query(`select coalesce(sum(polls), 0) from tasks where task_id like $1`, pattern)
	}
	used(2)
	if took := used(10); took > 8*time.Second {
		t.Errorf("alone, the quiet app had 10 slots in %s", took)
	}

	in.registerMany(crowd, "crowd")
	b.hintWithoutEnd("crowd-%")
	used(4)
	ofQuiet, all := polls("quiet-%"), polls("%")
	used(24)
	ofQuiet, all = polls("quiet-%")-ofQuiet, polls("%")-all
	t.Logf("of %d slots the quiet app had %d", all, ofQuiet)
	if ofQuiet < all/2-2 || ofQuiet > all/2+2 {
		t.Errorf("of %d slots the quiet app had %d", all, ofQuiet)
	}

	b.sim.Add(readyAfter("ready", 0, "PI-ready"))
	before := b.sim.Stats().Requests
	_, third, _ := in.newApp("third")
	in.registerAs(third, "ready")
	b.receiver.await(t, 1, 60*time.Second)
	slots := b.sim.Stats().Requests - before
	t.Logf("the ready task was found after %d slots of three apps", slots)
	if slots > 3*3+2 { // and those that were on their way
		t.Errorf("the ready task was found after %d slots of three apps", slots)
	}
	if st := b.sim.Stats(); st.Violations > 0 {
		t.Errorf("the budget was exceeded: %+v", st)
	}
}

// One task meets a firewall's page, one a connection that breaks, one no answer. All are hinted without end. They are asked
// less and less, their neighbours as before, and the account is well.
func TestATasksOwnTroubleIsNotItsNeighbours(t *testing.T) {
	t.Parallel()
	const rps = 4
	b := newBench(t, memoriestest.Config{RequestsPerSecond: rps, Draw: never})
	var mu sync.Mutex
	asked, now, most := make(map[string][]time.Time), 0, 0
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.URL.Query().Get("task_id")
		mu.Lock()
		asked[id] = append(asked[id], time.Now())
		mu.Unlock()
		switch id {
		case "bad-page":
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "<html><body>Request blocked.</body></html>")
		case "bad-cut":
			panic(http.ErrAbortHandler)
		case "bad-hang":
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			<-r.Context().Done()
			mu.Lock()
			now--
			mu.Unlock()
		default:
			b.sim.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() { proxy.CloseClientConnections(); proxy.Close() })
	b.env["MEMORIES_BASE_URL"], b.env["MEMORIES_REQUESTS_PER_SECOND"] = proxy.URL, fmt.Sprint(rps)
	in := b.start("")
	in.registerMany(20, "good")
	until(t, 20*time.Second, "the others are polled", func() bool { return b.query(`select count(*) from tasks where polls > 0`) == 20 })
	for _, id := range []string{"bad-page", "bad-cut", "bad-hang"} {
		in.register(id, nil)
	}
	b.hintWithoutEnd("bad-%")
	counts := func() (good int, of map[string][]time.Time) {
		mu.Lock()
		defer mu.Unlock()
		of = make(map[string][]time.Time)
		for id, at := range asked {
			if of[id] = slices.Clone(at); strings.HasPrefix(id, "good") {
				good += len(at)
			}
		}
		return good, of
	}
	before, _ := counts()
	began := time.Now()
	for time.Since(began) < 13*time.Second {
		if n := b.query(`select count(*) from accounts where state <> 'active'`); n > 0 {
			var reason string
			b.scan(&reason, `select state_reason from accounts`)
			t.Fatalf("after %s the account backs off: %s", time.Since(began), reason)
		}
		time.Sleep(100 * time.Millisecond)
	}
	after, of := counts()
	if slots := int(13 * rps); after-before < slots*6/10 {
		t.Errorf("of %d slots the others had %d", slots, after-before)
	}
	for _, id := range []string{"bad-page", "bad-cut"} { // at 0 s, 2 s and 6 s
		if n := len(of[id]); n < 2 || n > 4 {
			t.Errorf("%s was asked %d times", id, n)
		}
	}
	if n := len(of["bad-hang"]); most != 1 || n > 2 {
		t.Errorf("the task that hangs was asked %d times, %d at a time", n, most)
	}
	var said string
	b.scan(&said, `select last_error ->> 'message' from tasks where task_id = 'bad-page'`)
	if !strings.HasPrefix(said, "HTTP 403 Forbidden") {
		t.Errorf("the task's error is %q", said)
	}
}

// Five hundred tasks have videos, and expire within the same seconds, on an account that is busy with others. All are found:
// none is told to have expired.
func TestTasksThatExpireTogetherAreAskedFirst(t *testing.T) {
	t.Parallel()
	const rps, n = 20, 500
	b := newBench(t, memoriestest.Config{RequestsPerSecond: rps, Draw: never})
	b.env["MEMORIES_REQUESTS_PER_SECOND"] = fmt.Sprint(rps)
	in := b.start("")
	in.registerMany(300, "others")
	b.hintWithoutEnd("others-%")
	for i := range n {
		id := fmt.Sprintf("task-%d", i)
		b.sim.Add(readyAfter(id, 0, "PI-"+id))
	}
	var wg sync.WaitGroup
	for k := range 8 {
		wg.Go(func() {
			for i := k; i < n; i += 8 {
				in.register(fmt.Sprintf("task-%d", i), map[string]any{"expires_in": fmt.Sprintf("%ds", 1+i%10)})
			}
		})
	}
	wg.Wait()
	for _, got := range b.receiver.await(t, n, 90*time.Second) {
		if got.event.Type != webhook.TaskReady {
			t.Fatalf("%s of %s, which has videos", got.event.Type, got.task.TaskID)
		}
	}
	if expired := b.query(`select count(*) from tasks where status = 'expired'`); expired > 0 {
		t.Errorf("%d tasks expired", expired)
	}
}
