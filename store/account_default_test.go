package store_test

import (
	"errors"
	"testing"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

// A setting is applied when it changes. What an operator changes in between stays, restart after restart.
func TestTheEnvironmentCountsWhenItChanges(t *testing.T) {
	t.Parallel()
	s := storetest.New(t, store.Config{Encode: encode})
	start := func(memoriesKey string, rate float64, apiKey string) store.Account {
		t.Helper()
		if err := s.EnsureDefaults(t.Context(), store.Defaults{
			MemoriesKey: memoriesKey, MemoriesAPI: store.AccountV1, RequestsPerSecond: rate, APIKey: apiKey,
		}); err != nil {
			t.Fatal(err)
		}
		accounts, err := s.AllAccounts(t.Context())
		if err != nil || len(accounts) != 1 {
			t.Fatal(accounts, err)
		}
		return accounts[0]
	}
	has := func(memoriesKey string) (same bool) {
		t.Helper()
		if err := s.Pool().QueryRow(t.Context(), `select key_hash = sha256($1::bytea) from accounts`, []byte(memoriesKey)).Scan(&same); err != nil {
			t.Fatal(err)
		}
		return same
	}
	opens := func(key string) bool {
		t.Helper()
		_, err := s.Authenticate(t.Context(), key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
	const first, second = "the first key of an app", "the second key of an app"
	a := start("sk-mavi-a", 1, first)
	if _, err := s.UpdateAccount(t.Context(), a.ID, store.AccountChange{APIKey: new("sk-mavi-operator"), RequestsPerSecond: new(5.0)}); err != nil {
		t.Fatal(err)
	}
	if got := start("sk-mavi-a", 1, first); !has("sk-mavi-operator") || got.RequestsPerSecond != 5 {
		t.Errorf("the same environment again: %v requests/s, or another key", got.RequestsPerSecond)
	}
	if got := start("sk-mavi-a", 2, first); !has("sk-mavi-operator") || got.RequestsPerSecond != 2 {
		t.Errorf("another budget: %v requests/s, or another key", got.RequestsPerSecond)
	}
	if got := start("sk-mavi-b", 2, second); !has("sk-mavi-b") || got.RequestsPerSecond != 2 {
		t.Errorf("another key: %v requests/s, or another key", got.RequestsPerSecond)
	}
	if opens(first) || !opens(second) {
		t.Error("the replaced key opens, or the new one does not")
	}
	keys, err := s.Keys(t.Context(), mustIdentity(t, s, second).AppID, store.Page{Limit: 10})
	if err != nil || len(keys) != 2 {
		t.Fatal(keys, err)
	}
	if err := s.RevokeKey(t.Context(), keys[0].AppID, keys[0].ID); err != nil {
		t.Fatal(err)
	}
	start("sk-mavi-b", 2, second)
	if opens(second) {
		t.Error("a restart has opened a key that an operator revoked")
	}
	start("sk-mavi-b", 2, "")
	start("sk-mavi-b", 2, first)
	if !opens(first) {
		t.Error("the first key does not open again")
	}
}

func mustIdentity(t *testing.T, s *store.Store, key string) store.Identity {
	t.Helper()
	id, err := s.Authenticate(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
