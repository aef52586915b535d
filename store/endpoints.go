package store

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// secretSize is the size of the signing secrets that are made here, in bytes.
const secretSize = 32

type endpointKey struct {
	AppID uuid.UUID
	URL   string
}

// endpointsFor gives the endpoint of each registration's callback URL, made where there is none.
func (s *Store) endpointsFor(ctx context.Context, tx pgx.Tx, news []Registration) (map[endpointKey]uuid.UUID, error) {
	found := make(map[endpointKey]uuid.UUID)
	wanted := make(map[endpointKey]bool)
	for _, n := range news {
		wanted[endpointKey{n.AppID, n.CallbackURL}] = true
	}
	missing := make([]endpointKey, 0, len(wanted))
	for k := range wanted {
		missing = append(missing, k)
	}
	slices.SortFunc(missing, func(a, b endpointKey) int {
		return cmp.Or(slices.Compare(a.AppID[:], b.AppID[:]), cmp.Compare(a.URL, b.URL))
	})
	if err := readEndpointIDs(ctx, tx, missing, found); err != nil {
		return nil, err
	}
	missing = slices.DeleteFunc(missing, func(k endpointKey) bool { return found[k] != uuid.Nil })
	if len(missing) == 0 {
		return found, nil
	}
	batch := &pgx.Batch{}
	for _, k := range missing {
		batch.Queue(`
			insert into endpoints (id, app_id, url, secret)
			values ($1, $2, $3, $4)
			on conflict (app_id, url) where deleted_at is null do nothing`, newID(), k.AppID, k.URL, s.newSecret())
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("insert endpoints: %w", err)
	}
	return found, readEndpointIDs(ctx, tx, missing, found)
}

func readEndpointIDs(ctx context.Context, tx pgx.Tx, keys []endpointKey, found map[endpointKey]uuid.UUID) error {
	apps, urls := make([]uuid.UUID, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		apps[i], urls[i] = k.AppID, k.URL
	}
	rows, err := tx.Query(ctx, `
		select e.id, e.app_id, e.url
		from endpoints e
		join unnest($1::uuid[], $2::text[]) as k (app_id, url) on e.app_id = k.app_id and e.url = k.url
		where e.deleted_at is null`, apps, urls)
	if err != nil {
		return fmt.Errorf("read endpoints: %w", err)
	}
	var id uuid.UUID
	var k endpointKey
	_, err = pgx.ForEachRow(rows, []any{&id, &k.AppID, &k.URL}, func() error {
		found[k] = id
		return nil
	})
	if err != nil {
		return fmt.Errorf("read endpoints: %w", err)
	}
	return nil
}

func (s *Store) newSecret() []byte {
	secret := make([]byte, secretSize)
	_, _ = rand.Read(secret) // never fails: it ends the program instead
	return s.keys.Seal("endpoint.secret", secret)
}

// Endpoint reads one endpoint.
func (s *Store) Endpoint(ctx context.Context, scope Scope, id uuid.UUID) (Endpoint, error) {
	rows, err := s.pool.Query(ctx, `select `+endpointColumns+` from endpoints e where e.id = $1 and ($2::uuid is null or e.app_id = $2) and e.deleted_at is null`, id, scope.arg())
	return one[Endpoint](rows, err)
}

