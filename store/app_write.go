package store

import (
	"context"
	"crypto/ed25519"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// CreateApp creates an app on an account. A taken name is ErrConflict, an unknown account ErrNotFound.
func (s *Store) CreateApp(ctx context.Context, name string, account uuid.UUID) (App, error) {
	key := ed25519.NewKeyFromSeed(randomBytes(ed25519.SeedSize))
	var a App
	err := s.tx(ctx, "create app", func(tx pgx.Tx) (err error) {
		a, err = one[App](ctx, tx, `
			insert into apps (id, name, account_id, hint_token, signing_key, public_key)
			select $1, $2, id, $4, $5, $6 from accounts where id = $3
			returning `+appColumns,
			newID(), name, account, randomText(24), s.keys.Seal("app.signing_key", key.Seed()), []byte(key[ed25519.SeedSize:]))
		if err != nil {
			return err
		}
		return s.note(ctx, tx, a.ID, nil, a.fields())
	})
	if isUnique(err) {
		return a, conflict("another app has the name %q; choose another name", name)
	}
	if isForeignKey(err) {
		return a, ErrNotFound // the account was deleted just now
	}
	return a, err
}

// UpdateApp changes an app's name or moves it to another account, with its waiting tasks; nil leaves as it
// is. A taken name is ErrConflict, an unknown account ErrNotFound.
func (s *Store) UpdateApp(ctx context.Context, id uuid.UUID, name *string, account *uuid.UUID) (a App, err error) {
	err = s.tx(ctx, "update app", func(tx pgx.Tx) (err error) {
		a, err = one[App](ctx, tx, `select `+appColumns+` from apps where id = $1 and deleted_at is null for no key update`, id)
		if err != nil {
			return err
		}
		from, before := a.AccountID, a.fields()
		if account != nil {
			a.AccountID = *account
		}
		if name != nil {
			a.Name = *name
		}
		tag, err := tx.Exec(ctx, `
			update apps set name = $2, account_id = $3
			where id = $1 and exists (select 1 from accounts where id = $3)`, id, a.Name, a.AccountID)
		if isUnique(err) {
			return conflict("another app has the name %q; choose another name", a.Name)
		}
		if isForeignKey(err) {
			return ErrNotFound // the account was deleted just now
		}
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrNotFound
		}
		if err := s.note(ctx, tx, id, before, a.fields()); err != nil || from == a.AccountID {
			return err
		}
		return s.moveTasks(ctx, tx, id, from, a.AccountID)
	})
	return a, err
}

// moveTasks moves an app's tasks to another account's poller. The lease of their account is ended.
func (s *Store) moveTasks(ctx context.Context, tx pgx.Tx, app, from, to uuid.UUID) error {
	_, err := tx.Exec(ctx, `update tasks set account_id = $2, urgent = true where app_id = $1 and polling`, app, to)
	if err != nil {
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
		a, err := one[App](ctx, tx, `select `+appColumns+` from apps where id = $1 and deleted_at is null for update`, id)
		if err != nil {
			return err
		}
		if err := s.note(ctx, tx, id, a.fields(), nil); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			update apps set deleted_at = now(), account_id = null, name = name || ' (deleted ' || id || ')' where id = $1`, id)
		if err != nil {
			return err
		}
		// Tasks before endpoints, as polls lock them. What polls and attempts add before they see the locks is cancelled, too.
		for _, sql := range []string{
			`update api_keys set revoked_at = coalesce(revoked_at, now()) where app_id = $1`,
			`update tasks
			set polling = false, urgent = false, ended_at = now(), status = case when status = 'waiting' then 'cancelled' else status end,
				closed = case when status = 'waiting' then (extract(epoch from now()) * 1000000)::bigint else closed end
			where app_id = $1 and polling`,
			failUploads + ` and app_id = $1`,
		} {
			if _, err := tx.Exec(ctx, sql, id); err != nil {
				return err
			}
		}
		endpoints, err := scalars[uuid.UUID](ctx, tx, `
			select id from endpoints where app_id = $1 and deleted_at is null order by id for update`, id)
		if err != nil {
			return err
		}
		return deleteEndpoints(ctx, tx, endpoints)
	})
}
