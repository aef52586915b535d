package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Until version 5 of the schema each callback URL was an endpoint of its own, in whatever form it was written. nameEndpoints
// gives those rows their names and merges the endpoints that share one. The oldest keeps its id, secret and settings. What
// is pending or has failed moves to it at once, what was delivered follows in batches (MoveMerged), and the merged endpoints
// are deleted. The merged secrets sign on until the endpoint's secret is rotated, so that each receiver verifies as before.

// nameEndpoints names and merges the endpoints that a version before has created, and returns the number of those that
// were merged into others. normalize returns a URL's normal form; a URL that has none keeps its own.
func (s *Store) nameEndpoints(ctx context.Context, normalize func(string) (string, error)) (merged int, err error) {
	for {
		var app uuid.UUID
		err := s.pool.QueryRow(ctx, `select app_id from endpoints where deleted_at is null and not named limit 1`).Scan(&app)
		if err != nil {
			return merged, ignoring(err, pgx.ErrNoRows)
		}
		n, err := s.nameEndpointsOf(ctx, app, normalize)
		if merged += n; err != nil {
			return merged, fmt.Errorf("name the endpoints of app %s: %w", app, err)
		}
	}
}

// nameEndpointsOf names and merges an app's endpoints.
func (s *Store) nameEndpointsOf(ctx context.Context, app uuid.UUID, normalize func(string) (string, error)) (merged int, err error) {
	err = s.tx(ctx, "name endpoints", func(tx pgx.Tx) error {
		merged = 0
		if _, err := tx.Exec(ctx, `select 1 from apps where id = $1 for no key update`, app); err != nil {
			return err
		}
		endpoints, err := many[Endpoint](ctx, tx, `
			select `+endpointColumns+` from endpoints e where e.app_id = $1 and e.deleted_at is null order by e.id for update`, app)
		if err != nil {
			return err
		}
		groups := make(map[string][]absorbed, len(endpoints))
		for i := range endpoints {
			url := endpoints[i].URL
			if normal, err := normalize(url); err == nil {
				url = normal
			}
			name, suffix := splitCallbackURL(url)
			groups[name] = append(groups[name], absorbed{&endpoints[i], suffix})
		}
		for name, members := range groups {
			keep, others := members[0], members[1:]
			if err := addSuffix(ctx, tx, keep.ID, keep.suffix); err != nil {
				return err
			}
			if err := s.merge(ctx, tx, keep.Endpoint, others); err != nil {
				return err
			}
			merged += len(others)
			// Last, since one of the others may have had the name.
			if _, err := tx.Exec(ctx, `update endpoints set url = $2, named = true where id = $1`, keep.ID, name); err != nil {
				return err
			}
		}
		return nil
	})
	return merged, err
}

// addSuffix adds what an endpoint's URL has beyond its name to the suffixes of its subscriptions and deliveries.
func addSuffix(ctx context.Context, tx pgx.Tx, id uuid.UUID, suffix string) error {
	if suffix == "" {
		return nil
	}
	if _, err := tx.Exec(ctx, `update subscriptions set suffix = $2 || suffix where endpoint_id = $1`, id, suffix); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `update deliveries set suffix = $2 || suffix where endpoint_id = $1`, id, suffix)
	return err
}

// absorb merges into a new endpoint that ends in /* those below it that no app has created or changed.
func (s *Store) absorb(ctx context.Context, tx pgx.Tx, keep *Endpoint) error {
	below, err := many[Endpoint](ctx, tx, `
		select `+endpointColumns+`
		from endpoints e
		where e.app_id = $1 and e.deleted_at is null and not e.manual and starts_with(e.url, $2)
		order by e.id
		for update`, keep.AppID, base(keep.URL))
	if err != nil {
		return err
	}
	others := make([]absorbed, len(below))
	for i := range below {
		others[i] = absorbed{&below[i], strings.TrimPrefix(below[i].URL, base(keep.URL))}
	}
	return s.merge(ctx, tx, keep, others)
}

// absorbed is an endpoint that is merged into another one. Its suffix is what its URL has beyond the other's.
type absorbed struct {
	*Endpoint
	suffix string
}

