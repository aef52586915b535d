package api

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// App is a tenant.
type App struct {
	ID        uuid.UUID `json:"id" doc:"The id of the app."`
	Name      string    `json:"name" doc:"The name of the app."`
	AccountID uuid.UUID `json:"account_id" doc:"The account of memories.ai that polls for the app."`
	CreatedAt Time      `json:"created_at" doc:"When the app was created."`
}

// NewApp is an app to be created.
type NewApp struct {
	Name      string `json:"name" minLength:"1" maxLength:"100" doc:"The name of the app."`
	AccountID string `json:"account_id" doc:"The account of memories.ai that polls for the app."`
}

// AppPatch changes the fields that it has.
type AppPatch struct {
	Name      NotNull[string] `json:"name,omitzero" minLength:"1" maxLength:"100" doc:"The name of the app."`
	AccountID NotNull[string] `json:"account_id,omitzero" doc:"The app's waiting tasks move to this account."`
}

type patchAppInput struct {
	IDInput
	Body AppPatch
}

func (s *server) createApp(ctx context.Context, in *body[NewApp]) (*body[App], error) {
	account, err := requiredID("account_id", in.Body.AccountID)
	if err := errors.Join(err, checkName(&in.Body.Name)); err != nil {
		return nil, err
	}
	a, err := s.store.CreateApp(ctx, in.Body.Name, account)
	if errors.Is(err, store.ErrNotFound) {
		return nil, missing("account_id", "account")
	}
	if err != nil {
		return nil, err
	}
	return &body[App]{wireApp(&a)}, nil
}

func (s *server) listApps(ctx context.Context, in *PageInput) (*body[List[App]], error) {
	list, err := s.store.Apps(ctx, in.page)
	if err != nil {
		return nil, err
	}
	return listOf(list, false, in.Limit, func(a *store.App) uuid.UUID { return a.ID }, wireApp), nil
}

func (s *server) patchApp(ctx context.Context, in *patchAppInput) (*body[App], error) {
	name := in.Body.Name.orNil()
	if err := checkName(name); err != nil {
		return nil, err
	}
	var account *uuid.UUID
	if in.Body.AccountID.Set {
		moved, err := requiredID("account_id", in.Body.AccountID.Value)
		if err != nil {
			return nil, err
		}
		account = &moved
	}
	a, err := s.store.UpdateApp(ctx, in.id, name, account)
	if errors.Is(err, store.ErrNotFound) && account != nil {
		if _, err = s.store.App(ctx, in.id); err == nil {
			return nil, missing("account_id", "account")
		}
	}
	if err != nil {
		return nil, err
	}
	return &body[App]{wireApp(&a)}, nil
}

func (s *server) deleteApp(ctx context.Context, in *IDInput) (*struct{}, error) {
	return nil, s.store.DeleteApp(ctx, in.id)
}

func wireApp(a *store.App) App {
	return App{ID: a.ID, Name: a.Name, AccountID: a.AccountID, CreatedAt: wireTime(a.CreatedAt)}
}
