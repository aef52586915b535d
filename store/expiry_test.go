package store_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

// A task expires only if it was asked within its last minute, or if nobody can ask.
func TestNoTaskExpiresUnasked(t *testing.T) {
	t.Parallel()
	active, limited, down, brief := `'active', null, 0`, `'rate_limited', now() + interval '1 minute', 9`,
		`'unavailable', now() + interval '1 minute', 5`, `'unavailable', now() + interval '1 second', 1`
	over := `'refused', now() - interval '1 second', 9`
	for _, c := range []struct {
		name    string
		account string // state, paused_until, troubles
		expired string // how long ago
		polled  string // how long before it expired
		failed  bool
		want    bool
	}{
		{"never asked", active, "1 second", "", false, false},
		{"asked too early", active, "1 second", "61 seconds", false, false},
		{"asked in its last minute", active, "13 seconds", "59 seconds", false, true},
		{"a poll may be in flight", active, "11 seconds", "59 seconds", false, false},
		{"asked in vain", active, "1 second", "10 seconds", true, false},
		{"asked in vain for minutes", active, "301 seconds", "-200 seconds", true, true},
		{"unasked for half an hour", active, "29 minutes", "", false, false},
		{"unasked for more", active, "31 minutes", "", false, true},
		{"the account is refused or down", down, "1 second", "", false, true},
		{"the account backs off for a second", brief, "1 second", "", false, false},
		{"the account is rate limited", limited, "1 second", "", false, false},
		{"the account's backoff is over", over, "1 second", "", false, false},
		{"not yet", down, "-1 second", "10 seconds", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t)
			task := b.register("task", "https://a.example/").Task
			if _, err := b.pool.Exec(t.Context(), `update accounts set (state, paused_until, troubles) = (`+c.account+`)`); err != nil {
				t.Fatal(err)
			}
			if _, err := b.pool.Exec(t.Context(), `
				update tasks set expires_at = now() - $1::text::interval, last_polled_at = now() - $1::text::interval - nullif($2, '')::interval,
					last_error = case when $3 then '{"code": "unavailable"}'::jsonb end`, c.expired, c.polled, c.failed); err != nil {
				t.Fatal(err)
			}
			n, _, err := b.ExpireTasks(t.Context(), time.Time{}, 10)
			if err != nil || (n == 1) != c.want {
				t.Fatalf("%d tasks expired: %v", n, err)
			}
			if events := b.count(`select count(*) from events where type = 'task.expired' and task = $1`, task.ID); events != n {
				t.Errorf("%d events", events)
			}
		})
	}
}

// The poll of an expired task that brings nothing ends it, with its event; one that brings its videos makes it ready; one
// that fails changes nothing.
func TestTheLastPollDecides(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	refusal := &store.TaskError{Code: "0001", Message: "no"}
	for name, c := range map[string]struct {
		poll  store.Poll
		want  string
		event string
	}{
		"empty":   {store.Poll{}, store.TaskExpired, store.EventExpired},
		"videos":  {store.Poll{Videos: []store.Video{{ID: "PI-1"}}}, store.TaskReady, store.EventReady},
		"refused": {store.Poll{Refusal: refusal}, store.TaskExpired, store.EventExpired},
		"fault":   {store.Poll{Fault: refusal}, store.TaskWaiting, ""},
	} {
		task := b.register(name, "https://a.example/").Task
		if _, err := b.pool.Exec(t.Context(), `update tasks set expires_at = now() where id = $1`, task.ID); err != nil {
			t.Fatal(err)
		}
		c.poll.TaskID, c.poll.At = task.ID, time.Now()
		polled, err := b.RecordPoll(t.Context(), c.poll)
		if err != nil || polled.Target.Status != c.want {
			t.Errorf("%s: %s, %v", name, polled.Target.Status, err)
		}
		want := 1
		if c.event == "" {
			want = 0
		}
		if n := b.count(`select count(*) from events where task = $1 and ($2 = '' or type = $2)`, task.ID, c.event); n != want {
			t.Errorf("%s: %d events %s", name, n, c.event)
		}
	}
}

