package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// EndpointSettings are what its owner chooses of an endpoint. In a change, nil leaves a field as it is.
type EndpointSettings struct {
	URL         *string
	Description *string
	Enabled     *bool
	EventTypes  *[]string // an empty list means all events of its tasks
	Headers     *map[string]string
	RateLimit   *float64 // deliveries a second; 0 means none
	Secret      []byte   // of a new endpoint; nil makes one
}

// CreateEndpoint creates an endpoint. A URL that the app has an endpoint for is ErrConflict.
func (s *Store) CreateEndpoint(ctx context.Context, app uuid.UUID, set EndpointSettings) (Endpoint, error) {
	secret := s.newSecret()
	if set.Secret != nil {
		secret = s.keys.Seal("endpoint.secret", set.Secret)
	}
	var ep Endpoint
	err := s.tx(ctx, "create endpoint", func(tx pgx.Tx) error {
		id := newID()
		_, err := tx.Exec(ctx, `insert into endpoints (id, app_id, url, secret) values ($1, $2, $3, $4)`, id, app, *set.URL, secret)
		if isUnique(err) {
			return fmt.Errorf("%w: there is an endpoint for this URL", ErrConflict)
		}
		if err != nil {
			return err
		}
		ep, err = s.changeEndpoint(ctx, tx, OfApp(app), id, set)
		return err
	})
	return ep, err
}

// UpdateEndpoint changes an endpoint.
func (s *Store) UpdateEndpoint(ctx context.Context, scope Scope, id uuid.UUID, set EndpointSettings) (ep Endpoint, err error) {
	err = s.tx(ctx, "update endpoint", func(tx pgx.Tx) error {
		ep, err = s.changeEndpoint(ctx, tx, scope, id, set)
		return err
	})
	return ep, err
}

// changeEndpoint changes an endpoint and returns it as changed.
func (s *Store) changeEndpoint(ctx context.Context, tx pgx.Tx, scope Scope, id uuid.UUID, set EndpointSettings) (Endpoint, error) {
	rows, err := tx.Query(ctx, `
		select `+endpointColumns+`
		from endpoints e
		where e.id = $1 and ($2::uuid is null or e.app_id = $2) and e.deleted_at is null
		for no key update`, id, scope.arg())
	ep, err := one[Endpoint](rows, err)
	if err != nil {
		return ep, err
	}
	if set.URL != nil {
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
	if set.Headers != nil {
		ep.Headers = nil
		if len(*set.Headers) > 0 {
			plain, err := json.Marshal(*set.Headers)
			if err != nil {
				return ep, fmt.Errorf("encode headers: %w", err)
			}
			ep.Headers = s.keys.Seal("endpoint.headers", plain)
		}
	}
	if set.Enabled != nil && *set.Enabled != ep.Enabled {
		if err := s.enable(ctx, tx, &ep, *set.Enabled); err != nil {
			return ep, err
		}
	}
	_, err = tx.Exec(ctx, `
		update endpoints set url = $2, description = $3, event_types = $4, rate_limit = $5, headers = $6
		where id = $1`, id, ep.URL, ep.Description, ep.EventTypes, ep.RateLimit, ep.Headers)
	if isUnique(err) {
		return ep, fmt.Errorf("%w: there is an endpoint for this URL", ErrConflict)
	}
	if err != nil {
		return ep, err
	}
	return ep, saveHealth(ctx, tx, []*Endpoint{&ep})
}

// enable turns an endpoint on, with a closed breaker, or off. What was parked while it was off is
// released as soon as it is on.
func (s *Store) enable(ctx context.Context, tx pgx.Tx, ep *Endpoint, on bool) error {
	if !on {
		for _, eventType := range ep.disable(DisabledByHand) {
			if err := s.emitForEndpoint(ctx, tx, ep, eventType, s.now()); err != nil {
				return err
			}
		}
		return nil
	}
	ep.Enabled, ep.DisabledReason = true, nil
	ep.Breaker, ep.Failures, ep.Probes, ep.FailingSince, ep.HoldUntil = BreakerClosed, 0, 0, nil, nil
	return s.emitForEndpoint(ctx, tx, ep, EventEndpointRecovered, s.now())
}

// EnableEndpoint turns an endpoint on or off.
func (s *Store) EnableEndpoint(ctx context.Context, scope Scope, id uuid.UUID, on bool) (Endpoint, error) {
	return s.UpdateEndpoint(ctx, scope, id, EndpointSettings{Enabled: &on})
}

// DeleteEndpoint deletes an endpoint with its subscriptions; what it had still to get is cancelled.
func (s *Store) DeleteEndpoint(ctx context.Context, scope Scope, id uuid.UUID) error {
	return s.tx(ctx, "delete endpoint", func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `
				update endpoints
				set deleted_at = now(), backlog = false
				where id = $1 and ($2::uuid is null or app_id = $2) and deleted_at is null`, id, scope.arg())
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrNotFound
		}
		if _, err := tx.Exec(ctx, `delete from subscriptions where endpoint_id = $1`, id); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			update deliveries set status = 'cancelled', cancelled = true, parked = false, next_attempt_at = null
			where endpoint_id = $1 and status = 'pending'`, id)
		return err
	})
}

// TestEndpoint sends webhook.test to an endpoint now and returns the delivery's id.
func (s *Store) TestEndpoint(ctx context.Context, scope Scope, id uuid.UUID) (delivery uuid.UUID, err error) {
	err = s.tx(ctx, "test endpoint", func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
				select `+endpointColumns+`
				from endpoints e
				where e.id = $1 and ($2::uuid is null or e.app_id = $2) and e.deleted_at is null for no key update`, id, scope.arg())
		ep, err := one[Endpoint](rows, err)
		if err != nil {
			return err
		}
		if !ep.Enabled {
			return fmt.Errorf("%w: the endpoint is disabled; enable it first", ErrConflict)
		}
		event := Event{AppID: ep.AppID, Type: EventTest, CreatedAt: s.now(), Endpoint: &ep}
		emissions := []emission{{event: event, to: []recipient{{EndpointID: id}}}}
		if err := s.emit(ctx, tx, emissions); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `
				select id
				from deliveries
				where event_id = $1 and endpoint_id = $2`, emissions[0].event.ID, id).Scan(&delivery)
	})
	return delivery, err
}
