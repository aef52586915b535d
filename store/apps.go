package store

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// App is a tenant: an upstream application with its keys, tasks and endpoints.
type App struct {
	ID         uuid.UUID
	Name       string
	AccountID  uuid.UUID
	HintToken  string
	SigningKey []byte // sealed ed25519 seed
	PublicKey  []byte
	CreatedAt  time.Time
}

// APIKey is an app's key, of which only the hash is stored.
type APIKey struct {
	ID         uuid.UUID
	AppID      uuid.UUID
	Name       string
	Prefix     string // enough to recognise it by
	CreatedAt  time.Time
	LastUsedAt *time.Time
	RevokedAt  *time.Time
	RateLimit  *float64 // requests a second; nil: the service's default
}

const (
	appColumns = `id, name, account_id, hint_token, signing_key, public_key, created_at`
	keyColumns = `id, app_id, name, prefix, created_at, last_used_at, revoked_at, rate_limit`
)

// CreateApp creates an app on an account. A taken name is ErrConflict, an unknown account ErrNotFound.
func (s *Store) CreateApp(ctx context.Context, name string, account uuid.UUID) (App, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return App{}, fmt.Errorf("make signing key: %w", err)
	}
	rows, err := s.pool.Query(ctx, `
		insert into apps (id, name, account_id, hint_token, signing_key, public_key)
		select $1, $2, id, $4, $5, $6 from accounts where id = $3
		returning `+appColumns,
		newID(), name, account, randomText(24), s.keys.Seal("app.signing_key", private.Seed()), []byte(public))
	a, err := one[App](rows, err)
	if isUnique(err) {
		return a, fmt.Errorf("create app: %w: the name %q is taken", ErrConflict, name)
	}
	if err != nil {
		return a, fmt.Errorf("create app: %w", err)
	}
	return a, nil
}

// Apps lists apps, newest first.
func (s *Store) Apps(ctx context.Context, p Page) ([]App, error) {
	rows, err := s.pool.Query(ctx, `select `+appColumns+` from apps where deleted_at is null and id < $1 order by id desc limit $2`, p.before(), p.Limit)
	return many[App](rows, err)
}

// UpdateApp changes an app's name or moves it to another account, with its waiting tasks; nil leaves as it
// is. A taken name is ErrConflict, an unknown account ErrNotFound.
func (s *Store) UpdateApp(ctx context.Context, id uuid.UUID, name *string, account *uuid.UUID) (a App, err error) {
	err = s.tx(ctx, "update app", func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `select `+appColumns+` from apps where id = $1 and deleted_at is null for no key update`, id)
		if a, err = one[App](rows, err); err != nil {
			return err
		}
		from := a.AccountID
		if account != nil {
			a.AccountID = *account
		}
		if name != nil {
			a.Name = *name
		}
		tag, err := tx.Exec(ctx, `update apps set name = $2, account_id = $3 where id = $1 and exists (select 1 from accounts where id = $3)`, id, a.Name, a.AccountID)
		if isUnique(err) {
			return fmt.Errorf("%w: the name %q is taken", ErrConflict, a.Name)
		}
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrNotFound
		}
		if from == a.AccountID {
			return nil
		}
		return s.moveTasks(ctx, tx, id, from, a.AccountID)
	})
	return a, err
}

// moveTasks gives an app's tasks to another account's poller. The shift that has them is ended.
func (s *Store) moveTasks(ctx context.Context, tx pgx.Tx, app, from, to uuid.UUID) error {
	if _, err := tx.Exec(ctx, `update tasks set account_id = $2, urgent = true where app_id = $1 and polling`, app, to); err != nil {
		return err
	}
	var busy bool
	if err := tx.QueryRow(ctx, `update accounts set shift = null where id = $1 returning poll_job`, from).Scan(&busy); err != nil {
		return err
	}
	if busy {
		if err := s.insertPollJobs(ctx, tx, []uuid.UUID{from}); err != nil {
			return err
		}
	}
	return s.ensurePollJobs(ctx, tx, []uuid.UUID{to})
}

