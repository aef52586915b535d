// Package storetest gives each test a migrated database of its own on a private PostgreSQL, which the
// package's TestMain starts with [Main] and stops when the tests are over.
package storetest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/localpg"
)

// EncryptionKey seals in tests: base64 of 32 bytes.
const EncryptionKey = "bWVtaG9vayB0ZXN0cyBzZWFsIHdpdGggdGhpcyBrZXk="

var (
	server  *localpg.Server
	once    sync.Once
	failure error
	number  atomic.Int64
)

// Main runs a package's tests, then stops the server that they have used and calls after.
func Main(m *testing.M, after ...func()) {
	code := m.Run()
	if server != nil {
		if err := server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err) // the tests are over: what is wrong with the server is nothing that they hold
		}
	}
	for _, fn := range after {
		fn()
	}
	os.Exit(code)
}

func start() {
	ctx := context.Background()
	if server, failure = localpg.Start(ctx, localpg.Options{}); failure != nil {
		return
	}
	failure = admin(ctx, `create database template_memhook`)
	if failure != nil {
		return
	}
	pool, err := store.Open(ctx, store.Database{URL: server.URL("template_memhook"), Conns: 4})
	if err == nil {
		err = store.Migrate(ctx, pool, nil)
		pool.Close()
	}
	failure = err
}

func admin(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, server.URL("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, sql)
	return err
}

// URL returns the connection string of a new, migrated database, dropped when the test is over.
func URL(t testing.TB) string {
	t.Helper()
	return database(t, "template_memhook")
}

// EmptyURL returns the connection string of a new database without any schema.
func EmptyURL(t testing.TB) string {
	t.Helper()
	return database(t, "template1")
}

func database(t testing.TB, template string) string {
	t.Helper()
	once.Do(start)
	if failure != nil {
		t.Fatalf("private PostgreSQL: %v", failure)
	}
	name := fmt.Sprintf("test_%d", number.Add(1))
	if err := admin(t.Context(), "create database "+name+" template "+template); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := admin(context.Background(), "drop database "+name+" with (force)"); err != nil {
			t.Error(err)
		}
	})
	return server.URL(name)
}

// Pool opens a pool on a database, closed when the test is over. It reaches the database as `make test-pooler` wants it.
func Pool(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	url, pooler := Pooled(t, url)
	pool, err := store.Open(t.Context(), store.Database{URL: url, Pooler: pooler, Conns: 10, Patience: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// New makes a Store on a new database. cfg's encryption key and logger are filled in where they are missing.
func New(t testing.TB, cfg store.Config) *store.Store {
	t.Helper()
	return On(t, Pool(t, URL(t)), cfg)
}

// Over makes a Store as New does, on a pool with settings of its own, closed when the test is over.
func Over(t testing.TB, settings *pgxpool.Config, cfg store.Config) *store.Store {
	t.Helper()
	pool, err := pgxpool.NewWithConfig(t.Context(), settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return On(t, pool, cfg)
}

// On makes a Store as New does, on a pool of the caller's.
func On(t testing.TB, pool *pgxpool.Pool, cfg store.Config) *store.Store {
	t.Helper()
	if cfg.Keys == nil {
		keys, err := store.ParseKeyring(EncryptionKey)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Keys = keys
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	if cfg.Settle == 0 {
		cfg.Settle = 10 * time.Minute
	}
	s, err := store.New(pool, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
