package store_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/memhook/memhook/store"
)

func withoutDeadlines(cfg *pgx.ConnConfig) *pgx.ConnConfig {
	cfg = cfg.Copy()
	cfg.Tracer = nil
	return cfg
}

// With MEMHOOK_LONG set to a number of attempts, such as 20000000, spread over 30 days: recording goes on at nine tenths of its
// speed while a day is purged, and lists are read within milliseconds.
func TestPurgingADayCostsLittle(t *testing.T) {
	total, err := strconv.Atoi(os.Getenv("MEMHOOK_LONG"))
	if err != nil || total < 1000 {
		t.Skip("takes minutes: set MEMHOOK_LONG to the number of attempts")
	}
	b := newBundle(t)
	conn, err := pgx.ConnectConfig(t.Context(), withoutDeadlines(b.pool.Config().ConnConfig)) // statements that take long
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	const days = 31
	daily(t, b, days)
	task := b.register("task", "https://a.example/").Task
	endpoint := task.Subscriptions[0].EndpointID
	perDay := total / days
	start := time.Now()
	for age := days; age >= 1; age-- {
		// Ids of the day, spread over it. Only the last two days have their deliveries, so that there is room on the disk
		// for all; a purge meets those of one day.
		_, err := conn.Exec(t.Context(), `
			with made as materialized (
				select (left(id_at(date_trunc('day', now(), 'UTC') - make_interval(days => $1) + i * interval '24 h' / $2)::text, 14)
					|| '7' || substr(md5(i::text), 1, 3) || '-8' || substr(md5(i::text), 4, 3) || '-' || substr(md5(i::text), 7, 12))::uuid as id
				from generate_series(0, $2 - 1) i
			), d as (
				insert into deliveries (id, app_id, event_id, event_type, endpoint_id, status, attempt_count, created_at, delivered_at)
				select id, $3, id, 'task.ready', $4, 'delivered', 1, now() - make_interval(days => $1), now() - make_interval(days => $1)
				from made where $1 in (1, 31)
			), e as (
				insert into events (id, app_id, type, payload, created_at) select id, $3, 'task.ready', repeat('x', 100), now() from made where $1 in (1, 31)
			)
			insert into attempts (delivery_id, number, at, duration_ms, outcome, response_status, response_headers, response_body)
			select id, 1, now() - make_interval(days => $1), 12, 'delivered', 200, '{"Content-Type": "text/plain"}', 'ok' from made`,
			age, perDay, b.app.ID, endpoint)
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Exec(t.Context(), `analyze`); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d attempts over %d days made in %s", perDay*days, days, time.Since(start).Round(time.Second))

	const batch = 500
	n := 0
	record := func() time.Duration {
		n++
		ids := make([]uuid.UUID, batch)
		for i := range ids {
			ids[i] = uuid.Must(uuid.NewV7())
		}
		if _, err := b.pool.Exec(t.Context(), `
			insert into deliveries (id, app_id, event_id, event_type, endpoint_id, created_at) select id, $2, id, 'task.ready', $3, now() from unnest($1::uuid[]) id`,
			ids, b.app.ID, endpoint); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		failed := make(chan error, batch)
		for _, id := range ids {
			go func() {
				status, body := 200, "ok"
				failed <- b.RecordAttempt(context.Background(), store.AttemptResult{
					DeliveryID: id, EndpointID: endpoint, At: start, Duration: time.Millisecond, Delivered: true, Healthy: true,
					ResponseStatus: &status, ResponseBody: &body, ResponseHeaders: map[string]string{"Content-Type": "text/plain"},
				})
			}()
		}
		for range ids {
			if err := <-failed; err != nil {
				t.Fatal(err)
			}
		}
		return time.Since(start)
	}
	measure := func(until func() bool) (perSecond float64) {
		began, from := time.Now(), n
		for !until() {
			record()
		}
		return float64((n-from)*batch) / time.Since(began).Seconds()
	}
	lasting := func(d time.Duration) func() bool {
		end := time.Now().Add(d)
		return func() bool { return time.Now().After(end) }
	}
	measure(lasting(3 * time.Second)) // warm
	before := measure(lasting(10 * time.Second))
	purged := make(chan string, 1)
	go func() {
		start := time.Now()
		rows, err := b.Purge(context.Background(), 30*24*time.Hour)
		purged <- fmt.Sprintf("%d rows and partitions in %s, %v", rows, time.Since(start).Round(10*time.Millisecond), err)
	}()
	var result string
	during := measure(func() bool {
		select {
		case result = <-purged:
			return true
		default:
			return false
		}
	})
	after := measure(lasting(10 * time.Second))
	t.Logf("recorded a second: %.0f before, %.0f while a day was purged (%s), %.0f after", before, during, result, after)
	if base := (before + after) / 2; during < 0.9*base {
		t.Errorf("%.2f of the speed while a day is purged, want 0.9", during/base)
	}
	if names := partitions(t, b.pool, "attempts"); len(names) != days+4 { // today's and the next, and the default one, but the oldest
		t.Errorf("%d partitions are left: %v", len(names), names)
	}
	scope := store.OfApp(b.app.ID)
	page := store.Page{Limit: 50}
	list, err := b.Deliveries(t.Context(), store.DeliveryFilter{Scope: scope}, page)
	if err != nil || len(list) == 0 {
		t.Fatal(err)
	}
	for name, read := range map[string]func() error{
		"deliveries": func() error {
			_, err := b.Deliveries(t.Context(), store.DeliveryFilter{Scope: scope}, page)
			return err
		},
		"a delivery": func() error { _, err := b.Delivery(t.Context(), scope, list[0].ID); return err },
		"the feed":   func() error { _, _, err := b.Events(t.Context(), scope, "", uuid.Nil, 100); return err },
		"the feed of all apps": func() error {
			_, _, err := b.Events(t.Context(), store.Everything(), "", uuid.Nil, 100)
			return err
		},
		"a task's events":     func() error { _, err := b.TaskEvents(t.Context(), task.ID); return err },
		"a task's deliveries": func() error { _, err := b.TaskDeliveries(t.Context(), task.ID); return err },
		"an endpoint":         func() error { _, err := b.EndpointHealth(t.Context(), endpoint, 20); return err },
		"orphans":             func() error { _, err := b.AdoptOrphans(t.Context()); return err },
	} {
		times := make([]time.Duration, 31)
		for i := range times {
			start := time.Now()
			if err := read(); err != nil {
				t.Fatal(err)
			}
			times[i] = time.Since(start)
		}
		slices.Sort(times)
		t.Logf("%s: median %s", name, times[len(times)/2].Round(10*time.Microsecond))
		if name != "orphans" && times[len(times)/2] > 10*time.Millisecond {
			t.Errorf("%s: the median is %s, want less than 10 ms", name, times[len(times)/2])
		}
	}
}
