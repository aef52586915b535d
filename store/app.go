package store

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// App is a tenant: an upstream application with its keys, tasks and endpoints.
type App struct {
	ID        uuid.UUID
	Name      string
	AccountID uuid.UUID
	HintToken string
	CreatedAt time.Time
}

const (
	appColumns = `id, name, account_id, hint_token, created_at`
	keyColumns = `id, app_id, name, prefix, created_at, last_used_at, revoked_at, rate_limit`
)

// Apps lists apps, newest first.
func (s *Store) Apps(ctx context.Context, p Page) ([]App, error) {
	list, err := many[App](ctx, s.pool, `
			select `+appColumns+`
			from apps
			where deleted_at is null and id < $1 and id > $3
			order by id `+p.order()+` limit $2`, p.high(), p.Limit, p.low())
	return newestFirst(p, list), err
}

// App reads one app.
func (s *Store) App(ctx context.Context, id uuid.UUID) (App, error) {
	return one[App](ctx, s.pool, `select `+appColumns+` from apps where id = $1 and deleted_at is null`, id)
}
