package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// endpointKey names an endpoint as its app does.
type endpointKey struct {
	AppID uuid.UUID
	URL   string
}

// ensureEndpoints returns the endpoint of each registration's callback URL, created where there is none.
func (s *Store) ensureEndpoints(ctx context.Context, tx pgx.Tx, regs []Registration) (map[endpointKey]uuid.UUID, error) {
	found := make(map[endpointKey]uuid.UUID)
	missing := distinct(regs, Registration.endpoint)
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

var endpointKeyColumns = []column[endpointKey]{
	col("app_id", "uuid", func(k endpointKey) uuid.UUID { return k.AppID }),
	col("url", "text", func(k endpointKey) string { return k.URL }),
}

func readEndpointIDs(ctx context.Context, tx pgx.Tx, keys []endpointKey, found map[endpointKey]uuid.UUID) error {
	wanted, args := unnest("k", keys, endpointKeyColumns)
	rows, err := tx.Query(ctx, `
		select e.id, e.app_id, e.url
		from endpoints e
		join `+wanted+` on e.app_id = k.app_id and e.url = k.url
		where e.deleted_at is null`, args...)
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
