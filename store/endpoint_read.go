package store

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

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
		where e.id < $1 and e.id > $4 and e.deleted_at is null and ($2::uuid is null or e.app_id = $2)
		order by e.id `+p.order()+`
		limit $3`, p.high(), scope.arg(), p.Limit, p.low())
	list, err := many[Endpoint](rows, err)
	if err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	return newestFirst(p, list), nil
}

// HeaderNames returns the names of an endpoint's custom headers; their values stay sealed.
func (s *Store) HeaderNames(ep *Endpoint) ([]string, error) {
	headers, err := s.openHeaders(ep)
	return slices.Collect(maps.Keys(headers)), err
}

// Queued counts an endpoint's parked deliveries.
func (s *Store) Queued(ctx context.Context, endpoint uuid.UUID) (n int, err error) {
	err = s.pool.QueryRow(ctx, `select count(*) from deliveries where endpoint_id = $1 and parked`, endpoint).Scan(&n)
	return n, err
}

// Receiver is an endpoint with all that a delivery to it needs, in clear.
type Receiver struct {
	Endpoint
	Secrets       [][]byte             // the newest first
	SigningKeys   []ed25519.PrivateKey // the newest first; none unless the endpoint's signatures include v1a
	CustomHeaders map[string]string    // of the operator's choice
	Broken        error                // a secret or header could not be decrypted: nothing can be sent
}

// Receivers reads endpoints for sending. Unknown and deleted ones are left out.
func (s *Store) Receivers(ctx context.Context, ids []uuid.UUID) ([]Receiver, error) {
	type row struct {
		Endpoint
		sealedSecrets
	}
	rows, err := s.pool.Query(ctx, `
		select `+endpointColumns+`, `+secretColumns+`
		from endpoints e
		join apps a on a.id = e.app_id
		where e.id = any($1) and e.deleted_at is null`, ids)
	found, err := many[row](rows, err)
	if err != nil {
		return nil, fmt.Errorf("read receivers: %w", err)
	}
	out := make([]Receiver, len(found))
	for i, r := range found {
		out[i] = s.receiver(r.Endpoint, r.sealedSecrets)
	}
	return out, nil
}

// receiver decrypts an endpoint's secrets and headers. A failure is kept in Broken and concerns this endpoint only.
func (s *Store) receiver(ep Endpoint, sealed sealedSecrets) Receiver {
	r := Receiver{Endpoint: ep}
	if r.Secrets, r.Broken = s.openSecrets(sealed); r.Broken == nil && ep.Signs(SignatureEd25519) {
		r.SigningKeys, r.Broken = s.openKeys(sealed)
	}
	if r.Broken == nil {
		r.CustomHeaders, r.Broken = s.openHeaders(&ep)
	}
	return r
}

func (s *Store) openHeaders(ep *Endpoint) (headers map[string]string, err error) {
	if ep.Headers == nil {
		return nil, nil
	}
	plain, err := s.keys.Open("endpoint.headers", ep.Headers)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(plain, &headers); err != nil {
		return nil, fmt.Errorf("read headers: %w", err)
	}
	return headers, nil
}
