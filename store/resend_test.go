package store_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// insertDeliveries inserts deliveries of an endpoint, with their events. Pending ones wait an hour for their next attempt.
func (b *bundle) insertDeliveries(endpoint uuid.UUID, n int, status string) {
	b.t.Helper()
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.Must(uuid.NewV7())
	}
	if _, err := b.pool.Exec(b.t.Context(), `
		with ids as (
			select unnest($1::uuid[]) as id
		), e as (
			insert into events (id, app_id, type, payload, created_at) select id, $2, 'task.ready', '{}', now() from ids
		)
		insert into deliveries (id, app_id, event_id, event_type, endpoint_id, status, failed, retrying, next_attempt_at, attempt_count, created_at)
		select id, $2, id, 'task.ready', $3, $4, $4 = 'failed', $4 = 'pending', now() + interval '1 h', 10, now() from ids`,
		ids, b.app.ID, endpoint, status); err != nil {
		b.t.Fatal(err)
	}
}

// workResends works off all bulk resends and returns in how many batches.
func (b *bundle) workResends() (batches int) {
	b.t.Helper()
	for ; ; batches++ {
		found, err := b.WorkResends(b.t.Context())
		if err != nil {
			b.t.Fatal(err)
		}
		if !found {
			return batches
		}
	}
}

