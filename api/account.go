package api

import (
	"cmp"
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
)

// Account is an account of memories.ai.
type Account struct {
	ID                uuid.UUID `json:"id" doc:"The id of the account."`
	Name              string    `json:"name" doc:"The name, unique among accounts."`
	API               string    `json:"api" enum:"v1,datalake" doc:"The generation of memories.ai's API."`
	RequestsPerSecond float64   `json:"requests_per_second" doc:"The account's budget."`
	UploadsPerMinute  float64   `json:"uploads_per_minute" doc:"The account's budget of submissions."`
	State             string    `json:"state" enum:"active,rate_limited,refused,unavailable" doc:"Whether memories.ai answers: rate_limited and unavailable pass by themselves, refused needs another key or credits."`
	StateReason       *string   `json:"state_reason" doc:"What memories.ai said."`
	PausedUntil       *Time     `json:"paused_until" nullable:"true" doc:"No request is made before this time; null if the account is not paused."`
	Used              float64   `json:"used" doc:"Requests per second, averaged over about the last minute."`
	Backlog           int64     `json:"backlog" doc:"The number of tasks being polled; it can be some seconds old."`
	CreatedAt         Time      `json:"created_at" doc:"When the account was created."`
}

// NewAccount is an account to be created.
type NewAccount struct {
	Name              string   `json:"name" minLength:"1" maxLength:"100" doc:"The name, unique among accounts."`
	APIKey            string   `json:"api_key" minLength:"1" maxLength:"1000" doc:"The API key of memories.ai: printable ASCII characters without blanks. It is never shown again."`
	API               string   `json:"api,omitempty" enum:"v1,datalake" doc:"The generation of memories.ai's API; absent: datalake for a key that begins with sk-mai-, else v1."`
	RequestsPerSecond float64  `json:"requests_per_second,omitempty" minimum:"0.01" maximum:"1000" default:"1" doc:"The account's budget."`
	UploadsPerMinute  *float64 `json:"uploads_per_minute,omitempty" minimum:"0.01" maximum:"6000" doc:"The account's budget of submissions; absent: 1 with v1, 60 with datalake."`
}

// AccountPatch changes the fields that it has.
type AccountPatch struct {
	Name              NotNull[string]  `json:"name,omitzero" minLength:"1" maxLength:"100" doc:"The name, unique among accounts."`
	APIKey            NotNull[string]  `json:"api_key,omitzero" minLength:"1" maxLength:"1000" doc:"The API key of memories.ai: printable ASCII characters without blanks. It is never shown again."`
	API               NotNull[string]  `json:"api,omitzero" enum:"v1,datalake" doc:"Absent, with a new api_key: by the key's prefix."`
	RequestsPerSecond NotNull[float64] `json:"requests_per_second,omitzero" minimum:"0.01" maximum:"1000" doc:"The account's budget."`
	UploadsPerMinute  NotNull[float64] `json:"uploads_per_minute,omitzero" minimum:"0.01" maximum:"6000" doc:"The account's budget of submissions."`
	State             NotNull[string]  `json:"state,omitzero" doc:"Only active, which asks memories.ai again at once, for example after credits were added to a refused account."`
}

type patchAccountInput struct {
	IDInput
	Body AccountPatch
}

func (s *server) createAccount(ctx context.Context, in *body[NewAccount]) (*body[Account], error) {
	if err := errors.Join(checkName(&in.Body.Name), checkKey("api_key", &in.Body.APIKey)); err != nil {
		return nil, err
	}
	a, err := s.store.CreateAccount(ctx, store.NewAccount{
		Name: in.Body.Name, APIKey: in.Body.APIKey, API: cmp.Or(in.Body.API, string(memories.APIOf(in.Body.APIKey))),
		RequestsPerSecond: in.Body.RequestsPerSecond, UploadsPerMinute: in.Body.UploadsPerMinute,
	})
	if err != nil {
		return nil, err
	}
	return s.answerAccount(ctx, a)
}

// checkKey refuses a key that cannot be sent in a header as it is, which memories.ai would refuse too, later and in worse words.
func checkKey(field string, key *string) error {
	if key != nil && !store.ValidKey(*key) {
		return invalid(FieldError{field, "must have only printable ASCII characters, without spaces or line breaks"})
	}
	return nil
}

// answerAccount answers with one account and its backlog.
func (s *server) answerAccount(ctx context.Context, a store.Account) (*body[Account], error) {
	backlogs, err := s.store.Backlogs(ctx)
	if err != nil {
		return nil, err
	}
	return &body[Account]{wireAccount(&a, backlogs)}, nil
}

func (s *server) listAccounts(ctx context.Context, in *PageInput) (*body[List[Account]], error) {
	list, err := s.store.Accounts(ctx, in.page)
	if err != nil {
		return nil, err
	}
	backlogs, err := s.store.Backlogs(ctx)
	if err != nil {
		return nil, err
	}
	wire := func(a *store.Account) Account { return wireAccount(a, backlogs) }
	return listOf(list, false, in.Limit, func(a *store.Account) uuid.UUID { return a.ID }, wire), nil
}

func (s *server) patchAccount(ctx context.Context, in *patchAccountInput) (*body[Account], error) {
	change := store.AccountChange{
		Resume: in.Body.State.Set,
		Name:   in.Body.Name.orNil(), APIKey: in.Body.APIKey.orNil(), API: in.Body.API.orNil(),
		RequestsPerSecond: in.Body.RequestsPerSecond.orNil(), UploadsPerMinute: in.Body.UploadsPerMinute.orNil(),
	}
	if err := errors.Join(checkName(change.Name), checkKey("api_key", change.APIKey)); err != nil {
		return nil, err
	}
	if state := in.Body.State; state.Set && state.Value != store.AccountActive {
		return nil, invalid(FieldError{"state", "can only be set to active, which asks memories.ai again at once; " +
			"POST /admin/v1/polling/pause pauses all accounts, and a small requests_per_second slows one down"})
	}
	if change.API == nil && change.APIKey != nil {
		change.API = new(string(memories.APIOf(*change.APIKey)))
	}
	a, err := s.store.UpdateAccount(ctx, in.id, change)
	if err != nil {
		return nil, err
	}
	if change.Resumes() {
		s.log.Info("an operator changed an account: memories.ai is asked for it at once", "account", a.Name)
	}
	return s.answerAccount(ctx, a)
}

func (s *server) deleteAccount(ctx context.Context, in *IDInput) (*struct{}, error) {
	return nil, s.store.DeleteAccount(ctx, in.id)
}

func wireAccount(a *store.Account, backlogs map[uuid.UUID]int64) Account {
	return Account{
		ID: a.ID, Name: a.Name, API: a.API, RequestsPerSecond: a.RequestsPerSecond, UploadsPerMinute: a.UploadsPerMinute,
		State: a.State, StateReason: a.StateReason,
		PausedUntil: wireTimeOf(a.PausedUntil), Used: a.Used, Backlog: backlogs[a.ID], CreatedAt: wireTime(a.CreatedAt),
	}
}
