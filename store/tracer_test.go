package store_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

// tracer is called before each statement of a pool reaches the database: begin, commit, queries, batches and copies alike.
// The statement runs in the context that it returns. sql is empty for batches and copies.
type tracer func(ctx context.Context, sql string) context.Context

func (t tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return t(ctx, data.SQL)
}
func (tracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (t tracer) TraceCopyFromStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceCopyFromStartData) context.Context {
	return t(ctx, "")
}
func (tracer) TraceCopyFromEnd(context.Context, *pgx.Conn, pgx.TraceCopyFromEndData) {}

func (t tracer) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return t(ctx, "")
}
func (tracer) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (tracer) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// held makes a bundle with four connections whose statements that contain a text stop before they reach the database, until
// letGo is called. Each call of await waits for one that has stopped.
func held(t *testing.T, text string) (b *bundle, await, letGo func()) {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(storetest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	cfg.MaxConns = 4
	stopped, free := make(chan struct{}, 100), make(chan struct{})
	cfg.ConnConfig.Tracer = tracer(func(ctx context.Context, sql string) context.Context {
		if strings.Contains(sql, text) {
			stopped <- struct{}{}
			<-free
		}
		return ctx
	})
	b = bundleOf(t, storetest.Over(t, cfg, store.Config{Encode: encode}))
	letGo = sync.OnceFunc(func() { close(free) })
	t.Cleanup(letGo)
	return b, func() {
		t.Helper()
		select {
		case <-stopped:
		case <-time.After(20 * time.Second):
			t.Fatalf("no statement has stopped at %q", text)
		}
	}, letGo
}