// A bulk resend does what was counted, once each, and leaves what does not match.
func TestBulkResend(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	const failed, other = 2500, 10
	ids := make(map[string]uuid.UUID)
	for _, url := range []string{"https://a.example/", "https://b.example/"} {
		ids[url] = b.register("task of "+url, url).Task.Subscriptions[0].EndpointID
	}
	b.insertDeliveries(ids["https://a.example/"], failed, "failed")
	b.insertDeliveries(ids["https://b.example/"], other, "failed")
	b.insertDeliveries(ids["https://a.example/"], other, "delivered")
	b.insertDeliveries(ids["https://a.example/"], other, "pending")
	f := store.ResendFilter{Scope: store.OfApp(b.app.ID), Action: store.ActionResend, Status: store.DeliveryFailed, EndpointID: ids["https://a.example/"]}
	for name, c := range map[string]struct {
		change func(*store.ResendFilter)
		want   int64
	}{
		"as it is":       {func(*store.ResendFilter) {}, failed},
		"any endpoint":   {func(f *store.ResendFilter) { f.EndpointID = uuid.Nil }, failed + other},
		"another type":   {func(f *store.ResendFilter) { f.EventType = store.EventExpired }, 0},
		"another time":   {func(f *store.ResendFilter) { f.Since = time.Now().Add(time.Minute) }, 0},
		"an earlier one": {func(f *store.ResendFilter) { f.Until = time.Now().Add(-time.Hour) }, 0},
		"another app":    {func(f *store.ResendFilter) { f.Scope = store.OfApp(uuid.New()) }, 0},
		"nobody":         {func(f *store.ResendFilter) { f.Scope = store.Scope{} }, 0},
		"delivered":      {func(f *store.ResendFilter) { f.Status = store.DeliveryDelivered }, other},
		"waiting":        {func(f *store.ResendFilter) { f.Status = store.DeliveryPending }, other},
		"no such status": {func(f *store.ResendFilter) { f.Status = store.DeliveryCancelled }, 0},
	} {
		g := f
		c.change(&g)
		if n, err := b.CountResend(t.Context(), g, math.MaxInt32); err != nil || n != c.want {
			t.Errorf("%s: %d, %v, want %d", name, n, err, c.want)
		}
	}
	work := func(f store.ResendFilter) store.BulkResend {
		t.Helper()
		started, err := b.StartResend(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		batches := b.workResends()
		done, err := b.BulkResend(t.Context(), store.OfApp(b.app.ID), started.ID)
		if err != nil || done.FinishedAt == nil {
			t.Fatalf("after %d batches: %+v, %v", batches, done, err)
		}
		return done
	}
	if got := work(f); got.Matched != failed || got.Done != failed || got.Skipped != 0 {
		t.Errorf("resend: %+v", got)
	}
	const parked = `select count(*) from deliveries where endpoint_id = $1 and parked and status = 'pending' and round_start = attempt_count`
	if n := b.count(parked, ids["https://a.example/"]); n != failed {
		t.Errorf("%d are sent again", n)
	}
	if n := b.count(`select count(*) from deliveries where endpoint_id = $1 and failed`, ids["https://b.example/"]); n != other {
		t.Errorf("%d of the other endpoint are left", n)
	}
	f.Action, f.Status = store.ActionCancel, store.DeliveryPending
	if got := work(f); got.Done != failed+other {
		t.Errorf("cancel: %+v", got)
	}
	if n := b.count(`select count(*) from deliveries where endpoint_id = $1 and status = 'cancelled' and cancelled and not parked`, ids["https://a.example/"]); n != failed+other {
		t.Errorf("%d are cancelled", n)
	}
	if _, err := b.BulkResend(t.Context(), store.OfApp(uuid.New()), uuid.New()); err == nil {
		t.Error("a bulk resend of another app was read")
	}
}

// A delivery whose event is no longer stored has nothing that could be sent: neither a bulk resend nor a recovery takes it up.
func TestNothingIsSentAgainWithoutItsEvent(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	endpoint := b.register("task", "https://a.example/").Task.Subscriptions[0].EndpointID
	b.insertDeliveries(endpoint, 3, "failed")
	b.exec(`insert into attempts (delivery_id, number, at, duration_ms, outcome) select id, 10, now(), 1, 'failed' from deliveries`,
		`delete from events where id = (select min(id::text)::uuid from deliveries)`)
	f := store.ResendFilter{Scope: store.OfApp(b.app.ID), Action: store.ActionResend, Status: store.DeliveryFailed, EndpointID: endpoint}
	started, err := b.StartResend(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	b.workResends()
	if got, err := b.BulkResend(t.Context(), store.OfApp(b.app.ID), started.ID); err != nil || got.Done != 2 || got.Skipped != 1 {
		t.Errorf("resend: %+v, %v", got, err)
	}
	b.exec(`update deliveries set status = 'failed', failed = true, parked = false`)
	if n, err := b.Recover(t.Context(), store.OfApp(b.app.ID), endpoint, new(time.Now().Add(-time.Hour))); err != nil || n != 2 {
		t.Errorf("recover: %d, %v", n, err)
	}
}

// An endpoint that is well again has so much waiting that one statement would hold up all attempts that are recorded with the probe's
// result: a bounded number is made due with it, and maintenance makes the rest due, once each.
func TestAllThatWaitsBecomesDueInBatches(t *testing.T) {
	t.Parallel()
	const waiting, most = 7000, 2000
	well := map[string]func(b *bundle, d store.Delivery) error{
		"a probe": func(b *bundle, d store.Delivery) error {
			return b.RecordAttempt(b.t.Context(), store.AttemptResult{DeliveryID: d.ID, EndpointID: d.EndpointID, At: time.Now(), Delivered: true, Released: true})
		},
		"a test beside a closed breaker": func(b *bundle, d store.Delivery) error {
			b.exec(`update endpoints set breaker = 'closed', failures = 9`)
			return b.RecordAttempt(b.t.Context(), store.AttemptResult{DeliveryID: d.ID, EndpointID: d.EndpointID, At: time.Now(), Delivered: true, Test: true})
		},
		"enable": func(b *bundle, d store.Delivery) error {
			_, err := b.UpdateEndpoint(b.t.Context(), store.OfApp(b.app.ID), d.EndpointID, store.EndpointSettings{Enabled: new(true)})
			return err
		},
		"enable of a healthy endpoint": func(b *bundle, d store.Delivery) error {
			b.exec(`update endpoints set breaker = 'closed', failures = 0, failing_since = null`)
			_, err := b.UpdateEndpoint(b.t.Context(), store.OfApp(b.app.ID), d.EndpointID, store.EndpointSettings{Enabled: new(true)})
			if n := b.count(`select count(*) from events where type = 'endpoint.recovered'`); n != 0 {
				b.t.Errorf("%d events that it has recovered", n)
			}
			return err
		},
		"recover": func(b *bundle, d store.Delivery) error {
			n, err := b.Recover(b.t.Context(), store.OfApp(b.app.ID), d.EndpointID, new(time.Now()))
			if n != waiting {
				b.t.Errorf("%d will be sent", n)
			}
			return err
		},
	}
	for name, found := range well {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, list := announced(t, 1)
			b.insertDeliveries(list[0].EndpointID, waiting, "pending")
			b.insertDeliveries(uuid.New(), 10, "pending")
			b.exec(`update endpoints set breaker = 'half-open', failures = 10, failing_since = now()`)
			if err := found(b, list[0]); err != nil {
				t.Fatal(err)
			}
			const due = `select count(*) from deliveries where endpoint_id = $1 and parked and not retrying and next_attempt_at <= now()`
			if n := b.count(due, list[0].EndpointID); n != most {
				t.Errorf("%d are due at once, want %d", n, most)
			}
			b.workResends()
			if n := b.count(due, list[0].EndpointID); n != waiting || b.count(`select count(*) from deliveries where parked`) != waiting {
				t.Errorf("%d of %d are due in the end", n, waiting)
			}
			if n := b.count(`select count(*) from endpoints where backlog`); n != 1 {
				t.Errorf("%d endpoints have a backlog", n)
			}
			b.exec(`update deliveries set parked = false, retrying = true, next_attempt_at = now() + interval '1 h' where id <> '` + list[0].ID.String() + `'`)
			if n := b.workResends(); n != 0 {
				t.Errorf("what failed again is made due again, in %d batches", n)
			}
		})
	}
}

