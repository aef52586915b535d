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

// fillOldDays puts attempts into a partition for each of the last days, perDay each, the oldest day first. That day and yesterday
// have their deliveries and events, too: a purge meets those of one day, and lists those of the newest.
func fillOldDays(t *testing.T, b *bundle, days, perDay int, endpoint uuid.UUID) {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), withoutDeadlines(b.pool.Config().ConnConfig)) // statements that take long
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	// Ids of a day, spread over it in their order, and the day's beginning. Few and cheap functions: they are most of the time.
	const made = `
		select d.at, ('0' || to_hex(d.ms + i * 86400000 / $2) || '70008' || to_hex((1::bigint << 56) + i))::uuid as id
		from generate_series(0, $2::bigint - 1) i
		cross join (select $1::date at time zone 'UTC' as at, extract(epoch from $1::date at time zone 'UTC')::bigint * 1000 as ms) d`
	for age := days; age >= 1; age-- {
		day := time.Now().UTC().AddDate(0, 0, -age)
		date, n := day.Format(time.DateOnly), perDay
		if age == days {
			n = max(perDay, 300_000) // so that purging it takes some windows
		}
		if age == days || age == 1 {
			exec(`select add_partition('events', $1)`, date)
			exec(`
				with made as materialized (`+made+`), d as (
					insert into deliveries (id, app_id, event_id, event_type, endpoint_id, status, attempt_count, created_at, delivered_at)
					select id, $3, id, 'task.ready', $4, 'delivered', 1, at, at from made
				)
				insert into events (id, app_id, type, payload, created_at) select id, $3, 'task.ready', repeat('x', 100), at from made`,
				date, n, b.app.ID, endpoint)
		}
		// The index is built when the rows are there, by attaching the partition.
		name := "attempts_d" + day.Format("20060102")
		exec(`create table ` + name + ` (like attempts including defaults including constraints)`)
		exec(`
			insert into `+name+` (delivery_id, number, at, duration_ms, outcome, response_status, response_headers, response_body)
			select id, 1, at, 12, 'delivered', 200, '{"Content-Type": "text/plain"}', 'ok' from (`+made+`) made`, date, n)
		var from, to uuid.UUID
		bounds := `select id_at($1::date at time zone 'UTC'), id_at(($1::date + 1) at time zone 'UTC')`
		if err := conn.QueryRow(t.Context(), bounds, date).Scan(&from, &to); err != nil {
			t.Fatal(err)
		}
		exec(fmt.Sprintf(`alter table attempts attach partition %s for values from ('%s') to ('%s')`, name, from, to))
		exec(`vacuum analyze ` + name) // as autovacuum has done long ago
	}
	exec(`vacuum analyze deliveries, events`)
}

// With MEMHOOK_LONG set to a number of attempts, such as 20000000, spread over 31 days (make bench-purge): recording goes on at
// nine tenths of its speed while a day is purged, and lists are read within milliseconds. Windows with and without the purge
// alternate until the day is gone, and each with it is compared with its two neighbours: what else the machine and autovacuum do
// meets all three.
func TestPurgingADayCostsLittle(t *testing.T) {
	total, err := strconv.Atoi(os.Getenv("MEMHOOK_LONG"))
	if err != nil || total < 1000 {
		t.Skip("takes minutes: set MEMHOOK_LONG to the number of attempts")
	}
	b := newBundle(t)
	const days = 31
	b.exec(`drop table events_before`, `drop table attempts_before`)
	task := b.register("task", "https://a.example/").Task
	endpoint := task.Subscriptions[0].EndpointID
	start := time.Now()
	fillOldDays(t, b, days, total/days, endpoint)
	if err := b.AddPartitions(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d attempts over %d days made in %s", b.count(`select sum(reltuples)::bigint from pg_class where relname like 'attempts\_d2%' and relkind = 'r'`),
		days, time.Since(start).Round(time.Second))

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
	measure := func(d time.Duration, done func() bool) (perSecond float64) {
		began, from := time.Now(), n
		for time.Since(began) < d && !done() {
			record()
		}
		return float64((n-from)*batch) / time.Since(began).Seconds()
	}
	const window = 2 * time.Second
	never := func() bool { return false }
	measure(3*time.Second, never) // warm
	var with, ratios []float64
	without := []float64{measure(window, never)}
	var purging time.Duration
	for gone := false; !gone; {
		ctx, cancel := context.WithCancel(t.Context())
		purged := make(chan error, 1)
		start := time.Now()
		go func() {
			_, err := b.Purge(ctx, (days-1)*24*time.Hour)
			purged <- err
		}()
		with = append(with, measure(window, func() bool {
			select {
			case err := <-purged:
				if gone = true; err != nil {
					t.Error(err)
				}
			default:
			}
			return gone
		}))
		purging += time.Since(start)
		if cancel(); !gone {
			<-purged // goes on in the next round
		}
		without = append(without, measure(window, never))
		last := len(with) - 1
		ratios = append(ratios, with[last]/((without[last]+without[last+1])/2))
	}
	t.Logf("purged the oldest day in %s; recorded a second in windows without purging %.0f, with it between them %.0f", purging.Round(time.Second), without, with)
	median := func(of []float64) float64 { slices.Sort(of); return of[len(of)/2] }
	ratio := median(ratios)
	t.Logf("medians: %.0f without purging, %.0f with it; of a window with it to those around it %.2f in %d windows", median(without), median(with), ratio, len(with))
	if ratio < 0.9 {
		t.Errorf("%.2f of the speed while a day is purged, want 0.9", ratio)
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
		"a task's events":     func() error { _, _, err := b.TaskEvents(t.Context(), task.ID, uuid.Nil, 50); return err },
		"a task's deliveries": func() error { _, err := b.TaskDeliveries(t.Context(), task.ID, 100); return err },
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
