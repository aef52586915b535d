package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	pgxuuid "github.com/vgarvardt/pgx-google-uuid/v5"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("conflict")
)

// notifyCooldown bounds how often an inserting client wakes the workers, a queue. River's default of
// 100 ms would be the median latency of a delivery.
const notifyCooldown = time.Millisecond

// Config is what a Store needs beside its database.
type Config struct {
	Keys   *Keyring // required: seals what must not stand in the database in clear
	Encode Encode   // required: writes an event as the bytes that are signed and sent
	Settle time.Duration
	Now    func() time.Time // nil means time.Now
	Logger *slog.Logger     // nil means slog.Default()
}

// Store is memhook's database. It is safe for concurrent use.
type Store struct {
	pool   *pgxpool.Pool
	jobs   *river.Client[pgx.Tx] // inserts only
	keys   *Keyring
	encode Encode
	settle time.Duration
	now    func() time.Time

	activity activity
	tasks    slow[map[string]int64] // counts that cost much, see slow
	sent     slow[map[string]int64]
	backlog  slow[map[uuid.UUID]int64]

	register *Batcher[Registration, Registered]
	load     *Batcher[[]uuid.UUID, []*Delivery]
	record   *Batcher[AttemptResult, struct{}]
	park     *Batcher[Parking, struct{}]
	polls    *Batcher[Poll, Polled]
	slots    *Batcher[SlotRequest, Slot]
}

// New makes a Store on a pool whose database is migrated (see [Migrate]). The caller closes the pool.
func New(pool *pgxpool.Pool, cfg Config) (*Store, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	jobs, err := river.NewClient(riverpgxv5.New(pool), &river.Config{FetchCooldown: notifyCooldown, Logger: cfg.Logger})
	if err != nil {
		return nil, fmt.Errorf("job client: %w", err)
	}
	s := &Store{pool: pool, jobs: jobs, keys: cfg.Keys, encode: cfg.Encode, settle: cfg.Settle, now: cfg.Now}
	const ms = time.Millisecond
	s.tasks.read, s.sent.read, s.backlog.read = s.countTasks, s.countDeliveries, s.countBacklogs
	s.register = NewBatcher(500, 2*ms, s.registerTasks)
	s.load = NewBatcher(100, 3*ms, s.loadDeliveries)
	s.record = NewBatcher(500, 8*ms, s.recordAttempts)
	s.park = NewBatcher(500, 8*ms, s.parkDeliveries)
	s.polls = NewBatcher(500, 5*ms, s.recordPolls)
	s.slots = NewBatcher(500, 3*ms, s.takeSlots)
	return s, nil
}

// Pool gives the pool for what is not memhook's own: River's client and its pages.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// Jobs gives the client that inserts jobs, for River's pages.
func (s *Store) Jobs() *river.Client[pgx.Tx] { return s.jobs }

// Open connects to url with a pool of at most conns connections, retrying for at most patience while
// the database is away and calling waiting before each retry.
func Open(ctx context.Context, url string, conns int32, patience time.Duration, waiting func(error)) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	if !strings.Contains(url, "pool_max_conns") {
		cfg.MaxConns = conns
	}
	cfg.ConnConfig.RuntimeParams["application_name"] = "memhook"
	cfg.ConnConfig.RuntimeParams["timezone"] = "UTC"
	// Queues are empty at one moment and hold a hundred thousand rows at the next. A plan that was cached
	// while they were empty scans them whole until the next ANALYZE (measured: a fifth of the throughput);
	// statements here serve hundreds of rows each, so planning them anew costs little.
	cfg.ConnConfig.RuntimeParams["plan_cache_mode"] = "force_custom_plan"
	// What is waiting was written a moment ago and is in memory: hundreds of rows are found by their index, where the
	// default for spinning disks would read the table.
	cfg.ConnConfig.RuntimeParams["random_page_cost"] = "1.1"
	// Without it each id is first written as text, refused, and then written again (measured: a third of the CPU of
	// recording polls).
	cfg.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		pgxuuid.Register(conn.TypeMap())
		return nil
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	for deadline := time.Now().Add(patience); ; {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err = pool.Ping(attempt)
		cancel()
		if err == nil {
			return pool, nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			pool.Close()
			return nil, fmt.Errorf("the database could not be reached within %s: %w", patience, err)
		}
		waiting(err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// tx runs fn in a transaction, which it commits if fn returns nil. fn runs once.
func (s *Store) tx(ctx context.Context, what string, fn func(pgx.Tx) error) error {
	if err := pgx.BeginFunc(ctx, s.pool, fn); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// one collects exactly one row, or ErrNotFound.
func one[T any](rows pgx.Rows, err error) (T, error) {
	if err != nil {
		var zero T
		return zero, err
	}
	row, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByNameLax[T])
	if errors.Is(err, pgx.ErrNoRows) {
		return row, ErrNotFound
	}
	return row, err
}

// many collects all rows.
func many[T any](rows pgx.Rows, err error) ([]T, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByNameLax[T])
}

// isUnique tells whether err is the violation of a unique constraint.
func isUnique(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505"
}

// newID makes a UUIDv7: ids sort by the time of their making.
func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// Page asks for a page of a list, newest first.
type Page struct {
	Before uuid.UUID // the last id of the page before; zero for the first page
	Limit  int       // 1 to 500
}

// before gives the bound of the page's ids as SQL compares them.
func (p Page) before() uuid.UUID {
	if p.Before == uuid.Nil {
		return uuid.Max
	}
	return p.Before
}

// ignoring is err, or nil where it is the one to ignore.
func ignoring(err, ignored error) error {
	if errors.Is(err, ignored) {
		return nil
	}
	return err
}
