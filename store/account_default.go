package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// DefaultName names the account and the app that the settings make.
const DefaultName = "default"

// EnsureDefaults makes the account and the app `default` match the settings: the account's key, generation and budget, and
// the app's API key. An empty key leaves its part alone.
func (s *Store) EnsureDefaults(ctx context.Context, wanted NewAccount, apiKey string) error {
	if wanted.APIKey == "" && apiKey == "" {
		return nil
	}
	account, err := s.accountByName(ctx, DefaultName)
	switch {
	case errors.Is(err, ErrNotFound):
		wanted.Name = DefaultName
		account, err = s.CreateAccount(ctx, wanted)
		if errors.Is(err, ErrConflict) { // another instance was first
			account, err = s.accountByName(ctx, DefaultName)
		}
	case err == nil && wanted.APIKey != "":
		err = s.matchDefault(ctx, account, wanted)
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

func (s *Store) matchDefault(ctx context.Context, a Account, wanted NewAccount) error {
	key, err := s.keys.Open("account.api_key", a.APIKey)
	if err != nil {
		return err
	}
	if string(key) == wanted.APIKey && a.API == wanted.API && a.RequestsPerSecond == wanted.RequestsPerSecond {
		return nil
	}
	_, err = s.UpdateAccount(ctx, a.ID, AccountChange{
		APIKey: &wanted.APIKey, API: &wanted.API, RequestsPerSecond: &wanted.RequestsPerSecond,
	})
	return err
}

// ensureKey adds a key with a given text to an app.
func (s *Store) ensureKey(ctx context.Context, app uuid.UUID, plain string) error {
	_, err := s.insertKey(ctx, app, DefaultName, plain, nil)
	if errors.Is(err, ErrConflict) {
		return nil
	}
	return err
}