// DeleteApp deletes an app: its keys work no longer, its endpoints are deleted, its tasks and what was still
// to be delivered are cancelled. What it has had is kept until its retention is over.
func (s *Store) DeleteApp(ctx context.Context, id uuid.UUID) error {
	return s.tx(ctx, "delete app", func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `
			update apps set deleted_at = now(), account_id = null, name = name || ' (deleted ' || id || ')'
			where id = $1 and deleted_at is null`, id)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrNotFound
		}
		for _, sql := range []string{
			`update api_keys set revoked_at = coalesce(revoked_at, now()) where app_id = $1`,
			`update tasks
			set polling = false, urgent = false, status = case when status = 'waiting' then 'cancelled' else status end,
				closed = case when status = 'waiting' then (extract(epoch from now()) * 1000000)::bigint else closed end
			where app_id = $1 and polling`,
			`delete from subscriptions where endpoint_id in (select id from endpoints where app_id = $1)`,
			`update endpoints set deleted_at = now(), backlog = false where app_id = $1 and deleted_at is null`,
			`update deliveries set status = 'cancelled', cancelled = true, parked = false, next_attempt_at = null
			where app_id = $1 and status = 'pending'`,
		} {
			if _, err := tx.Exec(ctx, sql, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// App reads one app.
func (s *Store) App(ctx context.Context, id uuid.UUID) (App, error) {
	rows, err := s.pool.Query(ctx, `select `+appColumns+` from apps where id = $1 and deleted_at is null`, id)
	return one[App](rows, err)
}

func (s *Store) appByName(ctx context.Context, name string) (App, error) {
	rows, err := s.pool.Query(ctx, `select `+appColumns+` from apps where name = $1 and deleted_at is null`, name)
	return one[App](rows, err)
}

// CreateKey makes a new key for an app and returns it in clear, for the only time. rateLimit is in requests a
// second; nil means the service's default.
func (s *Store) CreateKey(ctx context.Context, app uuid.UUID, name string, rateLimit *float64) (APIKey, string, error) {
	if _, err := s.App(ctx, app); err != nil {
		return APIKey{}, "", fmt.Errorf("create key: %w", err)
	}
	plain := "mh_" + randomText(32)
	k, err := s.insertKey(ctx, app, name, plain, rateLimit)
	return k, plain, err
}

func (s *Store) insertKey(ctx context.Context, app uuid.UUID, name, plain string, rateLimit *float64) (APIKey, error) {
	hash := sha256.Sum256([]byte(plain))
	rows, err := s.pool.Query(ctx, `
		insert into api_keys (id, app_id, name, prefix, hash, rate_limit)
		values ($1, $2, $3, $4, $5, $6)
		returning `+keyColumns, newID(), app, name, plain[:6], hash[:], rateLimit)
	k, err := one[APIKey](rows, err)
	if isUnique(err) {
		return k, fmt.Errorf("create key: %w: the key exists", ErrConflict)
	}
	if err != nil {
		return k, fmt.Errorf("create key: %w", err)
	}
	return k, nil
}

// ensureKey gives an app a key that somebody else chose.
func (s *Store) ensureKey(ctx context.Context, app uuid.UUID, plain string) error {
	_, err := s.insertKey(ctx, app, DefaultName, plain, nil)
	if errors.Is(err, ErrConflict) {
		return nil
	}
	return err
}

// Keys lists an app's keys, newest first.
func (s *Store) Keys(ctx context.Context, app uuid.UUID, p Page) ([]APIKey, error) {
	rows, err := s.pool.Query(ctx, `select `+keyColumns+` from api_keys where app_id = $1 and id < $2 order by id desc limit $3`, app, p.before(), p.Limit)
	return many[APIKey](rows, err)
}

// RevokeKey makes a key invalid.
func (s *Store) RevokeKey(ctx context.Context, app, id uuid.UUID) error {
	tag, err := s.pool.Exec(ctx, `update api_keys set revoked_at = coalesce(revoked_at, now()) where id = $1 and app_id = $2`, id, app)
	if err != nil {
		return fmt.Errorf("revoke key: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNotFound
	}
	return nil
}

// Identity is who a key belongs to.
type Identity struct {
	KeyID     uuid.UUID
	AppID     uuid.UUID
	AccountID uuid.UUID
	RateLimit *float64
}

// Authenticate tells whose key it is. An unknown or revoked key is ErrNotFound.
func (s *Store) Authenticate(ctx context.Context, plain string) (Identity, error) {
	hash := sha256.Sum256([]byte(plain))
	rows, err := s.pool.Query(ctx, `
		select k.id as key_id, k.app_id, a.account_id, k.rate_limit
		from api_keys k
		join apps a on a.id = k.app_id
		where k.hash = $1 and k.revoked_at is null and a.deleted_at is null`, hash[:])
	return one[Identity](rows, err)
}

// TouchKeys notes when keys were last used.
func (s *Store) TouchKeys(ctx context.Context, used map[uuid.UUID]time.Time) error {
	batch := &pgx.Batch{}
	for id, at := range used {
		batch.Queue(`update api_keys set last_used_at = greatest(last_used_at, $2) where id = $1`, id, at)
	}
	if err := s.pool.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("note key use: %w", err)
	}
	return nil
}

// randomText gives n random bytes as URL-safe text.
func randomText(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: it ends the program instead
	return base64.RawURLEncoding.EncodeToString(b)
}