// Secrets gives the secrets that sign for an endpoint now, the newest first, in clear.
func (s *Store) Secrets(ctx context.Context, scope Scope, id uuid.UUID) ([][]byte, error) {
	var secret, old []byte
	var oldUntil *time.Time
	rows, err := s.pool.Query(ctx, `select secret, old_secret, old_secret_expires_at from endpoints where id = $1 and ($2::uuid is null or app_id = $2) and deleted_at is null`, id, scope.arg())
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

// saveHealth writes what results have changed of endpoints.
func saveHealth(ctx context.Context, tx pgx.Tx, endpoints []*Endpoint) error {
	batch := &pgx.Batch{}
	for _, e := range endpoints {
		batch.Queue(`
			update endpoints
			set enabled = $2, disabled_reason = $3, breaker = $4, failures = $5, probes = $6, failing_since = $7, hold_until = $8
			where id = $1`, e.ID, e.Enabled, e.DisabledReason, e.Breaker, e.Failures, e.Probes, e.FailingSince, e.HoldUntil)
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("save endpoint health: %w", err)
	}
	return nil
}

// Releasable lists the endpoints that have parked deliveries and may get some of them now.
func (s *Store) Releasable(ctx context.Context) ([]uuid.UUID, error) {
	rows, err := s.pool.Query(ctx, `
		select id from endpoints
		where backlog and enabled and deleted_at is null and (hold_until is null or hold_until <= $1)`, s.now())
	if err != nil {
		return nil, fmt.Errorf("look for parked deliveries: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
}

// Release gives up to room of an endpoint's parked deliveries their jobs, the oldest first, and tells
// how many. A rate limit grants no more than it allows; an open breaker whose time has come grants one,
// the probe.
func (s *Store) Release(ctx context.Context, endpoint uuid.UUID, room int) (released int, err error) {
	err = s.tx(ctx, "release deliveries", func(tx pgx.Tx) error {
		now := s.now()
		rows, err := tx.Query(ctx, `
			select `+endpointColumns+` from endpoints e
			where e.id = $1 and e.backlog and e.enabled and e.deleted_at is null for no key update`, endpoint)
		ep, err := one[Endpoint](rows, err)
		if err != nil {
			return ignoring(err, ErrNotFound)
		}
		if ep.HoldUntil != nil && ep.HoldUntil.After(now) {
			return nil
		}
		probe := ep.Breaker != BreakerClosed
		if probe {
			room = 1
		}
		if room, err = takeRate(ctx, tx, ep, room, now); err != nil || room == 0 {
			return err
		}
		jobs, err := unpark(ctx, tx, endpoint, room)
		if err != nil {
			return err
		}
		released = len(jobs)
		if err := s.insertDeliverJobs(ctx, tx, jobs); err != nil {
			return err
		}
		if probe && released == 1 {
			_, err := tx.Exec(ctx, `update endpoints set breaker = $2, hold_until = $3 where id = $1`, endpoint, BreakerHalfOpen, now.Add(probeTimeout))
			return err
		}
		if released < room {
			return clearBacklog(ctx, tx, endpoint)
		}
		return nil
	})
	return released, err
}

// takeRate reserves up to room deliveries of the endpoint's rate limit, of which at most a second's
// worth, or one, has gathered.
func takeRate(ctx context.Context, tx pgx.Tx, ep Endpoint, room int, now time.Time) (int, error) {
	if ep.RateLimit == nil {
		return room, nil
	}
	var granted int
	err := tx.QueryRow(ctx, `
		with s as (
			select greatest(next_slot_at, $3::timestamptz - make_interval(secs => greatest(1, 1 / rate_limit))) as since, rate_limit
			from endpoints where id = $1
		), g as (
			select since, least($2, floor(extract(epoch from $3::timestamptz - since) * rate_limit + 0.001))::int as n from s
		)
		update endpoints e set next_slot_at = g.since + make_interval(secs => g.n / e.rate_limit)
		from g
		where e.id = $1
		returning g.n`, ep.ID, room, now).Scan(&granted)
	if err != nil {
		return 0, fmt.Errorf("take rate: %w", err)
	}
	return max(granted, 0), nil
}

func unpark(ctx context.Context, tx pgx.Tx, endpoint uuid.UUID, n int) ([]DeliverArgs, error) {
	rows, err := tx.Query(ctx, `
		update deliveries
		set parked = false, generation = generation + 1
		where id in (select id from deliveries where endpoint_id = $1 and parked order by id limit $2 for update skip locked)
		returning id, generation, attempt_count + 1`, endpoint, n)
	if err != nil {
		return nil, fmt.Errorf("unpark: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (j DeliverArgs, err error) {
		return j, row.Scan(&j.DeliveryID, &j.Generation, &j.Released)
	})
}

// clearBacklog takes the mark off an endpoint that has no parked deliveries left, unless somebody is
// about to park one (see readyToPark).
func clearBacklog(ctx context.Context, tx pgx.Tx, endpoint uuid.UUID) error {
	rows, err := tx.Query(ctx, `select id from endpoints where id = $1 for update skip locked`, endpoint)
	if err != nil {
		return fmt.Errorf("clear backlog: %w", err)
	}
	locked, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil || len(locked) == 0 {
		return err
	}
	_, err = tx.Exec(ctx, `
		update endpoints set backlog = false
		where id = $1 and not exists (select 1 from deliveries where endpoint_id = $1 and parked)`, endpoint)
	if err != nil {
		return fmt.Errorf("clear backlog: %w", err)
	}
	return nil
}
