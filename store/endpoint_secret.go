package store

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// secretSize is the size of the signing secrets that are made here, in bytes.
const secretSize = 32

func (s *Store) newSecret() []byte { return s.keys.Seal("endpoint.secret", randomBytes(secretSize)) }

// newSigningKey returns the sealed seed of a new ed25519 key.
func (s *Store) newSigningKey() []byte {
	return s.keys.Seal("endpoint.signing_key", randomBytes(ed25519.SeedSize))
}

// sealedSecrets are the secrets and keys of an endpoint as they are stored.
type sealedSecrets struct {
	Secret, OldSecret         []byte
	SigningKey, OldSigningKey []byte
	OldSecretExpiresAt        *time.Time
	AppKey                    []byte   // signs where the endpoint, made by an earlier version, has no key of its own
	Merged                    [][]byte // secrets of endpoints that were merged into this one
}

// mergedMost is how many secrets of merged endpoints sign every delivery. Beyond it, one signs the deliveries with its
// suffix alone.
const mergedMost = 15

// sealedEndpoint is an endpoint with its secrets.
type sealedEndpoint struct {
	Endpoint
	sealedSecrets
	Known bool // somebody has read its secret
}

// selectSealed is the SQL that reads a sealedEndpoint for each endpoint e that fulfils the condition which follows.
var selectSealed = fmt.Sprintf(`
	select `+endpointColumns+`, e.secret, e.old_secret, e.signing_key, e.old_signing_key, e.old_secret_expires_at, a.signing_key as app_key,
	array(
		select x.secret from endpoint_secrets x
		where x.endpoint_id = e.id and (x.expires_at is null or x.expires_at > now())
		order by x.id limit %d
	) as merged, e.secret_read_at is not null as known
	from endpoints e
	join apps a on a.id = e.app_id
	where e.deleted_at is null and `, mergedMost)

// overlaps reports whether the secret that was replaced still signs.
func (s sealedSecrets) overlaps(now time.Time) bool {
	return s.OldSecretExpiresAt != nil && s.OldSecretExpiresAt.After(now)
}

// openSecrets returns the secrets that sign now, the newest first, in clear.
func (s *Store) openSecrets(sealed sealedSecrets) (secrets [][]byte, err error) {
	all := [][]byte{sealed.Secret}
	if sealed.OldSecret != nil && sealed.overlaps(s.now()) {
		all = append(all, sealed.OldSecret)
	}
	return s.OpenSecrets(append(all, sealed.Merged...))
}

// OpenSecrets opens secrets of endpoints, such as a delivery's MergedSecrets.
func (s *Store) OpenSecrets(sealed [][]byte) (secrets [][]byte, err error) {
	for _, one := range sealed {
		plain, err := s.keys.Open("endpoint.secret", one)
		if err != nil {
			return nil, err
		}
		secrets = append(secrets, plain)
	}
	return secrets, nil
}

// openKeys returns the ed25519 keys that sign now, the newest first.
func (s *Store) openKeys(sealed sealedSecrets) (keys []ed25519.PrivateKey, err error) {
	open := func(place string, value []byte) {
		if err != nil || value == nil {
			return
		}
		var seed []byte
		if seed, err = s.keys.Open(place, value); err == nil {
			keys = append(keys, ed25519.NewKeyFromSeed(seed))
		}
	}
	open("endpoint.signing_key", sealed.SigningKey)
	if sealed.SigningKey == nil {
		open("app.signing_key", sealed.AppKey)
	} else if sealed.overlaps(s.now()) {
		open("endpoint.signing_key", sealed.OldSigningKey)
	}
	return keys, err
}

