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

// defaults is a store that is started with settings.
type defaults struct {
	*store.Store
	t *testing.T
}

func newDefaults(t *testing.T) defaults {
	t.Helper()
	return defaults{storetest.New(t, store.Config{Encode: encode}), t}
}

// start starts an instance and returns the accounts by name.
func (d defaults) start(memoriesKey string, rate float64, apiKey string) map[string]store.Account {
	d.t.Helper()
	set := store.Defaults{MemoriesKey: memoriesKey, MemoriesAPI: store.AccountV1, RequestsPerSecond: rate, APIKey: apiKey}
	if err := d.EnsureDefaults(d.t.Context(), set); err != nil {
		d.t.Fatalf("start with %+v: %v", set, err)
	}
	list, err := d.AllAccounts(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	accounts := make(map[string]store.Account, len(list))
	for _, a := range list {
		accounts[a.Name] = a
	}
	return accounts
}

func (d defaults) change(a store.Account, c store.AccountChange) {
	d.t.Helper()
	if _, err := d.UpdateAccount(d.t.Context(), a.ID, c); err != nil {
		d.t.Fatal(err)
	}
}

// has reports whether an account has a key.
func (d defaults) has(a store.Account, key string) (has bool) {
	d.t.Helper()
	err := d.Pool().QueryRow(d.t.Context(), `select key_hash = sha256($2::bytea) from accounts where id = $1`, a.ID, []byte(key)).Scan(&has)
	if err != nil {
		d.t.Fatal(err)
	}
	return has
}

func (d defaults) apps() []store.App {
	d.t.Helper()
	list, err := d.Apps(d.t.Context(), store.Page{Limit: 10})
	if err != nil {
		d.t.Fatal(err)
	}
	return list
}

// opens returns the app that a key opens, or none.
func (d defaults) opens(key string) (app store.App) {
	d.t.Helper()
	id, err := d.Authenticate(d.t.Context(), key)
	if errors.Is(err, store.ErrNotFound) {
		return app
	}
	if err == nil {
		app, err = d.App(d.t.Context(), id.AppID)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return app
}

// The account of the settings may have any name: instances start, and what changes of the settings reaches it.
func TestTheAccountOfTheSettingsMayHaveAnyName(t *testing.T) {
	t.Parallel()
	d := newDefaults(t)
	d.change(d.start("sk-mavi-a", 1, "")[store.DefaultName], store.AccountChange{Name: new("main")})
	for _, step := range []struct {
		key  string
		rate float64
	}{{"sk-mavi-a", 1}, {"sk-mavi-a", 3}, {"sk-mavi-b", 3}} {
		accounts := d.start(step.key, step.rate, "")
		if a := accounts["main"]; len(accounts) != 1 || a.RequestsPerSecond != step.rate || !d.has(a, step.key) {
			t.Errorf("after its renaming, with %+v: %+v", step, accounts)
		}
	}

	d = newDefaults(t)
	if _, err := d.CreateAccount(t.Context(), store.NewAccount{Name: "main", APIKey: "sk-mavi-a", RequestsPerSecond: 5}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if accounts := d.start("sk-mavi-a", 1, ""); len(accounts) != 1 || accounts["main"].RequestsPerSecond != 5 {
			t.Errorf("an operator's account with the key: %+v", accounts)
		}
	}

	d = newDefaults(t)
	d.start("", 1, "the key of the app")
	if _, err := d.CreateAccount(t.Context(), store.NewAccount{Name: "main", APIKey: "sk-mavi-a", RequestsPerSecond: 5}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if accounts := d.start("sk-mavi-a", 1, "the key of the app"); len(accounts) != 2 || accounts["main"].RequestsPerSecond != 5 {
			t.Errorf("an operator's account beside the one named default: %+v", accounts)
		}
	}
}

// The budget counts when it changes, whether the key is set or not.
func TestTheBudgetCountsByItself(t *testing.T) {
	t.Parallel()
	d := newDefaults(t)
	budget := func(key string, rate, want float64) store.Account {
		t.Helper()
		a := d.start(key, rate, "the key of the app")[store.DefaultName]
		if a.RequestsPerSecond != want {
			t.Errorf("started with the key %q and %v requests/s: it has %v, want %v", key, rate, a.RequestsPerSecond, want)
		}
		return a
	}
	d.change(budget("", 1, 1), store.AccountChange{APIKey: new("sk-mavi-operator"), RequestsPerSecond: new(5.0)})
	budget("", 1, 5)
	d.change(budget("", 2, 2), store.AccountChange{RequestsPerSecond: new(7.0)})
	if a := budget("sk-mavi-a", 2, 7); !d.has(a, "sk-mavi-a") {
		t.Error("the key that was set is not the account's")
	}
}

// An app of the settings that an operator has deleted or renamed does not come back without its key.
func TestTheAppOfTheSettingsStaysAsItWasLeft(t *testing.T) {
	t.Parallel()
	const first, second = "the first key of an app", "the second key of an app"
	d := newDefaults(t)
	start := func(key string) []store.App {
		t.Helper()
		d.start("", 1, key)
		return d.apps()
	}
	if err := d.DeleteApp(t.Context(), start(first)[0].ID); err != nil {
		t.Fatal(err)
	}
	if apps := start(first); len(apps) != 0 {
		t.Errorf("after its deletion: %+v", apps)
	}
	for _, key := range []string{second, first} { // the first key is the deleted app's until now
		if apps := start(key); len(apps) != 1 || d.opens(key).ID != apps[0].ID {
			t.Errorf("%s opens %+v of %+v", key, d.opens(key), apps)
		}
	}
	if _, err := d.UpdateApp(t.Context(), d.apps()[0].ID, new("main"), nil); err != nil {
		t.Fatal(err)
	}
	if apps := start(first); len(apps) != 1 {
		t.Errorf("after its renaming: %+v", apps)
	}
	if apps := start(second); len(apps) != 1 || d.opens(second).Name != "main" || d.opens(first).Name != "" {
		t.Errorf("after another key: %+v; the keys open %q and %q", apps, d.opens(first).Name, d.opens(second).Name)
	}
}
