package store_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// A bulk resend does what was counted, once each, and leaves what does not match.
func TestBulkResend(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	const failed, other = 2500, 10
	ids := make(map[string]uuid.UUID)
	for _, url := range []string{"https://a.example/", "https://b.example/"} {
		ids[url] = b.register("task of "+url, url).Task.Subscriptions[0].EndpointID
	}
	insert := func(endpoint uuid.UUID, n int, status string) {
		t.Helper()
		newIDs := make([]uuid.UUID, n)
		for i := range newIDs {
			newIDs[i] = uuid.Must(uuid.NewV7())
		}
		if _, err := b.pool.Exec(t.Context(), `
			insert into deliveries (id, app_id, event_id, event_type, endpoint_id, status, failed, retrying, attempt_count, created_at)
			select id, $2, gen_random_uuid(), 'task.ready', $3, $4, $4 = 'failed', $4 = 'pending', 10, now() from unnest($1::uuid[]) id`,
			newIDs, b.app.ID, endpoint, status); err != nil {
			t.Fatal(err)
		}
	}
	insert(ids["https://a.example/"], failed, "failed")
	insert(ids["https://b.example/"], other, "failed")
	insert(ids["https://a.example/"], other, "delivered")
	insert(ids["https://a.example/"], other, "pending")
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
		if n, err := b.CountResend(t.Context(), g); err != nil || n != c.want {
			t.Errorf("%s: %d, %v, want %d", name, n, err, c.want)
		}
	}
	work := func(f store.ResendFilter) store.BulkResend {
		t.Helper()
		started, err := b.StartResend(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		batches := 0
		for found := true; found; batches++ {
			if found, err = b.WorkResends(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
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
