package store

import (
	"context"
	"crypto/sha256"
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
// setting only if its value has changed since any instance last applied it: what an operator has changed since stays. A
// changed API key ends the one before.
func (s *Store) EnsureDefaults(ctx context.Context, d Defaults) error {
	if d.MemoriesKey == "" && d.APIKey == "" {
		return nil
	}
	account, err := s.accountByName(ctx, DefaultName)
	switch {
	case errors.Is(err, ErrNotFound):
		account, err = s.CreateAccount(ctx, NewAccount{
			Name: DefaultName, APIKey: d.MemoriesKey, API: d.MemoriesAPI, RequestsPerSecond: d.RequestsPerSecond,
		})
		if errors.Is(err, ErrConflict) { // another instance was first
			account, err = s.accountByName(ctx, DefaultName)
		}
		if err == nil && d.MemoriesKey != "" {
			err = errors.Join(s.noteApplied(ctx, settingMemoriesKey, d.MemoriesKey), s.noteApplied(ctx, settingRate, rateText(d.RequestsPerSecond)))
		}
	case err == nil && d.MemoriesKey != "":
		err = s.matchDefault(ctx, account.ID, d)
	}
	if err != nil {
		return fmt.Errorf("default account: %w", err)
	}
	if d.APIKey == "" {
		return nil
	}
	app, err := s.appByName(ctx, DefaultName)
	if errors.Is(err, ErrNotFound) {
		app, err = s.CreateApp(ctx, DefaultName, account.ID)
		if errors.Is(err, ErrConflict) {
			app, err = s.appByName(ctx, DefaultName)
		}
	}
	if err == nil {
		err = s.ensureKey(ctx, app.ID, d.APIKey)
	}
	return wrapped("default app", err)
}

func rateText(requestsPerSecond float64) string {
	return strconv.FormatFloat(requestsPerSecond, 'g', -1, 64)
}

// matchDefault applies to the account what has changed of its settings.
func (s *Store) matchDefault(ctx context.Context, account uuid.UUID, d Defaults) error {
	newKey, _, err := s.changedSetting(ctx, settingMemoriesKey, d.MemoriesKey)
	if err != nil {
		return err
	}
	newRate, _, err := s.changedSetting(ctx, settingRate, rateText(d.RequestsPerSecond))
	if err != nil || !newKey && !newRate {
		return err
	}
	var change AccountChange
	if newKey {
		change.APIKey, change.API = &d.MemoriesKey, &d.MemoriesAPI
	}
	if newRate {
		change.RequestsPerSecond = &d.RequestsPerSecond
	}
	if _, err := s.UpdateAccount(ctx, account, change); err != nil {
		return err
	}
	return errors.Join(s.noteApplied(ctx, settingMemoriesKey, d.MemoriesKey), s.noteApplied(ctx, settingRate, rateText(d.RequestsPerSecond)))
}

// changedSetting reports whether a setting's value differs from the one that was last applied, whose hash it returns.
func (s *Store) changedSetting(ctx context.Context, name, value string) (changed bool, before []byte, err error) {
	err = s.pool.QueryRow(ctx, `select hash from applied_settings where name = $1`, name).Scan(&before)
	if errors.Is(err, pgx.ErrNoRows) {
		return true, nil, nil
	}
	if err != nil {
		return false, nil, fmt.Errorf("read applied setting: %w", err)
	}
	hash := sha256.Sum256([]byte(value))
	return string(before) != string(hash[:]), before, nil
}

func (s *Store) noteApplied(ctx context.Context, name, value string) error {
	hash := sha256.Sum256([]byte(value))
	_, err := s.pool.Exec(ctx, `
		insert into applied_settings (name, hash) values ($1, $2)
		on conflict (name) do update
		set hash = excluded.hash, at = now()`, name, hash[:])
	return wrapped("note applied setting", err)
}

// ensureKey gives an app the key that the settings choose, in place of the one that they chose before.
func (s *Store) ensureKey(ctx context.Context, app uuid.UUID, plain string) error {
	changed, before, err := s.changedSetting(ctx, settingAPIKey, plain)
	if err != nil || !changed {
		return err
	}
	if _, err := s.insertKey(ctx, app, DefaultName, plain, nil); ignoring(err, ErrConflict) != nil {
		return err
	}
	hash := sha256.Sum256([]byte(plain))
	// A setting that returns to an earlier value opens again.
	_, err = s.pool.Exec(ctx, `
		update api_keys
		set revoked_at = case when hash = $2 then null else coalesce(revoked_at, now()) end
		where app_id = $1 and hash in ($2, $3)`, app, hash[:], before)
	if err != nil {
		return fmt.Errorf("replace key: %w", err)
	}
	return s.noteApplied(ctx, settingAPIKey, plain)
}
