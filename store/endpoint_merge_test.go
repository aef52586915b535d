package store_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// What was delivered to endpoints that an app merges into one follows it, more than a batch of it, and is sent again to the
// same URL.
func TestDeliveriesFollowTheirMergedEndpoint(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	const url = "https://a.example/in/one?order=1"
	task := b.register("task", url).Task
	b.register("task", "https://a.example/in/two")
	b.ready(task.ID, "PI-1")
	scope := store.OfApp(b.app.ID)
	list := func() []store.Delivery {
		t.Helper()
		found, err := b.TaskDeliveries(t.Context(), task.ID, 100)
		if err != nil || len(found) != 2 {
			t.Fatalf("%d deliveries, %v", len(found), err)
		}
		return found
	}
	var first store.Delivery
	for _, d := range list() {
		err := b.RecordAttempt(t.Context(), store.AttemptResult{DeliveryID: d.ID, EndpointID: d.EndpointID, At: time.Now(), Delivered: true, Healthy: true})
		if err != nil {
			t.Fatal(err)
		}
		if d.CallbackURL == url {
			first = d
		}
	}
	if first.ID == uuid.Nil {
		t.Fatalf("no delivery to %s: %+v", url, list())
	}
	b.exec(`insert into deliveries (id, app_id, event_id, event_type, endpoint_id, suffix, status, created_at)
		select gen_random_uuid(), app_id, event_id, event_type, endpoint_id, suffix, 'delivered', now()
		from deliveries, generate_series(1, 2500) where id = '` + first.ID.String() + `'`)
	if _, err := b.Secrets(t.Context(), scope, first.EndpointID); err != nil { // to read its secret keeps it from no merger
		t.Fatal(err)
	}
	all, err := b.CreateEndpoint(t.Context(), b.app.ID, store.EndpointSettings{URL: new("https://a.example/in/*")})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.MoveMerged(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := b.count(`select count(*) from deliveries where endpoint_id = $1`, all.ID); n != 2502 {
		t.Errorf("%d deliveries have followed, want 2,502", n)
	}
	if n := b.count(`select count(*) from endpoints where merged_into is not null`); n != 0 {
		t.Errorf("%d endpoints still have something to move", n)
	}
	if err := b.Resend(t.Context(), scope, first.ID); err != nil {
		t.Errorf("resend: %v", err)
	}
	if d, err := b.Delivery(t.Context(), scope, first.ID); err != nil || d.CallbackURL != url || d.EndpointID != all.ID || d.Status != store.DeliveryPending {
		t.Errorf("the delivery is %+v, %v", d, err)
	}
}
