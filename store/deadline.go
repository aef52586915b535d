package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// How long a statement may take, the wait for a connection or each of its statements counted by itself. A statement that is
// not answered in time costs its connection: the server is hung, or the network is silent.
const (
	// statementTimeout is for what the rest of the store and River do: their statements take milliseconds.
	statementTimeout = 5 * time.Second
	// heartbeatTimeout leaves time for another heartbeat before an instance counts as dead.
	heartbeatTimeout = 2 * time.Second
	// longTimeout is for statements that may read or change much: counts over all rows, purging, re-encrypting.
	longTimeout = time.Minute
	// migrationTimeout is for a migration's statements: an index on a large table.
	migrationTimeout = 6 * time.Hour
)

type (
	allowedKey struct{}
	cancelKey  struct{}
)

// allowing returns a context whose statements may take a time other than statementTimeout. It does not bound their sum.
func allowing(ctx context.Context, each time.Duration) context.Context {
	return context.WithValue(ctx, allowedKey{}, each)
}

// deadlines sets a bound on each statement and on each wait for a connection. It sees everything that goes over a pool's connections,
// so nobody has to remember it; a caller's own, earlier deadline holds as well.
type deadlines struct{}

func begin(ctx context.Context) context.Context {
	each, ok := ctx.Value(allowedKey{}).(time.Duration)
	if !ok {
		each = statementTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, each)
	return context.WithValue(ctx, cancelKey{}, cancel)
}

func end(ctx context.Context) {
	if cancel, ok := ctx.Value(cancelKey{}).(context.CancelFunc); ok {
		cancel()
	}
}

func (deadlines) TraceAcquireStart(ctx context.Context, _ *pgxpool.Pool, _ pgxpool.TraceAcquireStartData) context.Context {
	return begin(ctx)
}

func (deadlines) TraceAcquireEnd(ctx context.Context, _ *pgxpool.Pool, _ pgxpool.TraceAcquireEndData) {
	end(ctx)
}

func (deadlines) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return begin(ctx)
}

func (deadlines) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) { end(ctx) }

func (deadlines) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return begin(ctx)
}

func (deadlines) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (deadlines) TraceBatchEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchEndData) { end(ctx) }

func (deadlines) TraceCopyFromStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceCopyFromStartData) context.Context {
	return begin(ctx)
}

func (deadlines) TraceCopyFromEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceCopyFromEndData) {
	end(ctx)
}
