package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// Account is an account of memories.ai.
type Account struct {
	ID                uuid.UUID  `json:"id"`
	Name              string     `json:"name"`
	RequestsPerSecond float64    `json:"requests_per_second"`
	State             string     `json:"state" enum:"active,rate_limited,refused,unavailable"`
	StateReason       *string    `json:"state_reason" doc:"memories.ai's own words."`
	PausedUntil       *time.Time `json:"paused_until"`
	CreatedAt         time.Time  `json:"created_at"`
}

// NewAccount is an account to be made.
type NewAccount struct {
	Name              string  `json:"name" minLength:"1" maxLength:"100"`
	APIKey            string  `json:"api_key" minLength:"1" maxLength:"1000" doc:"memories.ai's key. Never shown again."`
	RequestsPerSecond float64 `json:"requests_per_second,omitempty" exclusiveMinimum:"0" maximum:"1000" default:"1" doc:"The account's budget."`
}

// AccountPatch changes what it has.
type AccountPatch struct {
	Name              *string  `json:"name,omitempty" minLength:"1" maxLength:"100"`
	APIKey            *string  `json:"api_key,omitempty" minLength:"1" maxLength:"1000"`
	RequestsPerSecond *float64 `json:"requests_per_second,omitempty" exclusiveMinimum:"0" maximum:"1000"`
}

// App is a tenant.
type App struct {
	ID        uuid.UUID `json:"id"`
	Name      string    `json:"name"`
	AccountID uuid.UUID `json:"account_id"`
	CreatedAt time.Time `json:"created_at"`
}

// NewApp is an app to be made.
type NewApp struct {
	Name      string    `json:"name" minLength:"1" maxLength:"100"`
	AccountID uuid.UUID `json:"account_id"`
}

// APIKey is an app's key.
type APIKey struct {
	ID         uuid.UUID  `json:"id"`
	Name       string     `json:"name"`
	Prefix     string     `json:"prefix" doc:"Enough to recognise it by."`
	Key        string     `json:"key,omitempty" doc:"The key itself, only when it is made."`
	CreatedAt  time.Time  `json:"created_at"`
	LastUsedAt *time.Time `json:"last_used_at"`
	RevokedAt  *time.Time `json:"revoked_at"`
}

// Stats is the state of the whole service.
type Stats struct {
	Tasks      map[string]int64 `json:"tasks" doc:"By status."`
	Deliveries map[string]int64 `json:"deliveries" doc:"By status."`
	Queues     []Queue          `json:"queues" nullable:"false"`
	Accounts   []Account        `json:"accounts" nullable:"false"`
	Instances  []Instance       `json:"instances" nullable:"false"`
}

// Queue is how many jobs are in a state.
type Queue struct {
	Name          string  `json:"name"`
	State         string  `json:"state"`
	Count         int64   `json:"count"`
	OldestSeconds float64 `json:"oldest_seconds" doc:"Since the oldest was due."`
}

// Instance is a running memhook.
type Instance struct {
	ID        uuid.UUID `json:"id"`
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	StartedAt time.Time `json:"started_at"`
	BeatAt    time.Time `json:"beat_at"`
}

type (
	createAccountInput struct{ Body NewAccount }
	patchAccountInput  struct {
		IDInput
		Body AccountPatch
	}
	accountOutput  struct{ Body Account }
	createAppInput struct{ Body NewApp }
	appOutput      struct{ Body App }
	createKeyInput struct {
		IDInput
		Body struct {
			Name string `json:"name,omitempty" maxLength:"100"`
		} `required:"false"`
	}
	keyOutput      struct{ Body APIKey }
	revokeKeyInput struct {
		IDInput
		KeyID string `path:"key_id"`
	}
	statsOutput struct{ Body Stats }
)

func (s *server) adminOperations(api huma.API) {
	tag := func(o *huma.Operation) { o.Tags = []string{"admin"} }
	created := func(o *huma.Operation) { o.DefaultStatus = http.StatusCreated }
	huma.Post(api, "/accounts", s.createAccount, tag, describe("admin-create-account", "Add an account of memories.ai", "", http.StatusConflict), created)
	huma.Get(api, "/accounts", s.listAccounts, tag, describe("admin-list-accounts", "List accounts", ""))
	huma.Patch(api, "/accounts/{id}", s.patchAccount, tag, describe("admin-update-account", "Change an account", "A new key or budget counts at once.", http.StatusNotFound, http.StatusConflict))
	huma.Delete(api, "/accounts/{id}", s.deleteAccount, tag, describe("admin-delete-account", "Delete an account", "An account that apps use is 409.", http.StatusNotFound, http.StatusConflict))
	huma.Post(api, "/apps", s.createApp, tag, describe("admin-create-app", "Add an app", "", http.StatusNotFound, http.StatusConflict), created)
	huma.Get(api, "/apps", s.listApps, tag, describe("admin-list-apps", "List apps", ""))
	huma.Post(api, "/apps/{id}/keys", s.createKey, tag, describe("admin-create-key", "Make an API key", "The answer is the only one that has the key.", http.StatusNotFound), created)
	huma.Get(api, "/apps/{id}/keys", s.listKeys, tag, describe("admin-list-keys", "List an app's keys", "", http.StatusNotFound))
	huma.Delete(api, "/apps/{id}/keys/{key_id}", s.revokeKey, tag, describe("admin-revoke-key", "Revoke a key", "It works no longer within a second.", http.StatusNotFound))
	huma.Get(api, "/stats", s.stats, tag, describe("admin-stats", "The state of the whole service", ""))
}