// A recovery counts what waits for its endpoint, which takes long where that is much. Meanwhile nobody waits for the endpoint.
func TestRecoverCountsWithoutALock(t *testing.T) {
	t.Parallel()
	b, await, letGo := held(t, "where endpoint_id = $1 and parked)")
	endpoint := b.register("task", "https://a.example/").Task.Subscriptions[0].EndpointID
	b.insertDeliveries(endpoint, 3, "pending")
	done := make(chan error, 1)
	go func() {
		n, err := b.Recover(t.Context(), store.OfApp(b.app.ID), endpoint, new(time.Now()))
		if err == nil && n != 3 {
			err = fmt.Errorf("%d will be sent", n)
		}
		done <- err
	}()
	await()
	b.exec(`select 1 from endpoints for update nowait`)
	letGo()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// However many bulk resends or recoveries are counted at a time: there are connections for all else.
func TestCountsLeaveConnections(t *testing.T) {
	t.Parallel()
	for text, count := range map[string]func(b *bundle, endpoint uuid.UUID) error{
		"as after) r, deliveries d": func(b *bundle, _ uuid.UUID) error {
			_, err := b.CountResend(b.t.Context(), store.ResendFilter{Scope: store.OfApp(b.app.ID), Status: store.DeliveryDelivered}, math.MaxInt32)
			return err
		},
		"where endpoint_id = $1 and parked)": func(b *bundle, endpoint uuid.UUID) error {
			_, err := b.Recover(b.t.Context(), store.OfApp(b.app.ID), endpoint, new(time.Now()))
			return err
		},
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			b, await, letGo := held(t, text)
			endpoint := b.register("task", "https://a.example/").Task.Subscriptions[0].EndpointID
			const counts = 10
			counted := make(chan error, counts)
			for range counts {
				go func() { counted <- count(b, endpoint) }()
			}
			await()
			await()
			for i := range 20 {
				b.register(fmt.Sprint("beside ", i), "https://a.example/")
			}
			letGo()
			for range counts {
				if err := <-counted; err != nil {
					t.Error(err)
				}
			}
		})
	}
}
