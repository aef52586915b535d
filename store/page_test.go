package store_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// Whoever goes to older pages and back to newer ones sees the same pages, in the same order, without a gap.
func TestListsPageBothWays(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for i := range 23 {
		b.ready(b.register(fmt.Sprint("task-", i), fmt.Sprintf("https://a.example/%d", i)).Task.ID, "PI-1")
		time.Sleep(2 * time.Millisecond) // ids sort by the millisecond
		if _, err := b.CreateApp(auditing(t, "create-app"), fmt.Sprint("app-", i), b.account.ID); err != nil {
			t.Fatal(err)
		}
	}
	for name, read := range map[string]func(store.Page) ([]uuid.UUID, error){
		"tasks": func(p store.Page) ([]uuid.UUID, error) {
			list, _, err := b.Tasks(t.Context(), store.TaskFilter{Scope: store.Everything(), Status: store.TaskReady}, p)
			return idsOf(list, func(x store.Task) uuid.UUID { return x.ID }), err
		},
		"deliveries": func(p store.Page) ([]uuid.UUID, error) {
			list, err := b.Deliveries(t.Context(), store.DeliveryFilter{Scope: store.Everything(), Status: store.DeliveryPending}, p)
			return idsOf(list, func(x store.Delivery) uuid.UUID { return x.ID }), err
		},
		"endpoints": func(p store.Page) ([]uuid.UUID, error) {
			list, err := b.Endpoints(t.Context(), store.EndpointFilter{Scope: store.OfApp(b.app.ID)}, p)
			return idsOf(list, func(x store.Endpoint) uuid.UUID { return x.ID }), err
		},
		"apps": func(p store.Page) ([]uuid.UUID, error) {
			list, err := b.Apps(t.Context(), p)
			return idsOf(list, func(x store.App) uuid.UUID { return x.ID }), err
		},
		"audit log": func(p store.Page) ([]uuid.UUID, error) {
			list, err := b.AuditLog(t.Context(), store.AuditFilter{Scope: store.Everything()}, p)
			return idsOf(list, func(x store.AuditEntry) uuid.UUID { return x.ID }), err
		},
	} {
		all, err := read(store.Page{Limit: 500})
		if err != nil || len(all) < 23 || !slices.IsSortedFunc(all, func(x, y uuid.UUID) int { return slices.Compare(y[:], x[:]) }) {
			t.Fatalf("%s: %d rows, newest first: %v", name, len(all), err)
		}
		for from := 5; from+5 <= len(all); from++ {
			older, err := read(store.Page{Limit: 5, Before: all[from-1]})
			if err != nil || !slices.Equal(older, all[from:from+5]) {
				t.Errorf("%s: older than row %d: %v, %v", name, from-1, older, err)
			}
			newer, err := read(store.Page{Limit: 5, After: all[from]})
			if err != nil || !slices.Equal(newer, all[from-5:from]) {
				t.Errorf("%s: newer than row %d: %v, %v", name, from, newer, err)
			}
		}
		middle := time.UnixMilli(int64(all[10][0])<<40 | int64(all[10][1])<<32 | int64(all[10][2])<<24 | int64(all[10][3])<<16 | int64(all[10][4])<<8 | int64(all[10][5]))
		since, err := read(store.Page{Limit: 500, Since: middle})
		if err != nil || len(since) < 11 || !slices.Equal(since, all[:len(since)]) {
			t.Errorf("%s: %d rows since row 10, %v", name, len(since), err)
		}
		until, err := read(store.Page{Limit: 500, Until: middle})
		if err != nil || len(since)+len(until) != len(all) || !slices.Equal(until, all[len(since):]) {
			t.Errorf("%s: %d rows since row 10 and %d before it of %d, %v", name, len(since), len(until), len(all), err)
		}
	}
}

func idsOf[T any](list []T, id func(T) uuid.UUID) []uuid.UUID {
	ids := make([]uuid.UUID, len(list))
	for i, x := range list {
		ids[i] = id(x)
	}
	return ids
}
