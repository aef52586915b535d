package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// NewAccount is an account to be created.
type NewAccount struct {
	Name              string
	APIKey            string // of memories.ai; one key is one budget, so its digest is unique
	API               string // the generation of memories.ai's API: AccountV1 (also for "") or AccountDatalake
	RequestsPerSecond float64
	UploadsPerMinute  *float64 // nil: what is known of the generation
}

// firstSlot is how far ahead the first slot of a key or a budget is: an interval behind the last slot that can have been given
// out before. A key may have been another account's until now. An account that is created waits for little more than the second
// by which memories.ai counts, whatever its budget.
func firstSlot(rps float64) time.Duration { return slotHorizon + SlotInterval(rps) }

// CreateAccount creates an account. A name or key that another account has is ErrConflict.
func (s *Store) CreateAccount(ctx context.Context, n NewAccount) (Account, error) {
	var a Account
	err := s.tx(ctx, "create account", func(tx pgx.Tx) (err error) {
		a, err = one[Account](ctx, tx, `
			insert into accounts as a (id, name, api_key, key_hash, api, requests_per_second, uploads_per_minute, next_slot_at)
			values ($1, $2, $3, $4, $5, $6, $7, clock_timestamp() + $8::interval)
			returning `+accountColumns,
			newID(), n.Name, s.keys.Seal("account.api_key", []byte(n.APIKey)), digest(n.APIKey), cmp.Or(n.API, AccountV1), n.RequestsPerSecond,
			n.UploadsPerMinute, min(firstSlot(n.RequestsPerSecond), slotHorizon+time.Second+slotJitter)) // see firstSlot
		if err != nil {
			return err
		}
		return s.note(ctx, tx, a.ID, nil, a.fields())
	})
	if isUnique(err) {
		return a, s.accountTaken(ctx, uuid.Nil, n.Name, &n.APIKey)
	}
	return a, err
}

// accountTaken says what of an account another one has. No transaction of the caller's may be open, see urlTaken.
func (s *Store) accountTaken(ctx context.Context, id uuid.UUID, name string, apiKey *string) error {
	if apiKey != nil {
		var other string
		err := s.pool.QueryRow(ctx, `select name from accounts where key_hash = $1 and id <> $2`, digest(*apiKey), id).Scan(&other)
		if err == nil {
			return conflict("the account %q has this API key: one key of memories.ai is one budget", other)
		}
	}
	return conflict("another account has the name %q; choose another name", name)
}

// HashKeys notes which key each account has, of accounts that a version before has created. Accounts that share a key keep
// their budgets; it returns their names.
func (s *Store) HashKeys(ctx context.Context) (doubled []string, err error) {
	accounts, err := many[Account](ctx, s.pool, `select `+accountColumns+` from accounts a where a.key_hash is null order by a.id`)
	if err != nil {
		return nil, fmt.Errorf("read accounts: %w", err)
	}
	for _, a := range accounts {
		key, err := s.keys.Open("account.api_key", a.APIKey)
		if err != nil {
			return doubled, fmt.Errorf("account %s: %w", a.Name, err)
		}
		_, err = s.pool.Exec(ctx, `update accounts set key_hash = $2 where id = $1`, a.ID, digest(string(key)))
		if isUnique(err) {
			doubled = append(doubled, a.Name)
			continue
		}
		if err != nil {
			return doubled, fmt.Errorf("note key: %w", err)
		}
	}
	return doubled, nil
}

