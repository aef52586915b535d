package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// DefaultName names the account and the app that the settings make.
const DefaultName = "default"

// Defaults are the settings that make the account and the app named DefaultName. An empty key leaves its part alone.
type Defaults struct {
	MemoriesKey       string
	MemoriesAPI       string // the generation of memories.ai's API
	RequestsPerSecond float64
	APIKey            string
}

// The settings as applied_settings names them.
const (
	settingMemoriesKey = "MEMORIES_API_KEY"
	settingRate        = "MEMORIES_REQUESTS_PER_SECOND"
	settingAPIKey      = "MEMHOOK_API_KEY" //nolint:gosec // its name
)

// EnsureDefaults creates the account and the app of the settings where they are missing. To those that exist it applies a
// setting only if its value has changed since any instance last applied it: what an operator has changed since stays, names and
// the deletion of the app too. A changed API key ends the one before.
func (s *Store) EnsureDefaults(ctx context.Context, d Defaults) error {
	if d.MemoriesKey == "" && d.APIKey == "" {
		return nil
	}
	account, err := s.accountOf(ctx, d)
	switch {
	case err == nil:
		err = s.matchAccount(ctx, account, d)
	case errors.Is(err, ErrNotFound) && d.MemoriesKey != "":
		_, err = s.createDefault(ctx, d)
	case errors.Is(err, ErrNotFound):
		err = nil // it is created with the app, if that is missing too
	}
	if err != nil {
		return fmt.Errorf("default account: %w", err)
	}
	if d.APIKey == "" {
		return nil
	}
	return wrapped("default app", s.ensureKey(ctx, d))
}

// foundAccount is the account of the settings.
type foundAccount struct {
	ID     uuid.UUID
	HasKey bool // its key is that of the settings
}

// accountOf returns the account of the settings: the one with the key that they choose, whatever an operator has called it, or
// else the one named DefaultName, or else the one with the key that they chose before.
func (s *Store) accountOf(ctx context.Context, d Defaults) (foundAccount, error) {
	_, before, err := s.changedSetting(ctx, settingMemoriesKey, d.MemoriesKey)
	if err != nil {
		return foundAccount{}, err
	}
	return one[foundAccount](ctx, s.pool, `
		select id, key_hash is not distinct from $1 as has_key
		from accounts
		where key_hash = $1 or name = $2 or key_hash = $3
		order by has_key desc, name = $2 desc
		limit 1`, digest(d.MemoriesKey), DefaultName, before)
}

func (s *Store) createDefault(ctx context.Context, d Defaults) (foundAccount, error) {
	account, err := s.CreateAccount(ctx, NewAccount{
		Name: DefaultName, APIKey: d.MemoriesKey, API: d.MemoriesAPI, RequestsPerSecond: d.RequestsPerSecond,
	})
	if errors.Is(err, ErrConflict) { // another instance was first
		return s.accountOf(ctx, d)
	}
	if err == nil {
		err = s.noteAccount(ctx, d)
	}
	return foundAccount{account.ID, true}, err
}

func rateText(requestsPerSecond float64) string {
	return strconv.FormatFloat(requestsPerSecond, 'g', -1, 64)
}

// matchAccount applies to the account what has changed of its settings. The budget of an account that was not made of the
// settings is its operator's until the setting changes.
func (s *Store) matchAccount(ctx context.Context, a foundAccount, d Defaults) error {
	newKey, _, err := s.changedSetting(ctx, settingMemoriesKey, d.MemoriesKey)
	if err != nil {
		return err
	}
	newRate, rateBefore, err := s.changedSetting(ctx, settingRate, rateText(d.RequestsPerSecond))
	newKey = newKey && d.MemoriesKey != ""
	if err != nil || !newKey && !newRate {
		return err
	}
	var change AccountChange
	if newKey && !a.HasKey {
		change.APIKey, change.API = &d.MemoriesKey, &d.MemoriesAPI
	}
	if newRate && rateBefore != nil {
		change.RequestsPerSecond = &d.RequestsPerSecond
	}
	if change.Resumes() {
		if _, err := s.UpdateAccount(ctx, a.ID, change); err != nil {
			return err
		}
	}
	return s.noteAccount(ctx, d)
}

// noteAccount notes the settings of the account as applied.
func (s *Store) noteAccount(ctx context.Context, d Defaults) error {
	var err error
	if d.MemoriesKey != "" {
		err = s.noteApplied(ctx, settingMemoriesKey, d.MemoriesKey)
	}
	return errors.Join(err, s.noteApplied(ctx, settingRate, rateText(d.RequestsPerSecond)))
}

// changedSetting reports whether a setting's value differs from the one that was last applied, whose hash it returns.
func (s *Store) changedSetting(ctx context.Context, name, value string) (changed bool, before []byte, err error) {
	err = s.pool.QueryRow(ctx, `select hash from applied_settings where name = $1`, name).Scan(&before)
	if errors.Is(err, pgx.ErrNoRows) {
		return true, nil, nil
	}
	return !bytes.Equal(before, digest(value)), before, wrapped("read applied setting", err)
}

func (s *Store) noteApplied(ctx context.Context, name, value string) error {
	_, err := s.pool.Exec(ctx, `
		insert into applied_settings (name, hash) values ($1, $2)
		on conflict (name) do update
		set hash = excluded.hash, at = now()`, name, digest(value))
	return wrapped("note applied setting", err)
}

// ensureKey gives the app of the settings the API key that they choose, in place of the one that they chose before. That app is the
// one that has either, or else the one named DefaultName, which is created where it is missing.
func (s *Store) ensureKey(ctx context.Context, d Defaults) error {
	changed, before, err := s.changedSetting(ctx, settingAPIKey, d.APIKey)
	if err != nil || !changed {
		return err
	}
	hash := digest(d.APIKey)
	app, err := one[App](ctx, s.pool, `
		select `+appColumns+`
		from apps p
		where p.deleted_at is null
			and (p.name = $1 or exists (select 1 from api_keys k where k.app_id = p.id and k.hash in ($2, $3)))
		order by exists (select 1 from api_keys k where k.app_id = p.id and k.hash in ($2, $3)) desc
		limit 1`, DefaultName, hash, before)
	if errors.Is(err, ErrNotFound) {
		app, err = s.createDefaultApp(ctx, d)
	}
	if err != nil {
		return err
	}
	if _, err := s.insertKey(ctx, app.ID, DefaultName, d.APIKey, nil); ignoring(err, ErrConflict) != nil {
		return err
	}
	// A setting that returns to an earlier value opens again, though its app was deleted meanwhile.
	_, err = s.pool.Exec(ctx, `
		update api_keys
		set app_id = $1, revoked_at = case when hash = $2 then null else coalesce(revoked_at, now()) end
		where hash = $2 or (app_id = $1 and hash = $3)`, app.ID, hash, before)
	if err != nil {
		return fmt.Errorf("replace key: %w", err)
	}
	return s.noteApplied(ctx, settingAPIKey, d.APIKey)
}

func (s *Store) createDefaultApp(ctx context.Context, d Defaults) (App, error) {
	account, err := s.accountOf(ctx, d)
	if errors.Is(err, ErrNotFound) {
		account, err = s.createDefault(ctx, d)
	}
	if err != nil {
		return App{}, err
	}
	app, err := s.CreateApp(ctx, DefaultName, account.ID)
	if errors.Is(err, ErrConflict) { // another instance was first
		return one[App](ctx, s.pool, `select `+appColumns+` from apps where name = $1 and deleted_at is null`, DefaultName)
	}
	return app, err
}
