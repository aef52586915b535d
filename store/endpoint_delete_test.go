package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/memhook/memhook/store"
)

// Deleting an endpoint, or its app, costs no more than a bounded number of rows, since registrations and events wait for
// it. What it leaves does nothing, and is cancelled and deleted by maintenance.
func TestDeletingAnEndpointIsBounded(t *testing.T) {
	t.Parallel()
	const each, most = 6000, 5000
	for name, call := range map[string]func(*bundle, store.Subscription) error{
		"endpoint": func(b *bundle, s store.Subscription) error {
			return b.DeleteEndpoint(b.t.Context(), store.OfApp(b.app.ID), s.EndpointID)
		},
		"app": func(b *bundle, _ store.Subscription) error { return b.DeleteApp(b.t.Context(), b.app.ID) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, list := announced(t, 2) // their first attempt is still to come
			task := b.register("task", "https://a.example/0").Task
			sub := task.Subscriptions[0]
			if list[0].EndpointID != sub.EndpointID {
				list[0], list[1] = list[1], list[0]
			}
			b.insertDeliveries(sub.EndpointID, 2*each, "pending")
			b.exec(`update deliveries set parked = true, retrying = false where retrying and id in (select id from deliveries where retrying order by id limit 6000)`,
				`insert into subscriptions (id, task, endpoint_id) select gen_random_uuid(), gen_random_uuid(), '`+sub.EndpointID.String()+`' from generate_series(1, 6000)`)
			if err := call(b, sub); err != nil {
				t.Fatal(err)
			}
			pending := fmt.Sprintf(`select count(*) from deliveries where status = 'pending' and endpoint_id = '%s'`, sub.EndpointID)
			if n := b.count(pending); n == 0 || n > 2*(each-most) { // some are in two of the sets
				t.Errorf("%d deliveries are left pending", n)
			}
			if n := b.count(`select count(*) from deliveries where status = 'pending' and id = $1`, list[0].ID); n != 0 {
				t.Error("a delivery that had no attempt yet is left pending")
			}
			subscriptions := fmt.Sprintf(`select count(*) from subscriptions where endpoint_id = '%s'`, sub.EndpointID)
			if n := b.count(subscriptions); n == 0 || n > 1+each-most {
				t.Errorf("%d subscriptions are left", n)
			}
			if name == "endpoint" {
				if got, err := b.Task(t.Context(), store.OfApp(b.app.ID), task.ID); err != nil || len(got.Subscriptions) != 1 {
					t.Errorf("the task shows %v, %v", got.Subscriptions, err)
				}
			}
			if name == "endpoint" {
				until(t, 20*time.Second, func() bool {
					if _, err := b.AdoptOrphans(t.Context()); err != nil {
						t.Fatal(err)
					}
					return b.count(pending) == 0
				})
			} else { // no instance has run for so long
				b.exec(`update endpoints set deleted_at = deleted_at - interval '2 days'`)
			}
			if _, err := b.Purge(t.Context(), 72*time.Hour); err != nil {
				t.Fatal(err)
			}
			if n := b.count(pending); n != 0 {
				t.Errorf("%d deliveries are left pending after purging", n)
			}
			if n := b.count(subscriptions); n != 0 {
				t.Errorf("%d subscriptions are left after purging", n)
			}
		})
	}
}
