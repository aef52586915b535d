package store

import (
	"cmp"
	"context"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// EndpointSettings are what its owner chooses of an endpoint. In a change, nil leaves a field as it is.
type EndpointSettings struct {
	URL         *string // in normal form, without a query
	Description *string
	Enabled     *bool
	EventTypes  *[]string          // empty: all events of its tasks
	Headers     map[string]*string // nil: as they are; a nil value keeps the header that is there
	RateLimit   *float64           // deliveries a second; 0: none
	Signatures  *[]string
	Secret      []byte // of a new endpoint; nil makes one
}

// CreateEndpoint creates an endpoint. One for the same URL is ErrConflict. One whose URL ends in /* takes over the endpoints
// below it that no app has created or changed.
func (s *Store) CreateEndpoint(ctx context.Context, app uuid.UUID, set EndpointSettings) (Endpoint, error) {
	secret := s.newSecret()
	if set.Secret != nil {
		secret = s.keys.Seal("endpoint.secret", set.Secret)
	}
	var ep Endpoint
	err := s.tx(ctx, "create endpoint", func(tx pgx.Tx) error {
		if apps, err := lockApps(ctx, tx, []uuid.UUID{app}, appLockFor(*set.URL)); err != nil || len(apps) == 0 {
			return cmp.Or(err, ErrNotFound)
		}
		id := newID()
		_, err := tx.Exec(ctx, `
			insert into endpoints (id, app_id, url, secret, named, manual) values ($1, $2, $3, $4, true, true)`, id, app, *set.URL, secret)
		if err != nil {
			return err
		}
		if ep, err = lockEndpoint(ctx, tx, OfApp(app), id); err != nil {
			return err
		}
		others := set
		others.URL = nil
		if err := s.changeEndpoint(ctx, tx, &ep, others); err != nil {
			return err
		}
		if err := s.note(ctx, tx, id, nil, ep.fields()); err != nil || !isWildcard(ep.URL) {
			return err
		}
		return s.absorb(ctx, tx, &ep)
	})
	if isUnique(err) {
		err = s.urlTaken(ctx, app, *set.URL)
	}
	return ep, err
}

// appLockFor returns how the creation of an endpoint locks its app. One that ends in /* waits for the registrations that are
// under way, whose endpoints it takes over, and lets the next ones wait for itself.
func appLockFor(url string) string {
	if isWildcard(url) {
		return "for no key update"
	}
	return "for share"
}

// urlTaken says which endpoint of the app has the URL. It takes a connection, so no transaction of the caller's may be open:
// callers that each hold one and wait for another would wait for one another.
func (s *Store) urlTaken(ctx context.Context, app uuid.UUID, url string) error {
	var id uuid.UUID
	err := s.pool.QueryRow(ctx, `select id from endpoints where app_id = $1 and url = $2 and deleted_at is null`, app, url).Scan(&id)
	if err != nil {
		return conflict("another endpoint has this URL")
	}
	return conflict("the endpoint %s has this URL; change that one with PATCH", id)
}

// UpdateEndpoint changes an endpoint.
func (s *Store) UpdateEndpoint(ctx context.Context, scope Scope, id uuid.UUID, set EndpointSettings) (ep Endpoint, err error) {
	err = s.tx(ctx, "update endpoint", func(tx pgx.Tx) error {
		if ep, err = lockEndpoint(ctx, tx, scope, id); err != nil {
			return err
		}
		before := ep
		if err := s.changeEndpoint(ctx, tx, &ep, set); err != nil {
			return err
		}
		after := ep.fields()
		if before.Headers != nil && ep.Headers != nil && set.Headers != nil {
			after["headers"] = replaced
		}
		return s.note(ctx, tx, id, before.fields(), after)
	})
	if isUnique(err) {
		err = s.urlTaken(ctx, ep.AppID, ep.URL)
	}
	return ep, err
}

// lockEndpoint reads an endpoint and keeps others from changing it until the transaction ends.
func lockEndpoint(ctx context.Context, tx pgx.Tx, scope Scope, id uuid.UUID) (Endpoint, error) {
	return readEndpoint(ctx, tx, scope, id, "for no key update")
}

// changeEndpoint changes an endpoint that the caller has locked.
func (s *Store) changeEndpoint(ctx context.Context, tx pgx.Tx, ep *Endpoint, set EndpointSettings) error {
	if err := s.choose(ep, set); err != nil {
		return err
	}
	var signingKey []byte
	if ep.Signs(SignatureEd25519) {
		signingKey = s.newSigningKey()
	}
	_, err := tx.Exec(ctx, `
		update endpoints
		set url = $2, description = $3, event_types = $4, rate_limit = $5, headers = $6, manual = $7, signatures = $8,
			signing_key = case when 'v1a' = any(signatures) then signing_key else coalesce(signing_key, $9) end
		where id = $1`,
		ep.ID, ep.URL, ep.Description, ep.EventTypes, ep.RateLimit, ep.Headers, ep.Manual, ep.Signatures, signingKey)
	if err != nil {
		return err
	}
	if set.Enabled != nil {
		if err := s.enable(ctx, tx, ep, *set.Enabled); err != nil {
			return err
		}
	}
	return saveHealth(ctx, tx, []*Endpoint{ep})
}

// choose applies an owner's settings but for Enabled.
func (s *Store) choose(ep *Endpoint, set EndpointSettings) error {
	ep.Manual = ep.Manual || set.Secret != nil || set.URL != nil || set.Description != nil || set.EventTypes != nil || set.Headers != nil ||
		set.RateLimit != nil || set.Signatures != nil
	if set.URL != nil {
		if isWildcard(*set.URL) != isWildcard(ep.URL) {
			return conflict("an endpoint whose URL ends in /* cannot become one without, nor the other way round; create another")
		}
		ep.URL = *set.URL
	}
	if set.Description != nil {
		ep.Description = *set.Description
	}
	if set.EventTypes != nil {
		ep.EventTypes = *set.EventTypes
		if len(ep.EventTypes) == 0 {
			ep.EventTypes = nil
		}
	}
	if set.RateLimit != nil {
		ep.RateLimit = set.RateLimit
		if *set.RateLimit == 0 {
			ep.RateLimit = nil
		}
	}
	if set.Signatures != nil {
		ep.Signatures = *set.Signatures
	}
	if set.Headers == nil {
		return nil
	}
	known, err := s.openHeaders(ep)
	if err != nil {
		return err
	}
	stored := make(map[string]string, len(known)) // the case of a header's name does not matter
	for name, value := range known {
		stored[strings.ToLower(name)] = value
	}
	headers := make(map[string]string, len(set.Headers))
	for name, value := range set.Headers {
		if value != nil {
			headers[name] = *value
		} else if old, ok := stored[strings.ToLower(name)]; ok {
			headers[name] = old
		} else {
			return NoHeaderError{name}
		}
	}
	ep.Headers = nil
	if len(headers) > 0 {
		ep.Headers = s.keys.Seal("endpoint.headers", []byte(toJSON(headers)))
	}
	return nil
}

// enable turns an endpoint on, with a closed breaker and all that waits for it due at once, or off. Of one that is on and healthy
// something may wait too: a receiver can fail now and then.
func (s *Store) enable(ctx context.Context, tx pgx.Tx, ep *Endpoint, on bool) error {
	if !on {
		return s.emitAll(ctx, tx, ep, ep.disable(DisabledByHand), s.now())
	}
	well := ep.Enabled && ep.Healthy()
	ep.Enabled, ep.DisabledReason = true, nil
	ep.recovered()
	if err := s.makeDue(ctx, tx, ep); err != nil || well {
		return err
	}
	if err := raise(ctx, tx, []Change{{Kind: EventEndpointRecovered, EndpointID: ep.ID, URL: ep.URL}}, s.now()); err != nil {
		return err
	}
	return s.emitForEndpoint(ctx, tx, ep, EventEndpointRecovered, s.now())
}

// TestEndpoint sends webhook.test to an endpoint now, even while its breaker is open, and returns the delivery's id.
func (s *Store) TestEndpoint(ctx context.Context, scope Scope, id uuid.UUID) (delivery uuid.UUID, err error) {
	err = s.tx(ctx, "test endpoint", func(tx pgx.Tx) error {
		ep, err := lockEndpoint(ctx, tx, scope, id)
		if err != nil {
			return err
		}
		if !ep.Enabled {
			return conflict("the endpoint is disabled; enable it first: POST /endpoints/%s/enable", id)
		}
		event := Event{AppID: ep.AppID, Type: EventTest, CreatedAt: s.now(), Endpoint: &ep}
		// Parked, so that it has no shared job; its own job is released past rate limit and breaker.
		emissions := []emission{{event: event, to: []recipient{{EndpointID: id, Parked: true}}}}
		if err := s.emit(ctx, tx, emissions); err != nil {
			return err
		}
		err = tx.QueryRow(ctx, `
			update deliveries set parked = false, retrying = true where event_id = $1 and endpoint_id = $2
			returning id`, emissions[0].event.ID, id).Scan(&delivery)
		if err != nil {
			return err
		}
		return s.insertDeliverJobs(ctx, tx, []DeliverArgs{{DeliveryID: delivery, Released: 1}})
	})
	return delivery, err
}
