package store_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

// reader follows the feed as an app does: by the id of the last event that it has seen.
type reader struct {
	*bundle
	last uuid.UUID
	seen []uuid.UUID
}

// read reads on until nothing comes.
func (r *reader) read() {
	r.t.Helper()
	for {
		events, _, err := r.Events(r.t.Context(), store.OfApp(r.app.ID), "", r.last, 1)
		if err != nil {
			r.t.Fatal(err)
		}
		if len(events) == 0 {
			return
		}
		r.last = events[0].ID
		r.seen = append(r.seen, r.last)
	}
}

// readUntil reads on until so many events were seen.
func (r *reader) readUntil(n int) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); len(r.seen) < n; time.Sleep(20 * time.Millisecond) {
		if r.read(); time.Now().After(deadline) {
			r.t.Fatalf("%d events were seen, want %d", len(r.seen), n)
		}
	}
}

// insertEvent inserts an event as a transaction of an instance does.
func insertEvent(t *testing.T, tx pgx.Tx, app uuid.UUID, id uuid.UUID) {
	t.Helper()
	_, err := tx.Exec(t.Context(), `insert into events (id, app_id, type, payload, created_at) values ($1, $2, 'webhook.test', '{}', now())`, id, app)
	if err != nil {
		t.Fatal(err)
	}
}

func begin(t *testing.T, b *bundle) pgx.Tx {
	t.Helper()
	tx, err := b.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

// A transaction is held up for five seconds while others commit and the feed is read: what it has made appears when it
// commits, wherever its id sorts.
func TestFeedShowsWhatCommitsLate(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	r := &reader{bundle: b}
	id := func(n byte) uuid.UUID { u := uuid.Must(uuid.NewV7()); u[15] = n; return u }
	first := id(0)
	late := begin(t, b) // writes first, commits last
	insertEvent(t, late, b.app.ID, first)
	second := id(1)
	soon := begin(t, b)
	insertEvent(t, soon, b.app.ID, second)
	if err := soon.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < 5*time.Second; time.Sleep(50 * time.Millisecond) {
		r.read()
	}
	third := id(2)
	insertEvent(t, late, b.app.ID, third) // an id greater than that of an event that commits before, and of a greater transaction
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.readUntil(3)
	for _, id := range []uuid.UUID{first, second, third} {
		if !slices.Contains(r.seen, id) {
			t.Errorf("the reader has passed %v", id)
		}
	}
}

// A program in another database of the same PostgreSQL has written something and does not commit, before anybody here has
// begun. It holds back nothing, also for a role that may not see what others do. A transaction of this database does.
func TestFeedDoesNotWaitForOtherDatabases(t *testing.T) {
	t.Parallel()
	other, err := pgx.Connect(t.Context(), storetest.EmptyURL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close(context.Background()) })
	for _, sql := range []string{`begin`, `select pg_current_xact_id()`} {
		if _, err := other.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	b := newBundle(t)
	cfg := b.pool.Config()
	cfg.ConnConfig.User = "reader_of_" + cfg.ConnConfig.Database
	b.exec(`create role `+cfg.ConnConfig.User+` login`, `grant usage on schema memhook to `+cfg.ConnConfig.User,
		`grant select on all tables in schema memhook to `+cfg.ConnConfig.User)
	readers := *b
	readers.Store = storetest.Over(t, cfg, store.Config{Encode: encode})
	r := &reader{bundle: &readers}
	ids := []uuid.UUID{uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())}
	late, soon := begin(t, b), begin(t, b)
	insertEvent(t, late, b.app.ID, ids[0])
	insertEvent(t, soon, b.app.ID, ids[1])
	if err := soon.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.read(); len(r.seen) > 0 {
		t.Errorf("the reader has passed the event of a transaction that is under way: %v", r.seen)
	}
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.read(); !slices.Equal(r.seen, ids) {
		t.Errorf("seen %v, want %v", r.seen, ids)
	}
}