// UpdateAccount changes an account. A new key, generation or budget, and Resume, end the account's backoff: its next poll is at
// most one interval of its budget away. A new budget of submissions likewise ends their pause.
func (s *Store) UpdateAccount(ctx context.Context, id uuid.UUID, c AccountChange) (a Account, err error) {
	err = s.tx(ctx, "update account", func(tx pgx.Tx) error {
		var sealed, hash []byte
		if c.APIKey != nil {
			sealed, hash = s.keys.Seal("account.api_key", []byte(*c.APIKey)), digest(*c.APIKey)
		}
		before, err := one[Account](ctx, tx, `select `+accountColumns+` from accounts a where a.id = $1 for no key update`, id)
		if err != nil {
			return err
		}
		a, err = one[Account](ctx, tx, `
			update accounts a
			set name = coalesce($2, name), requests_per_second = coalesce($3, requests_per_second), api_key = coalesce($4, api_key),
				key_hash = coalesce($5, key_hash), api = coalesce($6, api),
				uploads_per_minute = coalesce($7, uploads_per_minute)
			where id = $1
			returning `+accountColumns, id, c.Name, c.RequestsPerSecond, sealed, hash, c.API, c.UploadsPerMinute)
		if err != nil {
			return err
		}
		was, is := before.fields(), a.fields()
		if c.APIKey != nil {
			is["api_key"] = replaced
		}
		if c.Resume {
			was["state"], is["state"] = before.State, AccountActive
		}
		if err := s.note(ctx, tx, id, was, is); err != nil {
			return err
		}
		if c.UploadsPerMinute != nil || c.APIKey != nil || c.API != nil {
			_, err := tx.Exec(ctx, `
				update accounts a
				set next_upload_at = least(case when not $2 then a.next_upload_at end, clock_timestamp() + `+uploadIntervalOf("a")+`)
				where id = $1`, id, c.APIKey != nil)
			if err != nil {
				return err
			}
		}
		if !c.Resumes() {
			return nil
		}
		// A new poll job takes the change up at once. It replaces the lease of a poller that runs; with a key that is no longer
		// the account's, that poller must not take another slot until then.
		a, err = one[Account](ctx, tx, `
			update accounts a
			set state = 'active', state_reason = null, paused_until = null, troubles = 0,
				shift = case when $3 then null else a.shift end,
				next_slot_at = case when $3 then clock_timestamp() + $2::interval else least(a.next_slot_at, clock_timestamp() + $2::interval) end
			where id = $1
			returning `+accountColumns, id, firstSlot(a.RequestsPerSecond), c.APIKey != nil)
		if err != nil {
			return err
		}
		// The next refusal is an alert again.
		err = raiseAlert(ctx, tx, Alert{
			Subject: "account:" + id.String(), State: AccountActive, Summary: "The account " + a.Name + " was changed and is polled again.",
			Link: "/admin/accounts/" + id.String(), At: s.now(), Good: true,
		})
		if err != nil {
			return err
		}
		var busy bool
		if err := tx.QueryRow(ctx, `select poll_job from accounts where id = $1`, id).Scan(&busy); err != nil || !busy {
			return err
		}
		return s.insertPollJobs(ctx, tx, []uuid.UUID{id})
	})
	if isUnique(err) {
		err = s.accountTaken(ctx, id, *cmp.Or(c.Name, new("")), c.APIKey)
	}
	return a, err
}

// DeleteAccount deletes an account. One that apps use, or whose tasks are polled, is ErrConflict.
func (s *Store) DeleteAccount(ctx context.Context, id uuid.UUID) error {
	return s.tx(ctx, "delete account", func(tx pgx.Tx) error {
		// FOR UPDATE waits for registrations, which hold the account FOR KEY SHARE, and for apps that are moved to it.
		a, err := one[Account](ctx, tx, `select `+accountColumns+` from accounts a where a.id = $1 for update`, id)
		if err != nil {
			return err
		}
		var apps, tasks int
		err = tx.QueryRow(ctx, `
			select (select count(*) from apps where account_id = $1), 
				(select count(*) from tasks where account_id = $1 and polling)
					+ (select count(*) from uploads where account_id = $1 and status = 'queued')`, id).
			Scan(&apps, &tasks)
		if err != nil {
			return err
		}
		if apps+tasks > 0 {
			return conflict("the account has %s and %s that are polled or to be submitted; move the apps to another account first",
				counted(apps, "app"), counted(tasks, "task"))
		}
		if _, err = tx.Exec(ctx, `delete from accounts where id = $1`, id); err != nil {
			return err
		}
		return s.note(ctx, tx, id, a.fields(), nil)
	})
}

// raiseAccount enters an alert for an account that memories.ai refuses, and for the end of that.
func raiseAccount(ctx context.Context, tx pgx.Tx, id uuid.UUID, name string, t Backoff, at time.Time) error {
	a := Alert{Subject: "account:" + id.String(), State: t.State, Link: "/admin/accounts/" + id.String(), At: at}
	switch t.State {
	case AccountRefused:
		a.Summary = fmt.Sprintf("memories.ai refuses the account %s: %s. Its tasks are not polled.", name, t.Reason)
	case AccountActive:
		a.Summary, a.Good = fmt.Sprintf("memories.ai accepts the account %s again.", name), true
	default:
		return nil
	}
	return raiseAlert(ctx, tx, a)
}

// SetBackoff records an account's backoff, or its end, on behalf of a lease. A lease that was replaced
// changes nothing.
func (s *Store) SetBackoff(ctx context.Context, account, lease uuid.UUID, t Backoff) error {
	var reason *string
	var until *time.Time
	if t.State != AccountActive {
		reason, until = &t.Reason, &t.Until
	}
	return s.tx(ctx, "record account backoff", func(tx pgx.Tx) error {
		var name string
		err := tx.QueryRow(ctx, `
			update accounts set state = $3, state_reason = $4, paused_until = $5, troubles = $6
			where id = $1 and shift = $2
			returning name`, account, lease, t.State, reason, until, t.Count).Scan(&name)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		return raiseAccount(ctx, tx, account, name, t, s.now())
	})
}