// readSecrets reads what is given to a receiver. It notes that it was read: from then on the endpoint is not purged as idle, since
// the next one of its URL would sign with another secret.
func (s *Store) readSecrets(ctx context.Context, scope Scope, id uuid.UUID) (sealedEndpoint, error) {
	e, err := one[sealedEndpoint](ctx, s.pool, selectSealed+`e.id = $1 and ($2::uuid is null or e.app_id = $2)`, id, scope.arg())
	if err != nil || e.Known {
		return e, err
	}
	tag, err := s.pool.Exec(ctx, `update endpoints set secret_read_at = now() where id = $1 and deleted_at is null`, id)
	if err == nil && tag.RowsAffected() == 0 {
		err = ErrNotFound // it was purged or deleted just now
	}
	return e, wrapped("note that the secret was read", err)
}

// Secrets returns the secrets that sign for an endpoint now, the newest first, in clear.
func (s *Store) Secrets(ctx context.Context, scope Scope, id uuid.UUID) ([][]byte, error) {
	sealed, err := s.readSecrets(ctx, scope, id)
	if err != nil {
		return nil, err
	}
	return s.openSecrets(sealed.sealedSecrets)
}

// PublicKey returns the ed25519 key that verifies an endpoint's v1a signatures. It is ErrConflict where the endpoint's
// signatures do not include v1a.
func (s *Store) PublicKey(ctx context.Context, scope Scope, id uuid.UUID) (ed25519.PublicKey, error) {
	sealed, err := s.readSecrets(ctx, scope, id)
	if err != nil {
		return nil, err
	}
	if !sealed.Signs(SignatureEd25519) {
		return nil, conflict("the endpoint's signatures do not include v1a; add it with PATCH")
	}
	keys, err := s.openKeys(sealed.sealedSecrets)
	if err != nil {
		return nil, err
	}
	return keys[0].Public().(ed25519.PublicKey), nil //nolint:forcetypeassert // crypto/ed25519 says that it is one
}

// RotateSecret generates a new secret for an endpoint, and a new signing key if it has v1a, and returns the secret. During
// overlap the old ones sign, too, and those of endpoints that were merged into it.
func (s *Store) RotateSecret(ctx context.Context, scope Scope, id uuid.UUID, overlap time.Duration) ([]byte, error) {
	sealed, until := s.newSecret(), s.now().Add(overlap)
	err := s.tx(ctx, "rotate secret", func(tx pgx.Tx) error {
		if err := s.takeAppKey(ctx, tx, scope, id); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `
			update endpoints e
			set old_secret = case when $4 > now() then secret end, old_signing_key = case when $4 > now() then e.signing_key end,
				old_secret_expires_at = $4, secret = $3, signing_key = $5, manual = true
			where id = $1 and ($2::uuid is null or app_id = $2) and deleted_at is null`,
			id, scope.arg(), sealed, until, s.newSigningKey())
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrNotFound
		}
		if err := s.note(ctx, tx, id, fields{"secret": hidden}, fields{"secret": replaced, "old_secret_until": until.UTC()}); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `update endpoint_secrets set expires_at = $2 where endpoint_id = $1 and expires_at is null`, id, until)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.keys.Open("endpoint.secret", sealed)
}

// takeAppKey makes the app's signing key the endpoint's own, where the endpoint, made by an earlier version, signs with that: so it
// can be the old one of a rotation.
func (s *Store) takeAppKey(ctx context.Context, tx pgx.Tx, scope Scope, id uuid.UUID) error {
	var sealed []byte
	err := tx.QueryRow(ctx, `
		select a.signing_key
		from endpoints e
		join apps a on a.id = e.app_id
		where e.id = $1 and ($2::uuid is null or e.app_id = $2) and e.signing_key is null and $3 = any(e.signatures)
		for no key update of e`, id, scope.arg(), SignatureEd25519).Scan(&sealed)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the app's signing key: %w", err)
	}
	seed, err := s.keys.Open("app.signing_key", sealed)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `update endpoints set signing_key = $2 where id = $1`, id, s.keys.Seal("endpoint.signing_key", seed))
	return wrapped("take the app's signing key", err)
}
