package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	pgxuuid "github.com/vgarvardt/pgx-google-uuid/v5"
)

// Every connection to PostgreSQL is made here, River's too, and every exchange on it has a bound. A server that dies closes
// its connections; one that hangs, or whose network went silent, does not, so only these bounds reveal it:
const (
	// connectTimeout bounds connecting to one host, its checks (session.go) included. The next host of DATABASE_URL is tried
	// after it, so a failover costs this once a connection.
	connectTimeout = 2 * time.Second
	// pingTimeout bounds the question whether a connection that was idle for idleUnchecked still lives.
	pingTimeout, idleUnchecked = 2 * time.Second, time.Second
	// closeTimeout bounds saying goodbye to a server that no longer answers. A connection counts against the pool until then.
	closeTimeout = time.Second
	// keepAlive finds a silent peer of an idle connection, River's listener for example: after keepAlive it is probed every
	// keepAlive, and given up after keepAliveProbes probes.
	keepAlive, keepAliveProbes = 5 * time.Second, 3
	// unacknowledged is how long sent bytes may stay without TCP's acknowledgement (TCP_USER_TIMEOUT, on Linux).
	unacknowledged = 10 * time.Second
)

// TransactionPooler is the value of [Database].Pooler for a pooler that assigns a session for one transaction only.
const TransactionPooler = "transaction"

// Database holds how the database is reached.
type Database struct {
	URL      string
	Pooler   string        // TransactionPooler, or empty: a session lasts as long as its connection
	Conns    int32         // the most connections, unless URL says pool_max_conns
	Patience time.Duration // how long to try again while the database is away
	Waiting  func(error)   // called before each new try; nil for none
}

// Open connects to a database and returns the pool. It fails at once where waiting does not help: the database's encoding is
// not UTF8, or if a pooler assigns sessions by transaction and db.Pooler is not set.
func Open(ctx context.Context, db Database) (*pgxpool.Pool, error) {
	cfg, err := poolConfig(db)
	if err != nil {
		return nil, err
	}
	var pool *pgxpool.Pool
	cfg.ShouldPing = func(ctx context.Context, p pgxpool.ShouldPingParams) bool {
		if p.IdleDuration < idleUnchecked {
			return false
		}
		ping, cancel := context.WithTimeout(ctx, pingTimeout)
		defer cancel()
		if p.Conn.Ping(ping) == nil {
			return false
		}
		if ctx.Err() == nil { // not the caller's own end
			pool.Reset() // its neighbours go to the same server: not one after the other, each after a time-out
		}
		return true // the pool's own ping finds it closed
	}
	cfg.ConnConfig.OnPgError = func(_ *pgconn.PgConn, err *pgconn.PgError) bool {
		if isReadOnly(err) {
			go pool.Reset() // the server was demoted, for all sessions
			return false
		}
		return !strings.EqualFold(err.Severity, "FATAL")
	}
	if pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if err = await(ctx, pool, db); err == nil && db.Pooler == "" {
		err = refuseSharedSessions(ctx, pool)
	}
	if err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

func poolConfig(db Database) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(db.URL)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	if !strings.Contains(db.URL, "pool_max_conns") {
		cfg.MaxConns = db.Conns
	}
	conn := cfg.ConnConfig
	if !strings.Contains(db.URL, "connect_timeout") {
		conn.ConnectTimeout = connectTimeout
	}
	conn.DialFunc = dial
	conn.ValidateConnect = inTurn(conn.ValidateConnect, sessionSetup(conn, db.Pooler))
	conn.Tracer = deadlines{}
	if db.Pooler == TransactionPooler {
		// A prepared statement belongs to a session, and the next transaction may have another.
		conn.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	cfg.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		// Without it each id is first written as text, refused, and then written again (measured: a third of the CPU of
		// recording polls).
		pgxuuid.Register(conn.TypeMap())
		return nil
	}
	cfg.BeforeClose = func(conn *pgx.Conn) {
		raw := conn.PgConn().Conn()
		time.AfterFunc(closeTimeout, func() { _ = raw.Close() })
	}
	return cfg, nil
}

// dial opens a socket that notices a silent peer.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive, Count: keepAliveProbes},
		Control:         giveUpUnacknowledged,
	}
	conn, err := d.DialContext(ctx, network, address)
	if deadline, ok := ctx.Deadline(); err == nil && ok && time.Until(deadline) > connectTimeout*2 {
		// Only the driver's request to cancel a statement has that much time, and it waits for the server to close. The
		// connection that it is for counts against the pool meanwhile.
		err = conn.SetDeadline(time.Now().Add(closeTimeout))
	}
	return conn, err
}

// await waits until the pool has a connection.
func await(ctx context.Context, pool *pgxpool.Pool, db Database) error {
	for deadline := time.Now().Add(db.Patience); ; {
		err := pool.Ping(ctx)
		if err == nil {
			return nil
		}
		if refused, ok := errors.AsType[refusal](err); ok {
			return refused
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("the database could not be reached within %s: %w", db.Patience, err)
		}
		if db.Waiting != nil {
			db.Waiting(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// inTurn returns the check that makes first, where there is one, and then second.
func inTurn(first, second pgconn.ValidateConnectFunc) pgconn.ValidateConnectFunc {
	if first == nil {
		return second
	}
	return func(ctx context.Context, conn *pgconn.PgConn) error {
		if err := first(ctx, conn); err != nil {
			return err
		}
		return second(ctx, conn)
	}
}
