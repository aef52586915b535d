package store

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// A portal is one endpoint's own pages for the app's customer. Its token says which endpoint's, which API key made it and when
// it expires, sealed with the keyring: there is no row of it. So it is valid on every instance while the keyring has the key that
// sealed it, and each look at it asks the database whether endpoint, app and API key still exist and what time it is.

// placePortal binds what is sealed to portals.
const placePortal = "portal.token"

// Portal is what a token opens.
type Portal struct {
	EndpointID uuid.UUID
	AppID      uuid.UUID
	URL        string    // of the endpoint
	KeyID      uuid.UUID // the API key that made it; with the key it ends
	ExpiresAt  time.Time // on the database's clock
}

// CreatePortal returns the token of a portal that an API key makes for one of its app's endpoints, and when it expires.
func (s *Store) CreatePortal(ctx context.Context, by Identity, endpoint uuid.UUID, lasts time.Duration) (
	token string, expires time.Time, err error,
) {
	err = s.pool.QueryRow(ctx, `
		select date_trunc('second', now() + $3::interval)
		from endpoints
		where id = $1 and app_id = $2 and deleted_at is null`, endpoint, by.AppID, lasts).Scan(&expires)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", expires, ErrNotFound
	}
	if err != nil {
		return "", expires, fmt.Errorf("create portal: %w", err)
	}
	plain := binary.BigEndian.AppendUint64(append(endpoint[:], by.KeyID[:]...), uint64(expires.Unix()))
	return base64.RawURLEncoding.EncodeToString(s.keys.Seal(placePortal, plain)), expires, nil
}

// UnsealPortal returns what a token says, without a look at the database: the endpoint, the API key and the expiry. It is
// ErrNotFound for a token that was not made here.
func (s *Store) UnsealPortal(token string) (Portal, error) {
	sealed, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return Portal{}, ErrNotFound
	}
	plain, err := s.keys.Open(placePortal, sealed)
	if err != nil || len(plain) != 2*len(uuid.UUID{})+8 {
		return Portal{}, ErrNotFound
	}
	expires := time.Unix(int64(binary.BigEndian.Uint64(plain[32:])), 0)
	return Portal{EndpointID: uuid.UUID(plain[:16]), KeyID: uuid.UUID(plain[16:32]), ExpiresAt: expires}, nil
}

// OpenPortal returns what an unsealed token opens now. It is ErrNotFound for one that has expired, and where the endpoint, its app
// or the API key is gone.
func (s *Store) OpenPortal(ctx context.Context, unsealed Portal) (Portal, error) {
	return one[Portal](ctx, s.pool, `
		select e.id as endpoint_id, e.app_id, e.url, k.id as key_id, $3::timestamptz as expires_at
		from endpoints e
		join apps a on a.id = e.app_id
		join api_keys k on k.app_id = e.app_id
		where e.id = $1 and e.deleted_at is null and a.deleted_at is null
			and k.id = $2 and k.revoked_at is null and now() < $3`, unsealed.EndpointID, unsealed.KeyID, unsealed.ExpiresAt)
}
