package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Migrations leave what the version before needs while it still runs. What must wait until it has gone is done here, by
// whichever instance finds first that it has: subscriptions lose the key that allows one callback URL of an
// endpoint a task, and the endpoints of the version before are named and merged (endpoint_merge.go). Until then each
// callback URL gets an endpoint of its own, as the version before makes them.

// errUpgrading says that a request must wait for the end of an upgrade.
var errUpgrading = errors.New("an instance of the previous version is still running; try again when it has stopped")

// FinishUpgrade does what had to wait for the end of the version before. It returns how many endpoints it has merged into
// others, and reports whether the upgrade is finished; if not, the caller tries again later. normalize returns a URL's normal
// form.
func (s *Store) FinishUpgrade(ctx context.Context, normalize func(string) (string, error)) (merged int, finished bool, err error) {
	finished, err = dropOldKey(ctx, s.pool)
	s.upgrading.Store(!finished)
	if err != nil || !finished {
		return 0, false, err
	}
	merged, err = s.nameEndpoints(ctx, normalize)
	return merged, err == nil, err
}

// dropOldKey drops the key of subscriptions that only the version before needs, and reports whether it is gone.
func dropOldKey(ctx context.Context, pool *pgxpool.Pool) (gone bool, err error) {
	var has, old bool
	err = pool.QueryRow(ctx, `
		select exists (select 1 from pg_constraint where conrelid = 'subscriptions'::regclass and contype = 'p'),
			exists (select 1 from pg_stat_activity where datname = current_database() and application_name = 'memhook')`).Scan(&has, &old)
	if err != nil {
		return false, fmt.Errorf("look for the version before: %w", err)
	}
	if !has || old {
		return !has, nil
	}
	_, err = pool.Exec(ctx, `alter table subscriptions drop constraint if exists subscriptions_pkey`)
	if isDenied(err) {
		return false, errors.New("the role may not finish the upgrade: run memhook migrate up as the owner of the tables")
	}
	return err == nil, wrapped("drop the old key of subscriptions", err)
}
