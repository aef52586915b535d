package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// What state an account can be in.
const (
	AccountActive      = "active"
	AccountRateLimited = "rate_limited" // asked too often
	AccountRefused     = "refused"      // key refused, or out of credits
	AccountUnavailable = "unavailable"  // memories.ai is down, or answers garbage
)

// Account is an account of memories.ai: a key and a request budget, shared by all apps on it.
type Account struct {
	ID                uuid.UUID
	Name              string
	APIKey            []byte  // sealed
	Key               []byte  `db:"-"` // in clear, where the method says so
	RequestsPerSecond float64 // the budget
	State             string
	StateReason       *string // memories.ai's own words
	PausedUntil       *time.Time
	Troubles          int       // in a row
	Survival          []float32 // what was learnt of the time from registration to ready
	CreatedAt         time.Time
	Used              float64 // requests a second, over the last minute or so
}

const accountColumns = `a.id, a.name, a.api_key, a.requests_per_second, a.state, a.state_reason, a.paused_until, a.troubles, a.survival, a.created_at,
	a.usage / 60 * ` + faded + ` as used`

// CreateAccount creates an account. A name that is taken is ErrConflict.
func (s *Store) CreateAccount(ctx context.Context, name, apiKey string, requestsPerSecond float64) (Account, error) {
	rows, err := s.pool.Query(ctx, `
		insert into accounts as a (id, name, api_key, requests_per_second)
		values ($1, $2, $3, $4)
		returning `+accountColumns, newID(), name, s.keys.Seal("account.api_key", []byte(apiKey)), requestsPerSecond)
	a, err := one[Account](rows, err)
	if isUnique(err) {
		return a, fmt.Errorf("create account: %w: the name %q is taken", ErrConflict, name)
	}
	if err != nil {
		return a, fmt.Errorf("create account: %w", err)
	}
	return a, nil
}

// Accounts lists accounts, newest first.
func (s *Store) Accounts(ctx context.Context, p Page) ([]Account, error) {
	rows, err := s.pool.Query(ctx, `select `+accountColumns+` from accounts a where a.id < $1 order by a.id desc limit $2`, p.before(), p.Limit)
	return many[Account](rows, err)
}

// AllAccounts lists all accounts by name.
func (s *Store) AllAccounts(ctx context.Context) ([]Account, error) {
	rows, err := s.pool.Query(ctx, `select `+accountColumns+` from accounts a order by a.name`)
	return many[Account](rows, err)
}

// Account reads one account.
func (s *Store) Account(ctx context.Context, id uuid.UUID) (Account, error) {
	rows, err := s.pool.Query(ctx, `select `+accountColumns+` from accounts a where a.id = $1`, id)
	return one[Account](rows, err)
}

// AccountChange changes what is not nil.
type AccountChange struct {
	Name              *string
	APIKey            *string
	RequestsPerSecond *float64
}

// UpdateAccount changes an account. A new key ends the account's pause: its next poll comes at once.
func (s *Store) UpdateAccount(ctx context.Context, id uuid.UUID, c AccountChange) (a Account, err error) {
	err = s.tx(ctx, "update account", func(tx pgx.Tx) error {
		var sealed []byte
		if c.APIKey != nil {
			sealed = s.keys.Seal("account.api_key", []byte(*c.APIKey))
		}
		rows, err := tx.Query(ctx, `
			update accounts a
			set name = coalesce($2, name), requests_per_second = coalesce($3, requests_per_second), api_key = coalesce($4, api_key)
			where id = $1
			returning `+accountColumns, id, c.Name, c.RequestsPerSecond, sealed)
		if a, err = one[Account](rows, err); err != nil {
			if isUnique(err) {
				return fmt.Errorf("%w: the name %q is taken", ErrConflict, *c.Name)
			}
			return err
		}
		if c.APIKey == nil && c.RequestsPerSecond == nil {
			return nil
		}
		// A new shift takes the change up at once; the one under way, if any, gets no more slots.
		rows, err = tx.Query(ctx, `
			update accounts a
			set state = 'active', state_reason = null, paused_until = null, troubles = 0
			where id = $1
			returning `+accountColumns, id)
		if a, err = one[Account](rows, err); err != nil {
			return err
		}
		var busy bool
		if err := tx.QueryRow(ctx, `select poll_job from accounts where id = $1`, id).Scan(&busy); err != nil || !busy {
			return err
		}
		return s.insertPollJobs(ctx, tx, []uuid.UUID{id})
	})
	return a, err
}

