package store

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Endpoint reads one endpoint.
func (s *Store) Endpoint(ctx context.Context, scope Scope, id uuid.UUID) (Endpoint, error) {
	rows, err := s.pool.Query(ctx, `
			select `+endpointColumns+`
			from endpoints e
			where e.id = $1 and ($2::uuid is null or e.app_id = $2) and e.deleted_at is null`, id, scope.arg())
	return one[Endpoint](rows, err)
}

// Endpoints lists endpoints, newest first.
func (s *Store) Endpoints(ctx context.Context, scope Scope, p Page) ([]Endpoint, error) {
	rows, err := s.pool.Query(ctx, `
		select `+endpointColumns+`
		from endpoints e
		where e.id < $1 and e.deleted_at is null and ($2::uuid is null or e.app_id = $2)
		order by e.id desc
		limit $3`, p.before(), scope.arg(), p.Limit)
	list, err := many[Endpoint](rows, err)
	if err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	return list, nil
}

// HeaderNames returns the names of an endpoint's custom headers; their values stay sealed.
func (s *Store) HeaderNames(ep *Endpoint) ([]string, error) {
	if ep.Headers == nil {
		return nil, nil
	}
	plain, err := s.keys.Open("endpoint.headers", ep.Headers)
	if err != nil {
		return nil, err
	}
	var headers map[string]string
	if err := json.Unmarshal(plain, &headers); err != nil {
		return nil, fmt.Errorf("read headers: %w", err)
	}
	names := make([]string, 0, len(headers))
	for name := range headers {
		names = append(names, name)
	}
	return names, nil
}

// Queued counts an endpoint's parked deliveries.
func (s *Store) Queued(ctx context.Context, endpoint uuid.UUID) (n int, err error) {
	err = s.pool.QueryRow(ctx, `select count(*) from deliveries where endpoint_id = $1 and parked`, endpoint).Scan(&n)
	return n, err
}

// Receiver is an endpoint with all that a delivery to it needs, in clear.
type Receiver struct {
	Endpoint
	Secrets       [][]byte           // the newest first
	SigningKey    ed25519.PrivateKey // of the app
	CustomHeaders map[string]string  // of the operator's choice
}

// Receivers reads endpoints for sending; unknown and deleted ones are left out.
func (s *Store) Receivers(ctx context.Context, ids []uuid.UUID) ([]Receiver, error) {
	type row struct {
		Endpoint
		Secret, OldSecret  []byte
		OldSecretExpiresAt *time.Time
		SigningKey         []byte
	}
	rows, err := s.pool.Query(ctx, `
		select `+endpointColumns+`, e.secret, e.old_secret, e.old_secret_expires_at, a.signing_key
		from endpoints e
		join apps a on a.id = e.app_id
		where e.id = any($1) and e.deleted_at is null`, ids)
	found, err := many[row](rows, err)
	if err != nil {
		return nil, fmt.Errorf("read receivers: %w", err)
	}
	out := make([]Receiver, len(found))
	for i, r := range found {
		out[i].Endpoint = r.Endpoint
		if out[i].Secrets, err = s.openSecrets(r.Secret, r.OldSecret, r.OldSecretExpiresAt); err != nil {
			return nil, err
		}
		seed, err := s.keys.Open("app.signing_key", r.SigningKey)
		if err != nil {
			return nil, err
		}
		out[i].SigningKey = ed25519.NewKeyFromSeed(seed)
		if r.Headers != nil {
			plain, err := s.keys.Open("endpoint.headers", r.Headers)
			if err != nil {
				return nil, err
			}
			if err := json.Unmarshal(plain, &out[i].CustomHeaders); err != nil {
				return nil, fmt.Errorf("read headers: %w", err)
			}
		}
	}
	return out, nil
}
