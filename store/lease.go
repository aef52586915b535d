package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// The lease of an account decides who may take its slots (see slot.go). It is one column, accounts.shift: the id of the
// latest lease. It has no expiry, since whoever acquires it next simply replaces it: the poller before gets Lost
// at its next slot and stops. So two pollers of one account can never both take slots, however long one of them was frozen.
//
// An account is in one of these states:
//
//	idle      poll_job false: no task is polled, no poll job exists. The next registration sets poll_job and inserts the job.
//	queued    poll_job true: the poll job waits in the queue.
//	leased    poll_job true: a worker runs the job; it acquired the lease, and takes slots until it releases it.
//
//	idle ──registration──▸ queued ──AcquireLease──▸ leased ──ReleaseLease──▸ queued (snoozed) or idle
//
// The step to idle races with registrations. A registration reads poll_job under FOR KEY SHARE and holds the lock until
// it commits; goIdle takes the row FOR UPDATE SKIP LOCKED. So either the row cannot be locked, and there is a registration
// to wait for, or it can, and a second statement sees all tasks that were registered before. A job that a crash or an
// operator has removed while poll_job is true is inserted again by [Store.AdoptJobs].
//
// The job lives as long as the account has something to poll: it is snoozed between leases, which leaves nothing behind in
// the queue's table. (The column keeps its old name so that the version before can run on the same database.)

// Lease is a poll job's hold on an account.
type Lease struct {
	ID      uuid.UUID
	Account *Account
	Targets []PollTarget // all tasks that are polled, as [Store.AcquireLease] or [Store.ReloadLease] read them
}

// AcquireLease makes the caller the account's only poller and reads its tasks. It returns ErrNotFound where the
// account was deleted.
func (s *Store) AcquireLease(ctx context.Context, account uuid.UUID) (*Lease, error) {
	l := &Lease{ID: newID()}
	a, err := one[Account](ctx, s.pool, `update accounts a set shift = $2 where a.id = $1 returning `+accountColumns, account, l.ID)
	if err != nil {
		return nil, fmt.Errorf("acquire lease: %w", err)
	}
	if a.Key, err = s.keys.Open("account.api_key", a.APIKey); err != nil {
		return nil, fmt.Errorf("account %s: %w", a.Name, err)
	}
	l.Account = &a
	_, err = s.ReloadLease(ctx, l)
	return l, err
}

// ReloadLease reads the account's tasks again, into l.Targets. It returns false where another lease has replaced l.
func (s *Store) ReloadLease(ctx context.Context, l *Lease) (mine bool, err error) {
	// Urgent tasks are among those that are read below, so a slot must not admit them once more. A task that becomes
	// urgent after this statement may come both ways, which does no harm. A lease that replaces l starts with this
	// statement, too, and reads all tasks. There may be hundreds of thousands of them, and a lease that could not be had in
	// time would not be had the next time either.
	ctx = allowing(ctx, longTimeout)
	err = s.pool.QueryRow(ctx, `
		with admitted as (
			update tasks t
			set urgent = false
			from accounts a
			where a.id = $1 and a.shift = $2 and t.account_id = $1 and t.polling and t.urgent
		)
		select exists (select 1 from accounts where id = $1 and shift = $2)`, l.Account.ID, l.ID).Scan(&mine)
	if err != nil {
		return false, fmt.Errorf("admit urgent tasks: %w", err)
	}
	if !mine {
		return false, nil
	}
	l.Targets, err = many[PollTarget](ctx, s.pool, `
		select `+pollTargetColumns+` from tasks t where t.account_id = $1 and t.polling`, l.Account.ID)
	return err == nil, wrapped("read poll targets", err)
}

// LeaseEnd is what a poller leaves behind.
type LeaseEnd struct {
	Survival []float32 // the learnt distribution; nil keeps the stored one
	ResumeAt time.Time // when the poll job goes on; zero: at once
}

// ReleaseLease ends a lease. It reports whether the caller's poll job must go on, at end.ResumeAt. Otherwise the account
// has become idle, or another lease has replaced this one and its job goes on.
func (s *Store) ReleaseLease(ctx context.Context, l *Lease, end LeaseEnd) (goOn bool, err error) {
	err = s.tx(ctx, "release lease", func(tx pgx.Tx) error {
		var mine bool
		err := tx.QueryRow(ctx, `
			update accounts set survival = coalesce($3, survival) where id = $1 and shift = $2 returning true`,
			l.Account.ID, l.ID, end.Survival).Scan(&mine)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // replaced
		}
		if err != nil {
			return err
		}
		err = tx.QueryRow(ctx, `
			select exists (select 1 from tasks where account_id = $1 and polling)`, l.Account.ID).Scan(&goOn)
		if err != nil || goOn {
			return err
		}
		idle, err := goIdle(ctx, tx, l.Account.ID)
		goOn = !idle
		return err
	})
	return goOn && err == nil, err
}

// goIdle clears the account's poll_job, unless a registration is under way or has committed since the caller looked.
func goIdle(ctx context.Context, tx pgx.Tx, account uuid.UUID) (idle bool, err error) {
	locked, err := scalars[uuid.UUID](ctx, tx, `select id from accounts where id = $1 for update skip locked`, account)
	if err != nil || len(locked) == 0 {
		return false, err
	}
	// A second statement, so that it sees what committed before the lock was granted.
	tag, err := tx.Exec(ctx, `
		update accounts set poll_job = false
		where id = $1 and not exists (select 1 from tasks where account_id = $1 and polling)`, account)
	return tag.RowsAffected() == 1, err
}

// ensurePollJobs inserts a poll job for each of the accounts that has none. The caller has inserted tasks of theirs in
// the same transaction, and holds the accounts against goIdle until it commits.
func (s *Store) ensurePollJobs(ctx context.Context, tx pgx.Tx, accounts []uuid.UUID) error {
	if len(accounts) == 0 {
		return nil
	}
	hasJob, err := pairs[uuid.UUID, bool](ctx, tx, `select id, poll_job from accounts where id = any($1) order by id for key share`, accounts)
	if err != nil {
		return fmt.Errorf("read poll jobs: %w", err)
	}
	idle := slices.DeleteFunc(slices.Clone(accounts), func(id uuid.UUID) bool {
		has, exists := hasJob[id]
		return has || !exists
	})
	if len(idle) == 0 {
		return nil
	}
	// Of two registrations that both found the account idle, the second waits here and then changes nothing.
	idle, err = scalars[uuid.UUID](ctx, tx, `update accounts set poll_job = true where id = any($1) and not poll_job returning id`, idle)
	if err != nil {
		return fmt.Errorf("claim poll jobs: %w", err)
	}
	return s.insertPollJobs(ctx, tx, idle)
}
