package store_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/localpg"
	"github.com/memhook/memhook/store/storetest"
)

// connectTo opens a plain connection, as another program has one.
func connectTo(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func execAll(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// atEnd runs a statement when the test is over, before its connection is closed.
func atEnd(t *testing.T, conn *pgx.Conn, sql string) {
	t.Cleanup(func() {
		if _, err := conn.Exec(context.Background(), sql); err != nil {
			t.Error(err)
		}
	})
}

// with returns a connection string with another database, user or parameter.
func with(t *testing.T, from string, change func(*url.URL, url.Values)) string {
	t.Helper()
	u, err := url.Parse(from)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	change(u, q)
	u.RawQuery = q.Encode()
	return u.String()
}

func opened(t *testing.T, db store.Database) *pgxpool.Pool {
	t.Helper()
	if db.Conns == 0 {
		db.Conns = 5
	}
	pool, err := store.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// A database that cannot store every text is refused at once and in one line.
func TestADatabaseThatIsNotUTF8IsRefused(t *testing.T) {
	t.Parallel()
	server := storetest.EmptyURL(t)
	conn := connectTo(t, server)
	for _, encoding := range []string{"SQL_ASCII", "LATIN1"} {
		name := "encoded_" + strings.ToLower(encoding)
		execAll(t, conn, `create database `+name+` encoding '`+encoding+`' template template0`)
		atEnd(t, conn, `drop database `+name+` with (force)`)
		start := time.Now()
		database := with(t, server, func(u *url.URL, _ url.Values) { u.Path = "/" + name })
		_, err := store.Open(t.Context(), store.Database{URL: database, Conns: 2, Patience: time.Minute})
		if err == nil || !strings.Contains(err.Error(), encoding) || strings.Contains(err.Error(), "\n") || time.Since(start) > 10*time.Second {
			t.Errorf("%s: %v after %s", encoding, err, time.Since(start))
		}
	}
}

// Defaults of the database do not change what memhook relies on.
func TestSessionsHaveTheirOwnSettings(t *testing.T) {
	t.Parallel()
	db := storetest.URL(t)
	name := db[strings.LastIndex(db[:strings.Index(db, "?")], "/")+1 : strings.Index(db, "?")]
	execAll(t, connectTo(t, db),
		`alter database `+name+` set default_transaction_isolation = serializable`,
		`alter database `+name+` set statement_timeout = '200ms'`,
		`alter database `+name+` set timezone = 'Asia/Kolkata'`,
		`alter database `+name+` set jit = on`,
		`alter database `+name+` set search_path = 'nowhere'`)
	pool := opened(t, store.Database{URL: db})
	var got string
	err := pool.QueryRow(t.Context(), `select concat_ws(' ', current_setting('transaction_isolation'), current_setting('statement_timeout'),
		current_setting('timezone'), current_setting('jit'), current_schema(), pg_sleep(0.3)::text)`).Scan(&got)
	if want := "read committed 0 UTC off memhook "; err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
}

// A pool whose server turns read-only throws its sessions away and works again as soon as the server takes writes.
func TestReadOnlySessionsAreThrownAway(t *testing.T) {
	t.Parallel()
	pg, err := localpg.Start(t.Context(), localpg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pg.Stop() })
	pool := opened(t, store.Database{URL: pg.URL("postgres")})
	if err := store.Migrate(t.Context(), pool, nil); err != nil {
		t.Fatal(err)
	}
	operator := connectTo(t, pg.URL("postgres"))
	write := func() error {
		_, err := pool.Exec(t.Context(), `update accounts set usage = 0`)
		return err
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	execAll(t, operator, `alter system set default_transaction_read_only = on`, `select pg_reload_conf()`)
	until(t, 5*time.Second, func() bool { return store.CheckWritable(t.Context(), pool) != nil })
	for range 20 {
		if err := write(); !store.IsUnavailable(err) {
			t.Fatalf("a write while read-only: %v", err)
		}
		if store.CheckWritable(t.Context(), pool) == nil {
			t.Fatal("writable while writes fail")
		}
	}
	execAll(t, operator, `set default_transaction_read_only = off`, `alter system reset default_transaction_read_only`, `select pg_reload_conf()`)
	until(t, 5*time.Second, func() bool { return write() == nil && store.CheckWritable(t.Context(), pool) == nil })
}

// What the server does not answer in time fails, whatever the caller allows, and its connection is closed; what may take longer
// does.
func TestStatementsHaveDeadlines(t *testing.T) {
	t.Parallel()
	pool := opened(t, store.Database{URL: storetest.URL(t), Conns: 1})
	start := time.Now()
	_, err := pool.Exec(t.Context(), `select pg_sleep(30)`)
	if took := time.Since(start); !store.IsUnavailable(err) || took > 8*time.Second {
		t.Errorf("%v after %s", err, took)
	}
	if err := store.CheckWritable(t.Context(), pool); err != nil { // on another connection, as the pool has but one
		t.Error(err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the connection was given up after %s", took)
	}
}

func until(t *testing.T, most time.Duration, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(most); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s", most)
		}
	}
}

// Another program's River, goose and tables are as they were after memhook was installed, has worked and was removed.
func TestOtherProgramsTablesAreNotTouched(t *testing.T) {
	t.Parallel()
	db := storetest.EmptyURL(t)
	inPublic := with(t, db, func(_ *url.URL, q url.Values) { q.Set("search_path", "public") })
	theirs := connectTo(t, inPublic)
	neighbour, err := pgxpool.New(t.Context(), inPublic)
	if err != nil {
		t.Fatal(err)
	}
	defer neighbour.Close()
	rivers, err := rivermigrate.New(riverpgxv5.New(neighbour), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rivers.Migrate(t.Context(), rivermigrate.DirectionUp, nil); err != nil {
		t.Fatal(err)
	}
	execAll(t, theirs,
		`create table goose_db_version (id serial primary key, version_id bigint not null, is_applied boolean not null, tstamp timestamp default now())`,
		`insert into goose_db_version (version_id, is_applied) values (0, true), (7, true)`,
		`create table accounts (id int primary key, name text)`, `insert into accounts values (1, 'theirs')`,
		`insert into river_job (state, kind, args, max_attempts, finalized_at) values ('completed', 'theirs', '{}', 5, now() - interval '1 year')`,
		`insert into river_job (state, kind, args, max_attempts, attempted_at, attempted_by)
			values ('running', 'theirs', '{}', 5, now() - interval '1 day', '{gone}')`)
	before := dump(t, db)
	if !strings.Contains(before, "theirs") || !strings.Contains(before, "river_job_args_index") {
		t.Fatalf("the dump lacks what it is to watch:\n%s", before)
	}
	pool := opened(t, store.Database{URL: db})
	if err := store.Migrate(t.Context(), pool, nil); err != nil {
		t.Fatal(err)
	}
	b := newBundleOn(t, pool)
	b.register("task", "https://a.example/")
	if _, err := b.Purge(t.Context(), -time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ReapInstances(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := dump(t, db); after != before {
		t.Error("the other program's tables changed while memhook worked")
	}
	// In the other program's own schema memhook refuses.
	beside := opened(t, store.Database{URL: inPublic})
	err = store.Migrate(t.Context(), beside, nil)
	if err == nil || !strings.Contains(err.Error(), "another program (accounts, river_job") || !strings.Contains(err.Error(), "goose_db_version") {
		t.Errorf("migrating in another program's schema: %v", err)
	}
	if err := store.MigrateDown(t.Context(), beside); err == nil {
		t.Error("another program's schema was migrated down")
	}
	if err := store.MigrateDown(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	if after := dump(t, db); after != before {
		t.Error("the other program's tables changed when memhook was removed")
	}
}

// dump returns the schema public in words: its tables, columns, constraints, indexes, functions, types, and all rows. (Not by
// pg_dump, which is missing beside some of the servers that the tests run on.)
func dump(t *testing.T, db string) string {
	t.Helper()
	conn := connectTo(t, db)
	execAll(t, conn, `set search_path = pg_catalog`) // names are then written in full
	collect := func(sql string) []string {
		rows, err := conn.Query(t.Context(), sql)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return lines
	}
	out := collect(`
		with relation as (select oid, relname, relkind::text from pg_class where relnamespace = 'public'::regnamespace)
		select concat_ws(' ', relname, relkind) as line from relation
		union all select concat_ws(' ', relname, attname, atttypid::regtype, attnotnull) from relation join pg_attribute on attrelid = oid
		union all select concat_ws(' ', conname, pg_get_constraintdef(oid)) from pg_constraint where connamespace = 'public'::regnamespace
		union all select indexdef from pg_indexes where schemaname = 'public'
		union all select pg_get_functiondef(oid) from pg_proc where pronamespace = 'public'::regnamespace
		union all select typname::text from pg_type where typnamespace = 'public'::regnamespace
		order by line`)
	for _, table := range collect(`select tablename::text from pg_tables where schemaname = 'public' order by 1`) {
		out = append(out, collect(`select '`+table+` ' || x::text from public.`+table+` x order by 1`)...)
	}
	return strings.Join(out, "\n")
}

// A database that was begun before memhook had a schema of its own keeps its tables where they are.
func TestTablesInPublicStayThere(t *testing.T) {
	t.Parallel()
	db := storetest.EmptyURL(t)
	public := opened(t, store.Database{URL: with(t, db, func(_ *url.URL, q url.Values) { q.Set("search_path", "public") })})
	if err := store.Migrate(t.Context(), public, nil); err != nil {
		t.Fatal(err)
	}
	pool := opened(t, store.Database{URL: db})
	if err := store.Migrate(t.Context(), pool, nil); err != nil {
		t.Fatal(err)
	}
	var schemas string
	err := pool.QueryRow(t.Context(), `
		select string_agg(distinct schemaname, ' ') from pg_tables where tablename in ('accounts', 'river_job', 'goose_db_version')`).Scan(&schemas)
	if err != nil || schemas != "public" {
		t.Errorf("tables in %q, %v", schemas, err)
	}
	newBundleOn(t, pool).register("task", "https://a.example/")
}

// A role that may only read and change rows serves.
func TestARoleWithoutDDLServes(t *testing.T) {
	t.Parallel()
	db := storetest.URL(t)
	owner := connectTo(t, db)
	execAll(t, owner, `drop role if exists serving`, `create role serving login`, `grant usage on schema memhook to serving`,
		`grant select, insert, update, delete on all tables in schema memhook to serving`, `grant usage on all sequences in schema memhook to serving`)
	atEnd(t, owner, `drop owned by serving; drop role serving`)
	pool := opened(t, store.Database{URL: with(t, db, func(u *url.URL, _ url.Values) { u.User = url.User("serving") })})
	if err := store.CheckSchema(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	rights, err := store.ReadRights(t.Context(), pool)
	if err != nil || rights.Migrate || !rights.Serve {
		t.Errorf("%+v, %v", rights, err)
	}
	b := newBundleOn(t, pool)
	b.register("task", "https://a.example/")
	if _, err := b.Purge(t.Context(), -time.Hour); err != nil {
		t.Error(err)
	}
	// It makes partitions, by a function with the owner's rights, and drops them.
	if err := b.AddPartitions(t.Context()); err != nil {
		t.Error(err)
	}
	for _, table := range []string{"events", "attempts"} {
		if names := partitions(t, pool, table); len(names) != 3 {
			t.Errorf("partitions of %s: %v; want the first, the default one and a day", table, names)
		}
	}
	if _, err := b.Purge(t.Context(), -10*24*time.Hour); err != nil || len(partitions(t, pool, "events")) != 1 {
		t.Errorf("partitions that are past stay: %v, %v", partitions(t, pool, "events"), err)
	}
	if rights, err = store.ReadRights(t.Context(), pool); err != nil || !rights.Serve {
		t.Errorf("beside partitions: %+v, %v", rights, err)
	}
	if err := b.AddPartitions(t.Context()); err != nil {
		t.Error(err)
	}
	execAll(t, owner, `revoke delete on memhook.tasks from serving`)
	if rights, err = store.ReadRights(t.Context(), pool); err != nil || rights.Serve {
		t.Errorf("without a right: %+v, %v", rights, err)
	}
}

// PgBouncer in session mode, with its defaults, is as PostgreSQL itself; in transaction mode it is refused or, when the
// operator says that it is there, works.
func TestPgBouncer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ mode, pooler string }{{"session", ""}, {"transaction", store.TransactionPooler}} {
		t.Run(c.mode, func(t *testing.T) {
			t.Parallel()
			through := storetest.PgBouncer(t, storetest.EmptyURL(t), c.mode)
			if c.pooler != "" {
				_, err := store.Open(t.Context(), store.Database{URL: through, Conns: 5})
				if err == nil || !strings.Contains(err.Error(), "MEMHOOK_DATABASE_POOLER") || strings.Contains(err.Error(), "\n") {
					t.Fatalf("a pooler that was not told of: %v", err)
				}
			}
			pool := opened(t, store.Database{URL: through, Pooler: c.pooler})
			if err := store.Migrate(t.Context(), pool, nil); err != nil {
				t.Fatal(err)
			}
			b := newBundleOn(t, pool)
			done := make(chan error)
			for i := range 8 { // more than the pool has, so that sessions change hands
				go func() {
					for n := range 25 {
						if _, err := b.RegisterTask(t.Context(), b.task(fmt.Sprintf("task-%d-%d", i, n), "https://a.example/")); err != nil {
							done <- err
							return
						}
						if _, _, err := b.Tasks(t.Context(), store.TaskFilter{Scope: store.OfApp(b.app.ID)}, store.Page{Limit: 10}); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
			}
			for range 8 {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			if n := b.count(`select count(*) from memhook.tasks`); n != 200 {
				t.Errorf("%d tasks", n)
			}
			if err := store.CheckWritable(t.Context(), pool); err != nil {
				t.Error(err)
			}
		})
	}
}
