package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// sessionName is how PostgreSQL shows our sessions. Those of the versions before schema version 5 are named memhook, by which
// upgrade.go knows that one still runs.
const sessionName = "memhook v5"

// sessionSettings are set once a session is there, as SQL expressions. PgBouncer refuses most of them as start-up parameters.
var sessionSettings = map[string]string{
	"application_name": quote(sessionName),
	"client_encoding":  `'UTF8'`,
	"timezone":         `'UTC'`,
	"search_path":      chosenPath,
	// A default of serializable fails one in twenty registrations.
	"default_transaction_isolation": `'read committed'`,
	// Our own deadlines bound the statements.
	"statement_timeout": `'0'`,
	"lock_timeout":      `'0'`,
	// A frozen instance must not hold rows for longer than the others count it as alive, by much.
	"idle_in_transaction_session_timeout": `'10s'`,
	// Queues are empty at one moment and hold a hundred thousand rows at the next. A plan that was cached
	// while they were empty scans them whole until the next ANALYZE (measured: a fifth of the throughput);
	// statements here serve hundreds of rows each, so planning them anew costs little.
	"plan_cache_mode": `'force_custom_plan'`,
	// What is waiting was written a moment ago and is in memory: hundreds of rows are found by their index, where the
	// default for spinning disks would read the table.
	"random_page_cost": `'1.1'`,
	// The sweep and the look for expired tasks forbid sequential scans (adopt.go). What the planner cannot do without then costs
	// 1e10, for which PostgreSQL would compile the plan with LLVM each time (measured: an idle service took 2.0 s of CPU a minute
	// more, six times what PostgreSQL took otherwise). No statement here is long enough for compiling to pay.
	"jit": `'off'`,
}

// refusal is an error that waiting does not cure.
type refusal string

func (r refusal) Error() string { return string(r) }

var errReadOnly = errors.New("the database takes no writes: it is a standby, or default_transaction_read_only is on")

// sessionSetup returns the check of a new session: it is set up, in one round trip, and refused if it cannot write.
func sessionSetup(cfg *pgx.ConnConfig, pooler string) pgconn.ValidateConnectFunc {
	settings := maps.Clone(sessionSettings)
	if pooler == TransactionPooler {
		// A session is shared with others, whose settings these would become. The two that every pooler keeps for its
		// client are start-up parameters; the others are the role's (docs/operations.md).
		settings = nil
		cfg.RuntimeParams = map[string]string{"application_name": sessionName, "timezone": "UTC"}
	} else {
		for name, value := range cfg.RuntimeParams {
			if name != "options" { // which is a start-up parameter by nature
				settings[name] = quote(value)
				delete(cfg.RuntimeParams, name)
			}
		}
	}
	var sql strings.Builder
	sql.WriteString(`select pg_is_in_recovery() or current_setting('default_transaction_read_only')::boolean, ` +
		`current_setting('server_encoding')`)
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&sql, ", set_config(%s, %s, false)", quote(name), settings[name])
	}
	sql.WriteString(`, current_setting('default_transaction_isolation')`)
	return func(ctx context.Context, conn *pgconn.PgConn) error {
		row, err := simpleQuery(ctx, conn, sql.String())
		if err != nil {
			return fmt.Errorf("set up the session: %w", err)
		}
		encoding, isolation := row[1], row[len(row)-1]
		switch {
		case encoding != "UTF8":
			return refusal("the database's encoding is " + encoding + ", which cannot store every text: create a database with the encoding UTF8")
		case row[0] == "t":
			return errReadOnly
		case settings == nil && isolation != "read committed":
			return refusal("through a transaction pooler the role's default_transaction_isolation counts, which is " + isolation +
				": alter role " + cfg.User + " set default_transaction_isolation = 'read committed'")
		}
		return nil
	}
}

// transactionPooled reports whether the pool's sessions last for a transaction only.
func transactionPooled(pool *pgxpool.Pool) bool {
	return pool.Config().ConnConfig.DefaultQueryExecMode == pgx.QueryExecModeCacheDescribe
}

// quote returns a text as an SQL literal.
func quote(text string) string {
	literal := "'" + strings.ReplaceAll(text, "'", "''") + "'"
	if strings.Contains(text, `\`) {
		return "E" + strings.ReplaceAll(literal, `\`, `\\`)
	}
	return literal
}

// simpleQuery returns the one row of a query without a prepared statement, which a pooler may not keep.
func simpleQuery(ctx context.Context, conn *pgconn.PgConn, sql string) ([]string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return nil, fmt.Errorf("no row from %q", sql)
	}
	var row []string
	for _, value := range results[0].Rows[0] {
		row = append(row, string(value))
	}
	return row, nil
}

const backend = `select pg_backend_pid()`

// refuseSharedSessions returns an error if two of the pool's connections share a session of the server: then there is a pooler
// between that assigns a session for one transaction only.
func refuseSharedSessions(ctx context.Context, pool *pgxpool.Pool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*connectTimeout)
	defer cancel()
	first, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("look for a pooler: %w", err)
	}
	defer first.Release()
	was, err := simpleQuery(ctx, first.Conn().PgConn(), backend)
	if err != nil {
		return fmt.Errorf("look for a pooler: %w", err)
	}
	if was[0] == strconv.FormatUint(uint64(first.Conn().PgConn().PID()), 10) {
		return nil // PostgreSQL itself
	}
	second, err := pool.Acquire(ctx)
	if err != nil {
		return nil // the pooler has but one session: the first's own
	}
	defer second.Release()
	if _, err := second.Exec(ctx, "begin", pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("look for a pooler: %w", err)
	}
	defer func() { _, _ = second.Exec(ctx, "rollback", pgx.QueryExecModeSimpleProtocol) }()
	other, err := simpleQuery(ctx, second.Conn().PgConn(), backend)
	if err != nil {
		return fmt.Errorf("look for a pooler: %w", err)
	}
	is, err := simpleQuery(ctx, first.Conn().PgConn(), backend)
	if err != nil {
		return fmt.Errorf("look for a pooler: %w", err)
	}
	if was[0] == other[0] || was[0] != is[0] {
		return refusal("there is a pooler before the database that gives a session for one transaction only: " +
			"set MEMHOOK_DATABASE_POOLER=transaction, or let it give one for a connection")
	}
	return nil
}

// CheckWritable returns an error unless the database takes writes: it commits one that is in no table, so that a missing
// synchronous standby is noticed, too.
func CheckWritable(ctx context.Context, pool *pgxpool.Pool) error {
	var readOnly bool
	err := pool.QueryRow(ctx, `select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean`).Scan(&readOnly)
	if err != nil {
		return fmt.Errorf("ask the database for a writable session: %w", err)
	}
	if readOnly {
		pool.Reset()
		return errReadOnly
	}
	if _, err := pool.Exec(ctx, `select pg_logical_emit_message(true, 'memhook', 'ready')`); err != nil {
		return fmt.Errorf("write to the database: %w", err)
	}
	return nil
}