// A bulk resend that looks for what matches among very many deliveries holds back nothing, and another instance leaves it alone.
func TestFeedDoesNotWaitForABulkResend(t *testing.T) {
	t.Parallel()
	b, await, letGo := held(t, "order by d.id")
	endpoint := b.register("task", "https://a.example/").Task.Subscriptions[0].EndpointID
	const failed = 3
	b.insertDeliveries(endpoint, failed, "failed")
	f := store.ResendFilter{Scope: store.OfApp(b.app.ID), Action: store.ActionResend, Status: store.DeliveryFailed}
	if _, err := b.StartResend(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	worked := make(chan error, 1)
	go func() {
		_, err := b.WorkResends(t.Context())
		worked <- err
	}()
	await()
	tx := begin(t, b)
	insertEvent(t, tx, b.app.ID, uuid.Must(uuid.NewV7()))
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &reader{bundle: b}
	r.readUntil(failed + 1)
	if found, err := b.WorkResends(t.Context()); found || err != nil {
		t.Errorf("two work on it at a time: %t, %v", found, err)
	}
	letGo()
	if err := <-worked; err != nil || b.count(`select count(*) from deliveries where parked`) != failed {
		t.Errorf("the bulk resend: %v", err)
	}
}

// An instance whose clock is behind gives ids that sort before what was read: the feed shows its events all the same, and only once.
func TestFeedDoesNotDependOnClocks(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	r := &reader{bundle: b}
	now := uuid.Must(uuid.NewV7())
	behind := now
	behind[4] -= 1 // a minute or so
	for i, id := range []uuid.UUID{now, behind} {
		tx := begin(t, b)
		insertEvent(t, tx, b.app.ID, id)
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.readUntil(i + 1)
	}
	r.read()
	if !slices.Equal(r.seen, []uuid.UUID{now, behind}) {
		t.Errorf("seen %v, want %v and then %v", r.seen, now, behind)
	}
	// A cursor that was kept from before, and whose event was purged, goes on by its time.
	r.seen, r.last = nil, behind
	r.last[15]++
	r.readUntil(1)
	if r.seen[0] != now {
		t.Errorf("after an event that is not stored: %v, want what was made later, %v", r.seen, now)
	}
}

// A dump that is restored into a PostgreSQL that has counted fewer transactions: its events are in the feed, before new ones.
func TestFeedSurvivesRestore(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	r := &reader{bundle: b}
	tx := begin(t, b)
	old := uuid.Must(uuid.NewV7())
	insertEvent(t, tx, b.app.ID, old)
	for _, sql := range []string{`update events set xid = '4000000000'`, `update sweep set xid = '4000000000'`} {
		if _, err := tx.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if more, err := b.CheckFeed(t.Context()); more || err != nil {
		t.Fatal(more, err)
	}
	r.readUntil(1)
	tx = begin(t, b)
	insertEvent(t, tx, b.app.ID, uuid.Must(uuid.NewV7()))
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.readUntil(2)
	if r.seen[0] != old {
		t.Errorf("the restored event is not the first: %v", r.seen)
	}
}

// Many restored events are numbered anew in batches, an app's last ones first.
func TestARestoredFeedIsNumberedInBatches(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	_, err := b.pool.Exec(t.Context(), `
		insert into events (id, app_id, type, payload, created_at, xid)
		select overlay(gen_random_uuid()::text placing left(id_at(now())::text, 13) from 1 for 13)::uuid, $1, 'webhook.test', '{}', now(),
			(4000000000 + i)::text::xid8
		from generate_series(1, 20001) i`, b.app.ID)
	if err != nil {
		t.Fatal(err)
	}
	b.exec(`update sweep set xid = '5000000000'`)
	if more, err := b.CheckFeed(t.Context()); !more || err != nil {
		t.Fatalf("after the first batch: %t, %v", more, err)
	}
	if n := b.count(`select count(*) from events where xid = '4000000001'`); n != 1 {
		t.Error("the first event was not left for the last")
	}
	if more, err := b.CheckFeed(t.Context()); more || err != nil {
		t.Fatalf("after the second batch: %t, %v", more, err)
	}
	if n := b.count(`select count(*) from events where xid = '0'`); n != 20_001 {
		t.Errorf("%d events are numbered anew, want 20,001", n)
	}
}
