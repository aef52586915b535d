package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// APIKey is an app's key, of which only the hash is stored.
type APIKey struct {
	ID         uuid.UUID
	AppID      uuid.UUID
	Name       string
	Prefix     string // enough to recognise it by
	CreatedAt  time.Time
	LastUsedAt *time.Time
	RevokedAt  *time.Time
	RateLimit  *float64 // requests a second; nil: the service's default
}

// ValidKey reports whether a key can be sent in a header as it is: printable ASCII without blanks.
func ValidKey(key string) bool {
	for i := range len(key) {
		if key[i] <= ' ' || key[i] > '~' {
			return false
		}
	}
	return key != ""
}

// Identity is who a key belongs to.
type Identity struct {
	KeyID     uuid.UUID
	AppID     uuid.UUID
	RateLimit *float64
}

// Keys lists an app's keys, newest first.
func (s *Store) Keys(ctx context.Context, app uuid.UUID, p Page) ([]APIKey, error) {
	list, err := many[APIKey](ctx, s.pool, `
			select `+keyColumns+`
			from api_keys
			where app_id = $1 and id < $2 and id > $4
			order by id `+p.order()+` limit $3`, app, p.high(), p.Limit, p.low())
	return newestFirst(p, list), err
}

// Authenticate returns the identity that a key belongs to, or ErrNotFound where the key is unknown or revoked.
func (s *Store) Authenticate(ctx context.Context, plain string) (Identity, error) {
	return one[Identity](ctx, s.pool, `
		select k.id as key_id, k.app_id, k.rate_limit
		from api_keys k
		join apps a on a.id = k.app_id
		where k.hash = $1 and k.revoked_at is null and a.deleted_at is null`, digest(plain))
}

// KeyPrefix is what API keys begin with, but for one that an operator chose with MEMHOOK_API_KEY.
const KeyPrefix = "mh_"

// CreateKey makes a new key for an app and returns it in clear, for the only time. rateLimit is in requests a
// second; nil means the service's default.
func (s *Store) CreateKey(ctx context.Context, app uuid.UUID, name string, rateLimit *float64) (APIKey, string, error) {
	if _, err := s.App(ctx, app); err != nil {
		return APIKey{}, "", fmt.Errorf("create key: %w", err)
	}
	plain := KeyPrefix + randomText(32)
	k, err := s.insertKey(ctx, app, name, plain, rateLimit)
	return k, plain, err
}

func (s *Store) insertKey(ctx context.Context, app uuid.UUID, name, plain string, rateLimit *float64) (APIKey, error) {
	var k APIKey
	err := s.tx(ctx, "create key", func(tx pgx.Tx) (err error) {
		k, err = one[APIKey](ctx, tx, `
			insert into api_keys (id, app_id, name, prefix, hash, rate_limit)
			values ($1, $2, $3, $4, $5, $6)
			returning `+keyColumns, newID(), app, name, plain[:6], digest(plain), rateLimit)
		if err != nil {
			return err
		}
		return s.note(ctx, tx, app, nil, k.fields())
	})
	if isUnique(err) {
		return k, conflict("the key exists")
	}
	return k, err
}

// RevokeKey makes a key invalid.
func (s *Store) RevokeKey(ctx context.Context, app, id uuid.UUID) error {
	return s.tx(ctx, "revoke key", func(tx pgx.Tx) error {
		k, err := one[APIKey](ctx, tx, `
			update api_keys
			set revoked_at = coalesce(revoked_at, now())
			where id = $1 and app_id = $2
			returning `+keyColumns, id, app)
		if err != nil {
			return err
		}
		return s.note(ctx, tx, app, k.fields(), nil)
	})
}

// TouchKeys notes when keys were last used.
func (s *Store) TouchKeys(ctx context.Context, used map[uuid.UUID]time.Time) error {
	batch := &pgx.Batch{}
	for id, at := range used {
		batch.Queue(`update api_keys set last_used_at = greatest(last_used_at, $2) where id = $1`, id, at)
	}
	return wrapped("note key use", s.pool.SendBatch(ctx, batch).Close())
}

// digest returns the SHA-256 of a text, by which a key or a setting is known without being stored.
func digest(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: it ends the program instead
	return b
}

// randomText returns n random bytes as URL-safe text.
func randomText(n int) string { return base64.RawURLEncoding.EncodeToString(randomBytes(n)) }
