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
	return readEndpoint(ctx, s.pool, scope, id, "")
}

// readEndpoint reads an endpoint, and locks it so if lock says how.
func readEndpoint(ctx context.Context, q querier, scope Scope, id uuid.UUID, lock string) (Endpoint, error) {
	return one[Endpoint](ctx, q, `
		select `+endpointColumns+`
		from endpoints e
		where e.id = $1 and ($2::uuid is null or e.app_id = $2) and e.deleted_at is null
		`+lock, id, scope.arg())
}

// EndpointFilter narrows a list of endpoints; zero fields do not.
type EndpointFilter struct {
	Scope    Scope // whose endpoints
	Troubled bool  // those that are disabled, failing or behind
}

// Endpoints lists endpoints, newest first.
func (s *Store) Endpoints(ctx context.Context, f EndpointFilter, p Page) ([]Endpoint, error) {
	troubled := ""
	if f.Troubled {
		troubled = ` and (not e.enabled or e.breaker <> 'closed' or e.backlog or e.failing_since is not null)`
	}
	list, err := many[Endpoint](ctx, s.pool, `
		select `+endpointColumns+`
		from endpoints e
		where e.id < $1 and e.id > $4 and e.deleted_at is null and ($2::uuid is null or e.app_id = $2)`+troubled+`
		order by e.id `+p.order()+`
		limit $3`, p.high(), f.Scope.arg(), p.Limit, p.low())
	return newestFirst(p, list), wrapped("list endpoints", err)
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

// Receivers reads endpoints for sending, in order; nil stands for one that is unknown or deleted. Reads that come at the same
// time share a statement.
func (s *Store) Receivers(ctx context.Context, ids ...uuid.UUID) ([]*Receiver, error) {
	return s.receive.Do(ctx, ids)
}

func (s *Store) readReceiverBatch(ctx context.Context, lists [][]uuid.UUID) ([][]*Receiver, error) {
	sealed, err := many[sealedEndpoint](ctx, s.pool, selectSealed+`e.id = any($1)`, slices.Concat(lists...))
	if err != nil {
		return nil, fmt.Errorf("read receivers: %w", err)
	}
	found := make([]Receiver, len(sealed))
	for i, e := range sealed {
		found[i] = s.receiver(e.Endpoint, e.sealedSecrets)
	}
	return distribute(lists, byID(found, func(r *Receiver) uuid.UUID { return r.ID })), nil
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
