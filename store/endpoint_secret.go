package store

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// secretSize is the size of the signing secrets that are made here, in bytes.
const secretSize = 32

func (s *Store) newSecret() []byte {
	secret := make([]byte, secretSize)
	_, _ = rand.Read(secret) // never fails: it ends the program instead
	return s.keys.Seal("endpoint.secret", secret)
}

// Secrets returns the secrets that sign for an endpoint now, the newest first, in clear.
func (s *Store) Secrets(ctx context.Context, scope Scope, id uuid.UUID) ([][]byte, error) {
	var secret, old []byte
	var oldUntil *time.Time
	rows, err := s.pool.Query(ctx, `
			select secret, old_secret, old_secret_expires_at
			from endpoints
			where id = $1 and ($2::uuid is null or app_id = $2) and deleted_at is null`, id, scope.arg())
	if err != nil {
		return nil, fmt.Errorf("read secrets: %w", err)
	}
	tag, err := pgx.ForEachRow(rows, []any{&secret, &old, &oldUntil}, func() error { return nil })
	if err != nil {
		return nil, fmt.Errorf("read secrets: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return nil, ErrNotFound
	}
	return s.openSecrets(secret, old, oldUntil)
}

func (s *Store) openSecrets(secret, old []byte, oldUntil *time.Time) ([][]byte, error) {
	plain, err := s.keys.Open("endpoint.secret", secret)
	if err != nil {
		return nil, err
	}
	secrets := [][]byte{plain}
	if old != nil && oldUntil != nil && oldUntil.After(s.now()) {
		if plain, err = s.keys.Open("endpoint.secret", old); err != nil {
			return nil, err
		}
		secrets = append(secrets, plain)
	}
	return secrets, nil
}

// RotateSecret gives an endpoint a new secret and returns it. During overlap the old one signs too.
func (s *Store) RotateSecret(ctx context.Context, scope Scope, id uuid.UUID, overlap time.Duration) ([]byte, error) {
	sealed := s.newSecret()
	tag, err := s.pool.Exec(ctx, `
		update endpoints
		set old_secret = case when $4 > now() then secret end, old_secret_expires_at = $4, secret = $3
		where id = $1 and ($2::uuid is null or app_id = $2) and deleted_at is null`, id, scope.arg(), sealed, s.now().Add(overlap))
	if err != nil {
		return nil, fmt.Errorf("rotate secret: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return nil, ErrNotFound
	}
	return s.keys.Open("endpoint.secret", sealed)
}
