package api

import (
	"context"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// APIKey is an app's key.
type APIKey struct {
	ID         uuid.UUID `json:"id" doc:"The id of the key."`
	Name       string    `json:"name" doc:"What the key is for."`
	Prefix     string    `json:"prefix" doc:"The first characters of the key, to recognise it by."`
	Key        string    `json:"key,omitempty" doc:"The key itself; only in the answer that creates it."`
	CreatedAt  Time      `json:"created_at" doc:"When the key was created."`
	LastUsedAt *Time     `json:"last_used_at" nullable:"true" doc:"When the key was last used; null if never."`
	RevokedAt  *Time     `json:"revoked_at" nullable:"true" doc:"When the key was revoked; null if it works."`
	RateLimit  *float64  `json:"rate_limit" doc:"Requests per second that each instance accepts; null for the service's default."`
}

// NewKey is a key to be created.
type NewKey struct {
	Name      string   `json:"name,omitempty" maxLength:"100" doc:"What the key is for."`
	RateLimit *float64 `json:"rate_limit,omitempty" minimum:"0.01" maximum:"100000" doc:"Requests per second to each instance; absent for the service's default."`
}

type (
	createKeyInput struct {
		IDInput
		Body *NewKey `required:"false"`
	}
	listKeysInput struct {
		IDInput
		PageInput
	}
	revokeKeyInput struct {
		IDInput
		KeyID string `path:"key_id" doc:"The id of the key: a UUID."`
	}
)

func (s *server) createKey(ctx context.Context, in *createKeyInput) (*body[APIKey], error) {
	var set NewKey
	if in.Body != nil {
		set = *in.Body
	}
	if err := checkName(&set.Name); err != nil {
		return nil, err
	}
	k, plain, err := s.store.CreateKey(ctx, in.id, set.Name, set.RateLimit)
	if err != nil {
		return nil, err
	}
	out := wireKey(&k)
	out.Key = plain
	return &body[APIKey]{out}, nil
}

func (s *server) listKeys(ctx context.Context, in *listKeysInput) (*body[List[APIKey]], error) {
	if _, err := s.store.App(ctx, in.id); err != nil {
		return nil, err
	}
	list, err := s.store.Keys(ctx, in.id, in.page)
	if err != nil {
		return nil, err
	}
	return listOf(list, false, in.Limit, func(k *store.APIKey) uuid.UUID { return k.ID }, wireKey), nil
}

func (s *server) revokeKey(ctx context.Context, in *revokeKeyInput) (*struct{}, error) {
	key, err := parseID(in.KeyID)
	if err != nil {
		return nil, err
	}
	return nil, s.store.RevokeKey(ctx, in.id, key)
}

func wireKey(k *store.APIKey) APIKey {
	return APIKey{
		ID: k.ID, Name: k.Name, Prefix: k.Prefix, CreatedAt: wireTime(k.CreatedAt),
		LastUsedAt: wireTimeOf(k.LastUsedAt), RevokedAt: wireTimeOf(k.RevokedAt), RateLimit: k.RateLimit,
	}
}
