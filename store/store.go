package store

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
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

	// Changed is called for each change of state that attempts have caused, once it is in the database. nil ignores them.
	Changed func(Change)
}

// Store is memhook's database. It is safe for concurrent use.
type Store struct {
	pool   *pgxpool.Pool
	jobs   *river.Client[pgx.Tx] // inserts only
	keys   *Keyring
	encode Encode
	settle time.Duration
	now    func() time.Time

	changed   func(Change)
	upgrading atomic.Bool // see FinishUpgrade

	clock    clock
	activity activity
	tasks    costly[map[string]int64] // see costly
	sent     costly[map[string]int64]
	backlog  costly[map[uuid.UUID]int64]
	health   costly[DatabaseHealth]
	waiting  costly[[]Undelivered]
	failing  costly[int64]

	resendCounts, recoverCounts chan struct{} // see maxCounts

	register *Batcher[Registration, Registered]
	load     *Batcher[[]uuid.UUID, []*Delivery]
	receive  *Batcher[[]uuid.UUID, []*Receiver]
	record   *Batcher[AttemptResult, struct{}]
	park     *Batcher[*Delivery, struct{}]
	polls    *Batcher[Poll, Polled]
	slots    *Batcher[SlotRequest, Slot]

	idlePolls  *Batcher[Poll, Polled]      // those that change nothing
	earlySlots *Batcher[SlotRequest, Slot] // see SlotRequest.Early
}

// New makes a Store on a pool whose database is migrated (see [Migrate]). The caller closes the pool.
func New(pool *pgxpool.Pool, cfg Config) (*Store, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Changed == nil {
		cfg.Changed = func(Change) {}
	}
	jobs, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		FetchCooldown: notifyCooldown, MaxAttempts: jobAttempts, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("job client: %w", err)
	}
	s := &Store{pool: pool, jobs: jobs, keys: cfg.Keys, encode: cfg.Encode, settle: cfg.Settle, now: cfg.Now, changed: cfg.Changed}
	const ms = time.Millisecond
	s.tasks.read = counts[string](pool, `select status, count(*) from tasks group by status`)
	s.sent.read = counts[string](pool, `select status, count(*) from deliveries group by status`)
	s.backlog.read = counts[uuid.UUID](pool, `select account_id, count(*) from tasks where polling group by account_id`)
	s.health.read, s.health.fresh = s.readHealth, healthFresh
	s.waiting.read, s.failing.read = s.readUndelivered, s.failingEndpoints
	s.resendCounts, s.recoverCounts = make(chan struct{}, maxCounts), make(chan struct{}, maxCounts)
	s.register = NewBatcher(500, 2*ms, s.registerBatch)
	s.load = NewBatcher(100, 3*ms, s.loadDeliveryBatch)
	s.receive = NewBatcher(100, 2*ms, s.readReceiverBatch)
	s.record = NewBatcher(500, 8*ms, s.recordAttemptBatch)
	s.park = NewBatcher(500, 8*ms, s.parkBatch)
	s.polls = NewBatcher(500, 5*ms, s.recordPollBatch)
	s.idlePolls = NewBatcher(500, pollLinger, s.recordPollBatch).Patient()
	s.slots = NewBatcher(500, 3*ms, s.takeSlotBatch)
	s.earlySlots = NewBatcher(500, SlotLinger, s.takeSlotBatch).Patient()
	return s, nil
}

// Pool returns the pool, for River's client.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// Listens reports whether the database can wake the workers with LISTEN, which needs a session.
func (s *Store) Listens() bool { return !transactionPooled(s.pool) }

// Jobs returns the client that inserts jobs, for River's pages.
func (s *Store) Jobs() *river.Client[pgx.Tx] { return s.jobs }

// deadlockTries is how often a transaction is begun that ends in a deadlock each time.
const deadlockTries = 5

// deadlockPause is for how long a transaction that a deadlock has ended waits at most, times the number of its tries: begun
// again at once on a busy machine, it would meet the other one before that has gone on.
const deadlockPause = 20 * time.Millisecond

// tx runs fn in a transaction, which it commits if fn returns nil. Where the database has chosen the transaction to end a
// deadlock, fn runs again in a new one: it must set what it leaves to its caller, not add to it. (Most transactions lock
// in one order, and the others are few: deletions, moves, and health that is told to other endpoints.)
func (s *Store) tx(ctx context.Context, what string, fn func(pgx.Tx) error) error {
	if err := throughDeadlocks(func() error { return pgx.BeginFunc(ctx, s.pool, fn) }); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// throughDeadlocks calls fn, a transaction or a statement outside of one, again while the database ends it because of a
// deadlock.
func throughDeadlocks(fn func() error) (err error) {
	for try := range deadlockTries {
		if err = fn(); !isDeadlock(err) {
			break
		}
		time.Sleep(rand.N(deadlockPause * time.Duration(try+1)))
	}
	return err
}