func (s *server) createAccount(ctx context.Context, in *createAccountInput) (*accountOutput, error) {
	a, err := s.store.CreateAccount(ctx, in.Body.Name, in.Body.APIKey, in.Body.RequestsPerSecond)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return &accountOutput{wireAccount(&a)}, nil
}

func (s *server) listAccounts(ctx context.Context, _ *struct{}) (*listOutput[Account], error) {
	list, err := s.store.Accounts(ctx)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return listOf(list, 0, nil, wireAccount), nil
}

func (s *server) patchAccount(ctx context.Context, in *patchAccountInput) (*accountOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	a, err := s.store.UpdateAccount(ctx, id, store.AccountChange{Name: in.Body.Name, APIKey: in.Body.APIKey, RequestsPerSecond: in.Body.RequestsPerSecond})
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return &accountOutput{wireAccount(&a)}, nil
}

func (s *server) deleteAccount(ctx context.Context, in *IDInput) (*struct{}, error) {
	id, err := in.id()
	if err == nil {
		err = s.store.DeleteAccount(ctx, id)
	}
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return nil, nil
}

func (s *server) createApp(ctx context.Context, in *createAppInput) (*appOutput, error) {
	a, err := s.store.CreateApp(ctx, in.Body.Name, in.Body.AccountID)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return &appOutput{wireApp(&a)}, nil
}

func (s *server) listApps(ctx context.Context, _ *struct{}) (*listOutput[App], error) {
	list, err := s.store.Apps(ctx)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return listOf(list, 0, nil, wireApp), nil
}

func (s *server) createKey(ctx context.Context, in *createKeyInput) (*keyOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	k, plain, err := s.store.CreateKey(ctx, id, in.Body.Name)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	out := wireKey(&k)
	out.Key = plain
	return &keyOutput{out}, nil
}

func (s *server) listKeys(ctx context.Context, in *IDInput) (*listOutput[APIKey], error) {
	id, err := in.id()
	if err == nil {
		_, err = s.store.App(ctx, id)
	}
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	list, err := s.store.Keys(ctx, id)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return listOf(list, 0, nil, wireKey), nil
}

func (s *server) revokeKey(ctx context.Context, in *revokeKeyInput) (*struct{}, error) {
	app, err := in.id()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	key, err := parseID(in.KeyID)
	if err == nil {
		err = s.store.RevokeKey(ctx, app, key)
	}
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return nil, nil
}

func (s *server) stats(ctx context.Context, _ *struct{}) (*statsOutput, error) {
	st, err := s.store.Stats(ctx)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	out := &statsOutput{Stats{Tasks: st.Tasks, Deliveries: st.Deliveries, Queues: make([]Queue, len(st.Jobs)), Accounts: make([]Account, len(st.Accounts)), Instances: make([]Instance, len(st.Instances))}}
	for i, q := range st.Jobs {
		out.Body.Queues[i] = Queue{q.Queue, q.State, q.Count, q.OldestSecs}
	}
	for i := range st.Accounts {
		out.Body.Accounts[i] = wireAccount(&st.Accounts[i])
	}
	for i, in := range st.Instances {
		out.Body.Instances[i] = Instance{in.ID, in.Name, in.Version, in.StartedAt.UTC(), in.BeatAt.UTC()}
	}
	return out, nil
}

func wireAccount(a *store.Account) Account {
	return Account{a.ID, a.Name, a.RequestsPerSecond, a.State, a.StateReason, utc(a.PausedUntil), a.CreatedAt.UTC()}
}

func wireApp(a *store.App) App { return App{a.ID, a.Name, a.AccountID, a.CreatedAt.UTC()} }

func wireKey(k *store.APIKey) APIKey {
	return APIKey{ID: k.ID, Name: k.Name, Prefix: k.Prefix, CreatedAt: k.CreatedAt.UTC(), LastUsedAt: utc(k.LastUsedAt), RevokedAt: utc(k.RevokedAt)}
}