// merge moves what is the others' to keep and deletes the others.
func (s *Store) merge(ctx context.Context, tx pgx.Tx, keep *Endpoint, others []absorbed) error {
	if len(others) == 0 {
		return nil
	}
	from, args := unnest("o", others, []column[absorbed]{
		col("id", "uuid", func(o absorbed) uuid.UUID { return o.ID }),
		col("suffix", "text", func(o absorbed) string { return o.suffix }),
	})
	args = append(args, keep.ID)
	for _, sql := range []string{
		`insert into subscriptions (id, task, endpoint_id, suffix, created_at)
		select b.id, b.task, $3, o.suffix || b.suffix, b.created_at
		from ` + from + `
		join subscriptions b on b.endpoint_id = o.id
		on conflict do nothing`,
		`delete from subscriptions b using ` + from + ` where b.endpoint_id = o.id and o.id <> $3`,
		`update deliveries d
		set endpoint_id = $3, suffix = o.suffix || d.suffix
		from ` + from + `
		where d.endpoint_id = o.id and (d.status = 'pending' or d.failed)`,
		`insert into endpoint_secrets (id, endpoint_id, suffix, secret)
		select gen_random_uuid(), $3, o.suffix, x.secret
		from ` + from + `
		join endpoints e on e.id = o.id
		cross join lateral (values (e.secret), (case when e.old_secret_expires_at > now() then e.old_secret end)) as x (secret)
		where x.secret is not null`,
		`update endpoint_secrets x set endpoint_id = $3, suffix = o.suffix || x.suffix from ` + from + ` where x.endpoint_id = o.id`,
		`update endpoints e
		set deleted_at = now(), backlog = false, named = true, merged_into = $3, merged_suffix = o.suffix
		from ` + from + `
		where e.id = o.id and e.id <> $3`,
	} {
		if _, err := tx.Exec(ctx, sql, args...); err != nil {
			return err
		}
	}
	for _, other := range others {
		keep.takeOver(other.Endpoint)
	}
	_, err := tx.Exec(ctx, `update endpoints set event_types = $2, backlog = $3 where id = $1`, keep.ID, keep.EventTypes, keep.Backlog)
	if err != nil {
		return err
	}
	return saveHealth(ctx, tx, []*Endpoint{keep})
}

// MoveMerged moves what was delivered to merged endpoints to those that they were merged into, in batches, until nothing is
// left to move. Until then it cannot be sent again.
func (s *Store) MoveMerged(ctx context.Context) error {
	for {
		start := time.Now()
		var id uuid.NullUUID
		var moved int64
		err := throughDeadlocks(func() error {
			return s.pool.QueryRow(ctx, `
				with merged as materialized (
					select id, merged_into, merged_suffix from endpoints where merged_into is not null order by id limit 1
				), batch as materialized (
					select d.id
					from merged m
					join deliveries d on d.endpoint_id = m.id
					order by d.id
					limit $1
					for no key update of d
				), moved as (
					update deliveries d
					set endpoint_id = m.merged_into, suffix = m.merged_suffix || d.suffix
					from merged m
					where d.id in (select id from batch)
					returning 1
				)
				select (select id from merged), (select count(*) from moved)`, purgeBatch).Scan(&id, &moved)
		})
		if err == nil && id.Valid && moved == 0 {
			_, err = s.pool.Exec(ctx, `update endpoints set merged_into = null, merged_suffix = null where id = $1`, id)
		}
		if err != nil {
			return fmt.Errorf("move deliveries of merged endpoints: %w", err)
		}
		if !id.Valid || moved > 0 && !rest(ctx, start) {
			return nil
		}
	}
}

// takeOver lets keep take what either of the two takes: it is enabled if one of them is, and asks for all their event types.
func (keep *Endpoint) takeOver(other *Endpoint) {
	if other.Enabled && !keep.Enabled {
		keep.Enabled, keep.DisabledReason = true, nil
		keep.recovered()
	}
	if keep.EventTypes != nil {
		for _, eventType := range other.EventTypes {
			if !slices.Contains(keep.EventTypes, eventType) {
				keep.EventTypes = append(keep.EventTypes, eventType)
			}
		}
		if other.EventTypes == nil {
			keep.EventTypes = nil
		}
	}
	keep.Backlog = keep.Backlog || other.Backlog
}