// Tasks that wait to be asked are not read each time: 20,000 of them cost the calls after the first nothing.
func TestOverdueTasksCostNothing(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	if _, err := b.pool.Exec(t.Context(), `
		insert into tasks (id, app_id, account_id, task_id, unique_id, status, polling, until, metadata, videos, created_at, expires_at)
		select gen_random_uuid(), $1, $2, 'task-' || i, 'default', 'waiting', true, 'downloaded', '{}', '[]', now(), now() - interval '1 minute'
		from generate_series(1, 20000) i`, b.app.ID, b.account.ID); err != nil {
		t.Fatal(err)
	}
	var from time.Time
	var took []time.Duration
	for range 6 {
		began := time.Now()
		n, next, err := b.ExpireTasks(t.Context(), from, 500)
		if err != nil || n != 0 {
			t.Fatalf("%d tasks expired: %v", n, err)
		}
		from, took = next, append(took, time.Since(began))
	}
	t.Logf("calls took %s", took)
	if first, after := took[0], slices.Min(took[1:]); after > first/5 {
		t.Errorf("the first call took %s, those after it %s", first, after)
	}
	// A batch that is full is where the next one goes on.
	if _, err := b.pool.Exec(t.Context(), `update tasks set last_polled_at = expires_at where right(task_id, 2) = '00'`); err != nil {
		t.Fatal(err)
	}
	var all int
	for n, from := 50, (time.Time{}); n == 50; all += n {
		var err error
		if n, from, err = b.ExpireTasks(t.Context(), from, 50); err != nil {
			t.Fatal(err)
		}
	}
	if all != 200 {
		t.Errorf("%d tasks expired", all)
	}
}

// A poll is recorded while its task is found expired: what ends is the task as the poll has left it. (A function
// of this test's database, which the look for expired tasks calls before it locks them, waits for the poll.)
func TestATaskExpiresAsItsLastPollLeftIt(t *testing.T) {
	t.Parallel()
	const lock = 1
	cfg, err := pgxpool.ParseConfig(storetest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConnConfig.RuntimeParams["search_path"] = "memhook, pg_catalog"
	b := bundleOf(t, storetest.Over(t, cfg, store.Config{Encode: encode}))
	task := b.register("task", "https://a.example/").Task
	b.exec(`update tasks set expires_at = now() - interval '31 minutes'`, fmt.Sprintf(`
		create function pg_column_size(jsonb) returns int language plpgsql as $$
		begin
			perform pg_advisory_xact_lock(%d);
			return 1;
		end $$`, lock))
	holder := begin(t, b)
	if _, err := holder.Exec(t.Context(), `select pg_advisory_xact_lock($1)`, lock); err != nil {
		t.Fatal(err)
	}
	expired := make(chan error, 1)
	go func() {
		n, _, err := b.ExpireTasks(t.Context(), time.Time{}, 10)
		if err == nil && n != 1 {
			err = fmt.Errorf("%d tasks expired", n)
		}
		expired <- err
	}()
	until(t, 20*time.Second, func() bool {
		return b.count(`select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'advisory'`) == 1
	})
	fault := store.Poll{TaskID: task.ID, At: time.Now(), Fault: &store.TaskError{Code: "unavailable"}}
	if _, err := b.RecordPoll(t.Context(), fault); err != nil {
		t.Fatal(err)
	}
	if err := holder.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-expired; err != nil {
		t.Fatal(err)
	}
	got, err := b.Task(t.Context(), store.Everything(), task.ID)
	if err != nil || got.Status != store.TaskExpired || got.Polls != 1 || got.LastError == nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// The answer to a poll that was in flight when its task ended changes nothing of what the task ended with.
func TestAnAnswerAfterTheEnd(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for name, poll := range map[string]store.Poll{
		"empty":    {Bare: true, Progress: &store.Progress{Percent: new(50.0)}},
		"videos":   {Videos: []store.Video{{ID: "PI-1"}}},
		"fault":    {Fault: &store.TaskError{Code: "unavailable"}},
		"refusal":  {Refusal: &store.TaskError{Code: "0001"}},
		"progress": {Fault: &store.TaskError{Code: "not_ready"}, Progress: &store.Progress{Percent: new(50.0)}},
	} {
		task := b.register(name, "https://a.example/").Task
		fault := store.Poll{TaskID: task.ID, At: time.Now(), Fault: &store.TaskError{Code: "before"}}
		if _, err := b.RecordPoll(t.Context(), fault); err != nil {
			t.Fatal(err)
		}
		if err := b.CancelTask(t.Context(), store.OfApp(b.app.ID), task.ID); err != nil {
			t.Fatal(err)
		}
		poll.TaskID, poll.At = task.ID, time.Now()
		polled, err := b.RecordPoll(t.Context(), poll)
		if err != nil || polled.Polling || polled.Ready {
			t.Errorf("%s: %+v, %v", name, polled, err)
		}
		got, err := b.Task(t.Context(), store.Everything(), task.ID)
		if err != nil || got.Status != store.TaskCancelled || got.LastError == nil || got.LastError.Code != "before" || got.Progress != nil ||
			len(got.Videos) != 0 || got.Polls != 2 || b.count(`select count(*) from events where task = $1`, task.ID) != 0 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
