package store_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/memhook/memhook/migrations"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

func partitions(t testing.TB, pool *pgxpool.Pool, parent string) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = to_regclass($1) order by 1`, parent)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// daily replaces the first partition by one for each of the last days and makes the next ones.
func daily(t testing.TB, b *bundle, days int) {
	t.Helper()
	b.exec(`drop table events_before`, `drop table attempts_before`)
	if _, err := b.pool.Exec(t.Context(), `
		select add_partition(t, d::date) from unnest(array['events', 'attempts']) t,
		generate_series(current_date - $1::int, current_date - 1, interval '1 day') d`, days); err != nil {
		t.Fatal(err)
	}
	if err := b.AddPartitions(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// withoutDeadlines is the settings of a connection whose statements may take long, such as a test's preparations.
func withoutDeadlines(cfg *pgx.ConnConfig) *pgx.ConnConfig {
	cfg = cfg.Copy()
	cfg.Tracer = nil
	return cfg
}

// fill inserts n events of an age in days, each with a delivery and an attempt.
func fill(b *bundle, age, n int, status string) {
	b.t.Helper()
	conn, err := pgx.ConnectConfig(b.t.Context(), withoutDeadlines(b.pool.Config().ConnConfig))
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.Exec(b.t.Context(), `
		with made as (
			select overlay(gen_random_uuid()::text placing left(id_at(date_trunc('day', now(), 'UTC') - make_interval(days => $1) + interval '1 min')::text, 13) from 1 for 13)::uuid as id
			from generate_series(1, $2)
		), e as (
			insert into events (id, app_id, type, payload, created_at) select id, $3, 'webhook.test', '{}', now() from made
		), d as (
			insert into deliveries (id, app_id, event_id, event_type, endpoint_id, status, attempt_count, created_at)
			select id, $3, id, 'webhook.test', $3, $4, 1, now() from made
		)
		insert into attempts (delivery_id, number, at, duration_ms, outcome) select id, 1, now() - make_interval(days => $1), 1, 'failed' from made`,
		age, n, b.app.ID, status)
	if err != nil {
		b.t.Fatal(err)
	}
}

// A day is dropped when all in it is past the retention. What is pending keeps its event and its attempts, without keeping the
// day; only where that is much the day stays, with nothing else.
func TestOldDaysAreDropped(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	daily(t, b, 40)
	for _, age := range []int{35, 33, 32, 2, 0} {
		fill(b, age, 100, store.DeliveryDelivered)
	}
	fill(b, 33, 3, store.DeliveryPending)
	fill(b, 32, 5001, store.DeliveryPending)
	if _, err := b.Purge(t.Context(), 30*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	day := func(parent string, age int) string {
		return parent + "_d" + time.Now().UTC().AddDate(0, 0, -age).Format("20060102")
	}
	for _, parent := range []string{"events", "attempts"} {
		names := partitions(t, b.pool, parent)
		for age := range 40 {
			if want := age < 31 || age == 32; age != 30 && age != 31 && slices.Contains(names, day(parent, age)) != want {
				t.Errorf("%s is there: %t, want %t", day(parent, age), !want, want)
			}
		}
		if n := b.count(`select count(*) from ` + parent + `_default`); n != 3 {
			t.Errorf("%d rows of %s were kept for pending deliveries, want 3", n, parent)
		}
		if n := b.count(`select count(*) from ` + parent); n != 3+5001+200 { // of the day that stays what is pending
			t.Errorf("%d %s are left, want 5204", n, parent)
		}
	}
	b.exec(`update deliveries set status = 'delivered'`)
	if _, err := b.Purge(t.Context(), 30*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	if e, a := b.count(`select count(*) from events`), b.count(`select count(*) from attempts`); e != 200 || a != 200 {
		t.Errorf("%d events and %d attempts are left, want the 200 of the last days", e, a)
	}
}

// A backup reads the tables for hours: purging does not wait for it, and nobody waits for purging.
func TestPurgeDoesNotWaitForReaders(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	daily(t, b, 40)
	fill(b, 35, 10, store.DeliveryDelivered)
	tx := begin(t, b)
	if _, err := tx.Exec(t.Context(), `select count(*) from events`); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := b.pool.Exec(t.Context(), `delete from deliveries`); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Purge(t.Context(), 30*24*time.Hour); err != nil {
		t.Errorf("beside a reader: %v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("purging took %s", took)
	}
	if n := b.count(`select count(*) from events`); n != 10 {
		t.Errorf("%d events, want 10: they are being read", n)
	}
	_ = tx.Rollback(t.Context())
	if _, err := b.Purge(t.Context(), 30*24*time.Hour); err != nil || b.count(`select count(*) from events`) != 0 {
		t.Errorf("after the reader has gone: %v", err)
	}
}

// What comes where there is no partition is stored, moves to its partition when that is made, and never prevents it.
func TestRowsWithoutAPartition(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	if err := b.AddPartitions(t.Context()); err != nil {
		t.Fatal(err)
	}
	fill(b, -20, 10, store.DeliveryDelivered) // a clock that is ahead, or maintenance that was away for weeks
	fill(b, -21, 20_001, store.DeliveryDelivered)
	if n := b.count(`select count(*) from events_default`); n != 20_011 {
		t.Fatalf("%d rows in the default partition, want 20,011", n)
	}
	for _, parent := range []string{"events", "attempts"} {
		var few, many bool
		err := b.pool.QueryRow(t.Context(), `select add_partition($1, (now() at time zone 'UTC')::date + 20), add_partition($1, (now() at time zone 'UTC')::date + 21)`, parent).
			Scan(&few, &many)
		if err != nil || !few || many {
			t.Errorf("%s: partitions for 10 strays %t and for 20,001 %t, %v; want true and false", parent, few, many, err)
		}
		if n := b.count(`select count(*) from ` + parent + `_default`); n != 20_001 {
			t.Errorf("%d rows are left in the default partition of %s, want 20,001", n, parent)
		}
		if n := b.count(`select count(*) from ` + parent); n != 20_011 {
			t.Errorf("%d %s, want 20,011", n, parent)
		}
	}
	for range 2 { // once more changes nothing
		if err := b.AddPartitions(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// An instance of the version before inserts while the tables become partitions. Nothing is lost or rewritten.
func TestTablesBecomePartitionsBesideTheVersionBefore(t *testing.T) {
	t.Parallel()
	pool := storetest.Pool(t, storetest.EmptyURL(t))
	if _, err := pool.Exec(t.Context(), `create schema if not exists memhook`); err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDBFromPool(pool)
	defer func() { _ = db.Close() }()
	before, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := before.UpTo(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	var inserted atomic.Int64
	insert := func() error {
		id := uuid.Must(uuid.NewV7())
		_, err := pool.Exec(context.Background(), `
			with e as (insert into events (id, app_id, type, payload, created_at) values ($1, $1, 'webhook.test', '{}', now()))
			insert into attempts (delivery_id, number, at, duration_ms, outcome) values ($1, 1, now(), 1, 'failed')`, id)
		if err == nil {
			inserted.Add(1)
		}
		return err
	}
	for range 1000 {
		if err := insert(); err != nil {
			t.Fatal(err)
		}
	}
	file := func(table string) (node uint32) {
		if err := pool.QueryRow(t.Context(), `select pg_relation_filenode($1::text::regclass)`, table).Scan(&node); err != nil {
			t.Fatal(err)
		}
		return node
	}
	events, attempts := file("events"), file("attempts")
	ctx, stop := context.WithCancel(t.Context())
	writer := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			if err := insert(); err != nil {
				writer <- err
				return
			}
		}
		writer <- nil
	}()
	err = store.Migrate(t.Context(), pool, nil)
	for range 200 {
		if err == nil {
			err = insert()
		}
	}
	stop()
	if werr := <-writer; werr != nil || err != nil {
		t.Fatalf("the version before cannot write: %v; %v", werr, err)
	}
	if e, a := file("events_before"), file("attempts_before"); e != events || a != attempts {
		t.Error("a table was rewritten")
	}
	for _, table := range []string{"events", "attempts"} {
		var n int64
		if err := pool.QueryRow(t.Context(), `select count(*) from `+table).Scan(&n); err != nil || n != inserted.Load() {
			t.Errorf("%d %s of %d, %v", n, table, inserted.Load(), err)
		}
		if names := partitions(t, pool, table); !slices.Equal(names, []string{table + "_before", table + "_default"}) {
			t.Errorf("partitions of %s: %v", table, names)
		}
	}
	// And back, with what is there.
	if _, err := before.DownTo(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	var n int64
	if err := pool.QueryRow(t.Context(), `select count(*) from events`).Scan(&n); err != nil || n != inserted.Load() {
		t.Errorf("%d events of %d after going back, %v", n, inserted.Load(), err)
	}
	if err := insert(); err != nil {
		t.Error(err)
	}
}