// DeleteAccount deletes an account that no app uses; otherwise ErrConflict.
func (s *Store) DeleteAccount(ctx context.Context, id uuid.UUID) error {
	tag, err := s.pool.Exec(ctx, `delete from accounts where id = $1 and not exists (select 1 from apps where account_id = $1)`, id)
	if err != nil {
		return fmt.Errorf("delete account: %w", err)
	}
	if tag.RowsAffected() == 1 {
		return nil
	}
	var exists bool
	if err := s.pool.QueryRow(ctx, `select exists (select 1 from accounts where id = $1)`, id).Scan(&exists); err != nil {
		return fmt.Errorf("delete account: %w", err)
	}
	if exists {
		return fmt.Errorf("delete account: %w: apps use it", ErrConflict)
	}
	return ErrNotFound
}

// Backoff is why an account pauses.
type Backoff struct {
	State  string // AccountActive ends the trouble
	Reason string
	Until  time.Time
	Count  int // troubles in a row
}

// SetBackoff records an account's trouble, or its end, on behalf of a shift; an older shift's word
// changes nothing.
func (s *Store) SetBackoff(ctx context.Context, account, shift uuid.UUID, t Backoff) error {
	var reason *string
	var until *time.Time
	if t.State != AccountActive {
		reason, until = &t.Reason, &t.Until
	}
	_, err := s.pool.Exec(ctx, `
		update accounts set state = $3, state_reason = $4, paused_until = $5, troubles = $6
		where id = $1 and shift = $2`, account, shift, t.State, reason, until, t.Count)
	if err != nil {
		return fmt.Errorf("record account trouble: %w", err)
	}
	return nil
}

// EnsureDefaults makes the account and the app `default` match the settings. An empty key leaves its
// part alone.
func (s *Store) EnsureDefaults(ctx context.Context, memoriesKey string, requestsPerSecond float64, apiKey string) error {
	if memoriesKey == "" && apiKey == "" {
		return nil
	}
	account, err := s.accountByName(ctx, DefaultName)
	switch {
	case errors.Is(err, ErrNotFound):
		account, err = s.CreateAccount(ctx, DefaultName, memoriesKey, requestsPerSecond)
		if errors.Is(err, ErrConflict) { // another instance was first
			account, err = s.accountByName(ctx, DefaultName)
		}
	case err == nil && memoriesKey != "":
		err = s.matchDefault(ctx, account, memoriesKey, requestsPerSecond)
	}
	if err != nil {
		return fmt.Errorf("default account: %w", err)
	}
	if apiKey == "" {
		return nil
	}
	app, err := s.appByName(ctx, DefaultName)
	if errors.Is(err, ErrNotFound) {
		app, err = s.CreateApp(ctx, DefaultName, account.ID)
		if errors.Is(err, ErrConflict) {
			app, err = s.appByName(ctx, DefaultName)
		}
	}
	if err != nil {
		return fmt.Errorf("default app: %w", err)
	}
	return s.ensureKey(ctx, app.ID, apiKey)
}

// DefaultName names the account and the app that the settings make.
const DefaultName = "default"

func (s *Store) matchDefault(ctx context.Context, a Account, memoriesKey string, requestsPerSecond float64) error {
	key, err := s.keys.Open("account.api_key", a.APIKey)
	if err != nil {
		return err
	}
	if string(key) == memoriesKey && a.RequestsPerSecond == requestsPerSecond {
		return nil
	}
	_, err = s.UpdateAccount(ctx, a.ID, AccountChange{APIKey: &memoriesKey, RequestsPerSecond: &requestsPerSecond})
	return err
}

func (s *Store) accountByName(ctx context.Context, name string) (Account, error) {
	rows, err := s.pool.Query(ctx, `select `+accountColumns+` from accounts a where a.name = $1`, name)
	return one[Account](rows, err)
}
