package store_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

// storedOfTasks counts all that is stored of tasks.
const storedOfTasks = `select (select count(*) from tasks) + (select count(*) from subscriptions) + (select count(*) from events)
	+ (select count(*) from deliveries) + (select count(*) from attempts)`

// A task that took longer than the retention is kept for the retention from its end, and so is what failed late.
func TestRetentionCountsFromTheEnd(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	early, late := b.register("early", "https://a.example/").Task, b.register("late", "https://a.example/").Task
	for _, task := range []*store.Task{early, late} {
		b.ready(task.ID, "PI-1")
		if _, err := b.RecordPoll(t.Context(), store.Poll{TaskID: task.ID, At: time.Now().Add(time.Hour), Videos: []store.Video{{ID: "PI-1"}}}); err != nil {
			t.Fatal(err)
		}
	}
	if n := b.count(`select count(*) from tasks where ended_at is not null and not polling`); n != 2 {
		t.Fatalf("%d tasks have ended, want 2", n)
	}
	// Both are two hours old. One has ended an hour and a half ago, the other just now.
	const older = `overlay(id::text placing left(id_at(now() - interval '2 h')::text, 13) from 1 for 13)::uuid`
	b.exec(`update subscriptions s set task = overlay(task::text placing left(id_at(now() - interval '2 h')::text, 13) from 1 for 13)::uuid;
		update tasks set id = `+older+`, created_at = created_at - interval '2 h'`,
		`update tasks set ended_at = now() - interval '90 min' where task_id = 'early'`,
		`update deliveries set id = `+older+`, status = 'failed', failed = true, attempt_count = 1`,
		`insert into attempts (delivery_id, number, at, duration_ms, outcome)
		select d.id, 1, now() - (case when row_number() over (order by id) = 1 then interval '90 min' else interval '1 min' end), 1, 'failed' from deliveries d`)
	if _, err := b.Purge(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if n := b.count(`select count(*) from tasks`); n != 1 || b.count(`select count(*) from tasks where task_id = 'late'`) != 1 {
		t.Errorf("%d tasks are left, want the one that ended late", n)
	}
	if n := b.count(`select count(*) from subscriptions`); n != 1 {
		t.Errorf("%d subscriptions are left, want 1", n)
	}
	if d, a := b.count(`select count(*) from deliveries`), b.count(`select count(*) from attempts`); d != 1 || a != 1 {
		t.Errorf("%d deliveries with %d attempts are left, want the one that failed late", d, a)
	}
	// What a version before has ended has no time of its end but that of its last poll.
	b.exec(`update tasks set ended_at = null, last_polled_at = now()`)
	if _, err := b.Purge(t.Context(), time.Hour); err != nil || b.count(`select count(*) from tasks`) != 1 {
		t.Errorf("a task of the version before is gone before its time: %v", err)
	}
	b.exec(`update tasks set last_polled_at = now() - interval '61 min', ready_at = now() - interval '61 min'`)
	if _, err := b.Purge(t.Context(), time.Hour); err != nil || b.count(`select count(*) from tasks`) != 0 {
		t.Errorf("a task of the version before stays: %v", err)
	}
	r := b.register("late", "https://a.example/")
	if !r.Created || r.Task.Status != store.TaskWaiting {
		t.Errorf("registered again after its retention: %+v", r.Task)
	}
}

// The database's clock decides: a machine's that is a month ahead purges nothing that is new.
func TestPurgeGoesByTheDatabasesClock(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	ahead := storetest.Over(t, b.pool.Config(), store.Config{Encode: encode, Now: func() time.Time { return time.Now().Add(745 * time.Hour) }})
	task := b.register("task", "https://a.example/").Task
	b.ready(task.ID, "PI-1")
	if err := b.CancelTask(t.Context(), store.OfApp(b.app.ID), b.register("other", "https://a.example/").Task.ID); err != nil {
		t.Fatal(err)
	}
	b.exec(`update tasks set polling = false, ended_at = now()`, `update deliveries set status = 'delivered', delivered_at = now()`)
	n := b.count(storedOfTasks)
	if _, err := ahead.Purge(t.Context(), 720*time.Hour); err != nil {
		t.Fatal(err)
	}
	if left := b.count(storedOfTasks); left != n {
		t.Errorf("%d of %d rows are left", left, n)
	}
}

// Endpoints that registrations have made, deleted ones and deleted apps go when nothing is left of them.
func TestIdleEndpointsAndDeletedAppsArePurged(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	scope := store.OfApp(b.app.ID)
	waits := b.register("waits", "https://waits.example/")
	done := b.register("done", "https://done.example/").Task
	if err := b.CancelTask(t.Context(), scope, done.ID); err != nil {
		t.Fatal(err)
	}
	manual, err := b.CreateEndpoint(t.Context(), b.app.ID, store.EndpointSettings{URL: new("https://manual.example/")})
	if err != nil {
		t.Fatal(err)
	}
	shown := b.register("shown", "https://shown.example/").Task
	if _, err := b.Secrets(t.Context(), scope, shown.Subscriptions[0].EndpointID); err != nil {
		t.Fatal(err)
	}
	if err := b.CancelTask(t.Context(), scope, shown.ID); err != nil {
		t.Fatal(err)
	}
	b.exec(`insert into endpoint_secrets (id, endpoint_id, suffix, secret, expires_at) select gen_random_uuid(), id, '', '', now() - interval '1 min' from endpoints`,
		`insert into endpoint_secrets (id, endpoint_id, suffix, secret) select gen_random_uuid(), id, '', '' from endpoints`)
	for id, lasts := range map[string]time.Duration{"expired": -time.Minute, "ended": time.Hour} {
		if err := b.EndSession(t.Context(), id, time.Now().Add(lasts)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Purge(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if n := b.count(`select count(*) from ended_sessions where id = 'ended'`) - b.count(`select count(*) from ended_sessions where id <> 'ended'`); n != 1 {
		t.Error("the session that would be valid still must be the only one that is kept")
	}
	if n := b.count(`select count(*) from endpoints`); n != 4 {
		t.Errorf("%d endpoints before their time, want 4", n)
	}
	if n := b.count(`select count(*) from endpoint_secrets`); n != 4 {
		t.Errorf("%d secrets, want the 4 that have not expired", n)
	}
	if _, err := b.Purge(t.Context(), -time.Hour); err != nil {
		t.Fatal(err)
	}
	if n := b.count(`select count(*) from endpoints where id in ($1, $2)`, manual.ID, waits.Task.Subscriptions[0].EndpointID); n != 2 {
		t.Errorf("%d of the endpoint that an app has made and the one with a subscriber are left", n)
	}
	if n := b.count(`select count(*) from endpoints where id = $1`, shown.Subscriptions[0].EndpointID); n != 1 {
		t.Error("the endpoint whose secret was given to a receiver is gone")
	}
	if e, s := b.count(`select count(*) from endpoints`), b.count(`select count(*) from endpoint_secrets`); e != 3 || s != 3 {
		t.Errorf("%d endpoints and %d secrets are left, want 3", e, s)
	}
	if err := b.DeleteApp(t.Context(), b.app.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Purge(t.Context(), time.Hour); err != nil || b.count(`select count(*) from apps`) != 1 {
		t.Errorf("a deleted app is gone before its time: %v", err)
	}
	if _, err := b.Purge(t.Context(), -time.Hour); err != nil {
		t.Fatal(err)
	}
	if n := b.count(`select count(*) from apps`) + b.count(`select count(*) from endpoints`) + b.count(storedOfTasks); n != 0 {
		t.Errorf("%d rows are left of a deleted app", n)
	}
}

// An endpoint that a registration holds is not purged, however idle it looks.
func TestAnEndpointIsNotPurgedBesideARegistration(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.register("task", "https://a.example/")
	b.exec(`delete from subscriptions`)
	tx := begin(t, b)
	if _, err := tx.Exec(t.Context(), `select 1 from endpoints for key share`); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Purge(t.Context(), -time.Hour); err != nil {
		t.Fatal(err)
	}
	if n := b.count(`select count(*) from endpoints`); n != 1 {
		t.Error("the endpoint is gone")
	}
}

// Sending again what is no longer stored is refused, for one delivery and for all of an endpoint.
func TestADeliveryWhoseEventIsPurgedIsNotResent(t *testing.T) {
	t.Parallel()
	b, list := announced(t, 1)
	d := list[0]
	if err := b.RecordAttempt(t.Context(), store.AttemptResult{DeliveryID: d.ID, EndpointID: d.EndpointID, At: time.Now(), SharedJob: true}); err != nil {
		t.Fatal(err)
	}
	b.exec(`delete from events`)
	err := b.Resend(t.Context(), store.OfApp(b.app.ID), d.ID)
	if !errors.Is(err, store.ErrConflict) {
		t.Errorf("resent: %v", err)
	}
	if n, err := b.Recover(t.Context(), store.OfApp(b.app.ID), d.EndpointID, &time.Time{}); err != nil || n != 0 {
		t.Errorf("%d recovered, %v", n, err)
	}
	if n := b.count(`select count(*) from deliveries where status = 'pending'`); n != 0 {
		t.Error("the delivery is pending, for ever")
	}
}

// However a delivery is sent again, the outcome of an attempt that was in flight then is listed, and ends nothing.
func TestAnOldAttemptDoesNotEndTheNewRound(t *testing.T) {
	t.Parallel()
	next := time.Now().Add(time.Minute)
	outcomes := map[string]store.AttemptResult{
		"delivered": {Delivered: true, Healthy: true}, "failed for good": {}, "failed": {NextAttemptAt: &next},
	}
	failed := func(b *bundle, d store.Delivery) error { // another instance has made what was thought to be the last attempt
		return b.RecordAttempt(b.t.Context(), store.AttemptResult{DeliveryID: d.ID, EndpointID: d.EndpointID, At: time.Now()})
	}
	ways := map[string]func(*bundle, store.Delivery) error{
		"resend": func(b *bundle, d store.Delivery) error { return b.Resend(b.t.Context(), store.OfApp(b.app.ID), d.ID) },
		"recover": func(b *bundle, d store.Delivery) error {
			n, err := b.Recover(b.t.Context(), store.OfApp(b.app.ID), d.EndpointID, new(time.Now().Add(-time.Hour)))
			return cmp.Or(err, when(n != 1, "%d were recovered", n))
		},
		"bulk resend": func(b *bundle, d store.Delivery) error {
			started, err := b.StartResend(b.t.Context(), store.ResendFilter{
				Scope: store.OfApp(b.app.ID), Action: store.ActionResend, Status: store.DeliveryFailed, EndpointID: d.EndpointID,
			})
			b.workResends()
			return cmp.Or(err, when(started.Matched != 1, "%d were resent", started.Matched))
		},
	}
	for way, again := range ways {
		for name, old := range outcomes {
			t.Run(way+" "+name, func(t *testing.T) {
				t.Parallel()
				b, list := announced(t, 1)
				d := list[0]
				if err := failed(b, d); err != nil {
					t.Fatal(err)
				}
				if err := again(b, d); err != nil {
					t.Fatal(err)
				}
				old.DeliveryID, old.EndpointID, old.At, old.SharedJob = d.ID, d.EndpointID, time.Now(), true
				if err := b.RecordAttempt(t.Context(), old); err != nil {
					t.Fatal(err)
				}
				got, err := b.Delivery(t.Context(), store.OfApp(b.app.ID), d.ID)
				if err != nil {
					t.Fatal(err)
				}
				if got.Status != store.DeliveryPending || len(got.Attempts) != 2 || got.AttemptCount-got.RoundStart != 0 ||
					got.NextAttemptAt.After(time.Now()) || got.Parked != (way != "resend") {
					t.Errorf("after the old attempt: %+v", got)
				}
				now := store.AttemptResult{DeliveryID: d.ID, EndpointID: d.EndpointID, At: time.Now(), Generation: got.Generation, Delivered: true, Healthy: true}
				if err := b.RecordAttempt(t.Context(), now); err != nil {
					t.Fatal(err)
				}
				if got, err = b.Delivery(t.Context(), store.OfApp(b.app.ID), d.ID); err != nil || got.Status != store.DeliveryDelivered || got.Parked || len(got.Attempts) != 3 {
					t.Errorf("after the new one: %+v, %v", got, err)
				}
			})
		}
	}
}

// when returns an error if something is the case.
func when(wrong bool, format string, args ...any) error {
	if !wrong {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// A delivery whose last attempt fails after it was parked waits for nothing any more.
func TestAnAttemptThatFailsForGoodEndsParking(t *testing.T) {
	t.Parallel()
	b, list := announced(t, 1)
	d := list[0]
	if err := b.ParkDelivery(t.Context(), &store.Delivery{ID: d.ID, EndpointID: d.EndpointID}); err != nil {
		t.Fatal(err)
	}
	if err := b.RecordAttempt(t.Context(), store.AttemptResult{DeliveryID: d.ID, EndpointID: d.EndpointID, At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Delivery(t.Context(), store.OfApp(b.app.ID), d.ID); err != nil || got.Status != store.DeliveryFailed || got.Parked {
		t.Errorf("%+v, %v", got, err)
	}
}

// A task is expunged with all that is stored of it, in any status and while its deliveries are in flight, whose outcome
// brings nothing back.
func TestExpungeLeavesNothing(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	scope := store.OfApp(b.app.ID)
	keep := b.register("keep", "https://keep.example/").Task
	b.ready(keep.ID, "PI-1")
	kept := b.count(storedOfTasks)
	for _, status := range []string{store.TaskWaiting, store.TaskReady, store.TaskFailed, store.TaskExpired, store.TaskCancelled} {
		task := b.register("task", "https://a.example/"+status).Task
		b.ready(task.ID, "PI-1")
		list, err := b.Deliveries(t.Context(), store.DeliveryFilter{Scope: scope, TaskID: task.ID}, store.Page{Limit: 10})
		if err != nil || len(list) != 1 {
			t.Fatal(len(list), err)
		}
		next := time.Now().Add(time.Minute)
		result := store.AttemptResult{DeliveryID: list[0].ID, EndpointID: list[0].EndpointID, At: time.Now(), SharedJob: true, NextAttemptAt: &next}
		if err := b.RecordAttempt(t.Context(), result); err != nil {
			t.Fatal(err)
		}
		if _, err := b.pool.Exec(t.Context(), `update tasks set status = $2 where id = $1`, task.ID, status); err != nil {
			t.Fatal(err)
		}
		if err := b.ExpungeTask(t.Context(), store.OfApp(uuid.New()), task.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("another app's: %v", err)
		}
		// An outcome is being recorded in another transaction, which commits while the task is being expunged.
		tx := begin(t, b)
		if _, err := tx.Exec(t.Context(), `update deliveries set attempt_count = attempt_count + 1 where task = $1`, task.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `insert into attempts (delivery_id, number, at, duration_ms, outcome) values ($1, 2, now(), 1, 'failed')`, list[0].ID); err != nil {
			t.Fatal(err)
		}
		expunged := make(chan error, 1)
		go func() { expunged <- b.ExpungeTask(context.Background(), scope, task.ID) }()
		select {
		case err := <-expunged:
			t.Fatalf("expunged beside the recording of an attempt: %v", err)
		case <-time.After(200 * time.Millisecond):
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-expunged; err != nil {
			t.Fatal(err)
		}
		if err := b.RecordAttempt(t.Context(), result); err != nil {
			t.Errorf("recording what was in flight: %v", err)
		}
		if _, err := b.RecordPoll(t.Context(), store.Poll{TaskID: task.ID, At: time.Now(), Videos: []store.Video{{ID: "PI-2"}}}); err != nil {
			t.Errorf("recording a poll that was in flight: %v", err)
		}
		if n := b.count(storedOfTasks); n != kept {
			t.Errorf("%s: %d rows are left, want the other task's %d", status, n, kept)
		}
		if err := b.ExpungeTask(t.Context(), scope, task.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a second time: %v", err)
		}
	}
}

// A delivery that was parked for long and cancelled just now is kept for the retention from then on.
func TestACancelledDeliveryIsKeptFromItsEnd(t *testing.T) {
	t.Parallel()
	b, list := announced(t, 1)
	b.exec(`update deliveries set parked = true, id = overlay(id::text placing left(id_at(now() - interval '2 h')::text, 13) from 1 for 13)::uuid`)
	if err := b.DeleteEndpoint(t.Context(), store.OfApp(b.app.ID), list[0].EndpointID); err != nil {
		t.Fatal(err)
	}
	left := func() int {
		t.Helper()
		if _, err := b.Purge(t.Context(), time.Hour); err != nil {
			t.Fatal(err)
		}
		return b.count(`select count(*) from deliveries where cancelled`)
	}
	if left() != 1 {
		t.Error("it is gone at once")
	}
	b.exec(`update deliveries set cancelled_at = cancelled_at - interval '61 min'`)
	if left() != 0 {
		t.Error("it is left an hour later")
	}
}
