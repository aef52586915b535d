package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// callback names a callback URL of an app. The URL is in normal form.
type callback struct {
	AppID uuid.UUID
	URL   string
}

// destination is the endpoint of a callback URL and what the URL has beyond the endpoint's.
type destination struct {
	endpoint uuid.UUID
	suffix   string
}

// ensureEndpoints returns the destination of each registration's callback URL. An endpoint of the URL's own name comes
// first, then the longest endpoint that ends in /* and holds it; where there is neither, one is created. The endpoints are
// locked against deletion until the transaction ends.
func (s *Store) ensureEndpoints(ctx context.Context, tx pgx.Tx, regs []Registration) (map[callback]destination, error) {
	found := make(map[callback]destination)
	missing := distinct(regs, func(r Registration) callback { return callback{r.AppID, r.CallbackURL} })
	slices.SortFunc(missing, func(a, b callback) int {
		return cmp.Or(slices.Compare(a.AppID[:], b.AppID[:]), cmp.Compare(a.URL, b.URL))
	})
	upgrading := s.upgrading.Load()
	// Once more where another transaction has deleted an endpoint, or created it, in between.
	for range 3 {
		if err := readDestinations(ctx, tx, missing, upgrading, found); err != nil {
			return nil, err
		}
		missing = slices.DeleteFunc(missing, func(c callback) bool { return found[c].endpoint != uuid.Nil })
		if len(missing) == 0 {
			return found, nil
		}
		batch := &pgx.Batch{}
		for _, c := range missing {
			name, suffix := splitCallbackURL(c.URL)
			if upgrading {
				name = c.URL
			}
			batch.Queue(`
				insert into endpoints (id, app_id, url, secret, named)
				values ($1, $2, $3, $4, $5)
				on conflict (app_id, url) where deleted_at is null do nothing`,
				newID(), c.AppID, name, s.newSecret(), !upgrading || suffix == "")
		}
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return nil, fmt.Errorf("insert endpoints: %w", err)
		}
	}
	return nil, conflict("the endpoint was deleted while a task was being registered; register it again")
}

var callbackColumns = []column[callback]{
	col("app_id", "uuid", func(c callback) uuid.UUID { return c.AppID }),
	col("name", "text", func(c callback) string { name, _ := splitCallbackURL(c.URL); return name }),
	col("url", "text", func(c callback) string { return c.URL }),
}

// readDestinations reads which endpoints the callback URLs belong to. During an upgrade those are endpoints named by the whole
// URL: the version before, which may deliver to them, sends to their names and knows no suffixes.
func readDestinations(ctx context.Context, tx pgx.Tx, wanted []callback, upgrading bool, found map[callback]destination) error {
	names, args := unnest("c", wanted, callbackColumns)
	type row struct {
		ID, AppID uuid.UUID
		URL       string
	}
	endpoints, err := many[row](ctx, tx, `
		select e.id, e.app_id, e.url
		from endpoints e
		where e.deleted_at is null and (
			(e.app_id, e.url) in (select c.app_id, c.name from `+names+`)
			or (not e.named and (e.app_id, e.url) in (select c.app_id, c.url from `+names+`))
			or (right(e.url, 2) = '/*' and e.app_id in (select c.app_id from `+names+`))
		)
		order by e.id
		for key share`, args...)
	if err != nil {
		return fmt.Errorf("read endpoints: %w", err)
	}
	exact := make(map[callback]uuid.UUID, len(endpoints))
	wildcards := make(map[uuid.UUID][]row)
	for _, e := range endpoints {
		exact[callback{e.AppID, e.URL}] = e.ID
		if isWildcard(e.URL) {
			wildcards[e.AppID] = append(wildcards[e.AppID], e)
		}
	}
	for _, c := range wanted {
		if id, ok := exact[c]; ok { // of the version before, which named it by the whole URL
			found[c] = destination{endpoint: id}
			continue
		}
		if upgrading {
			continue
		}
		name, suffix := splitCallbackURL(c.URL)
		if id, ok := exact[callback{c.AppID, name}]; ok {
			found[c] = destination{id, suffix}
			continue
		}
		longest := ""
		for _, e := range wildcards[c.AppID] {
			if prefix := base(e.URL); len(prefix) > len(longest) && strings.HasPrefix(name, prefix) {
				longest, found[c] = prefix, destination{e.ID, strings.TrimPrefix(c.URL, prefix)}
			}
		}
	}
	return nil
}
