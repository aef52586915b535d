package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

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

// changeEndpoint changes an endpoint and gives it as it is then.
func (s *Store) changeEndpoint(ctx context.Context, tx pgx.Tx, scope Scope, id uuid.UUID, set EndpointSettings) (Endpoint, error) {
	rows, err := tx.Query(ctx, `
		select `+endpointColumns+` from endpoints e where e.id = $1 and ($2::uuid is null or e.app_id = $2) and e.deleted_at is null for no key update`, id, scope.arg())
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
		tag, err := tx.Exec(ctx, `update endpoints set deleted_at = now(), backlog = false where id = $1 and ($2::uuid is null or app_id = $2) and deleted_at is null`, id, scope.arg())
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

// HeaderNames gives the names of an endpoint's custom headers; their values stay sealed.
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

// TestEndpoint sends webhook.test to an endpoint now and returns the delivery's id.
func (s *Store) TestEndpoint(ctx context.Context, scope Scope, id uuid.UUID) (delivery uuid.UUID, err error) {
	err = s.tx(ctx, "test endpoint", func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `select `+endpointColumns+` from endpoints e where e.id = $1 and ($2::uuid is null or e.app_id = $2) and e.deleted_at is null for no key update`, id, scope.arg())
		ep, err := one[Endpoint](rows, err)
		if err != nil {
			return err
		}
		if !ep.Enabled {
			return fmt.Errorf("%w: the endpoint is disabled; enable it first", ErrConflict)
		}
		e := emission{event: Event{AppID: ep.AppID, Type: EventTest, CreatedAt: s.now(), Endpoint: &ep}, targets: []target{{EndpointID: id}}}
		emissions := []emission{e}
		if err := s.emit(ctx, tx, emissions); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `select id from deliveries where event_id = $1 and endpoint_id = $2`, emissions[0].event.ID, id).Scan(&delivery)
	})
	return delivery, err
}

// recoverBatch is how many failed deliveries a transaction takes up again.
const recoverBatch = 2000

// Recover takes up again all deliveries of an endpoint that have failed since a time, and tells how
// many. They wait in the table and are released as the endpoint takes them, so that new ones are not
// held up.
func (s *Store) Recover(ctx context.Context, scope Scope, endpoint uuid.UUID, since time.Time) (n int, err error) {
	if _, err := s.Endpoint(ctx, scope, endpoint); err != nil {
		return 0, err
	}
	for {
		var batch int64
		err := s.tx(ctx, "recover", func(tx pgx.Tx) error {
			if err := lockBacklog(ctx, tx, []uuid.UUID{endpoint}); err != nil {
				return err
			}
			// What failed after since was made at most the retry schedule before it, which nothing bounds; the
			// failed ones are few and indexed, so their last attempt is what is asked.
			tag, err := tx.Exec(ctx, `
				update deliveries
				set status = 'pending', failed = false, parked = true, round_start = attempt_count, next_attempt_at = $3
				where id in (
					select d.id
					from deliveries d
					where d.endpoint_id = $1 and d.failed
						and exists (select 1 from attempts a where a.delivery_id = d.id and a.number = d.attempt_count and a.at >= $2)
					order by d.id
					limit $4
					for update skip locked
				)`, endpoint, since, s.now(), recoverBatch)
			batch = tag.RowsAffected()
			return err
		})
		n += int(batch)
		if err != nil || batch < recoverBatch {
			return n, err
		}
	}
}

// Queued tells how many of an endpoint's deliveries are parked.
func (s *Store) Queued(ctx context.Context, endpoint uuid.UUID) (n int, err error) {
	err = s.pool.QueryRow(ctx, `select count(*) from deliveries where endpoint_id = $1 and parked`, endpoint).Scan(&n)
	return n, err
}
