package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

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
		// A new poll job takes the change up at once. It replaces the lease of a poller that runs.
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
	tag, err := s.pool.Exec(ctx, `
			delete
			from accounts
			where id = $1 and not exists (select 1
			from apps
			where account_id = $1)`, id)
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

// SetBackoff records an account's backoff, or its end, on behalf of a lease. A lease that was replaced
// changes nothing.
func (s *Store) SetBackoff(ctx context.Context, account, lease uuid.UUID, t Backoff) error {
	var reason *string
	var until *time.Time
	if t.State != AccountActive {
		reason, until = &t.Reason, &t.Until
	}
	_, err := s.pool.Exec(ctx, `
		update accounts set state = $3, state_reason = $4, paused_until = $5, troubles = $6
		where id = $1 and shift = $2`, account, lease, t.State, reason, until, t.Count)
	if err != nil {
		return fmt.Errorf("record account backoff: %w", err)
	}
	return nil
}
