package store

import (
	"context"
	"fmt"
	"time"
)

// DatabaseHealth has early signs of a queue that slows down on PostgreSQL: dead rows, which cannot be removed while an old
// transaction might still read them. It is some seconds old.
type DatabaseHealth struct {
	OldestTransaction time.Duration    // of the transactions that keep dead rows, as far as this role may see them
	DeadRows          map[string]int64 // of the tables that change most, as PostgreSQL estimates them
}

// healthFresh is how long an answer of DatabaseHealth is used at least.
const healthFresh = 10 * time.Second

// DatabaseHealth returns the database's health, read at most once in healthFresh.
func (s *Store) DatabaseHealth(ctx context.Context) (DatabaseHealth, error) { return s.health.get(ctx) }

func (s *Store) readHealth(ctx context.Context) (h DatabaseHealth, err error) {
	var secs float64
	err = s.pool.QueryRow(ctx, `
		select coalesce(max(extract(epoch from clock_timestamp() - since)), 0)::float8
		from (
			select xact_start as since from pg_stat_activity where backend_xid is not null or backend_xmin is not null
			union all
			select prepared from pg_prepared_xacts
		) t`).Scan(&secs)
	if err != nil {
		return h, fmt.Errorf("read the oldest transaction: %w", err)
	}
	h.OldestTransaction = time.Duration(max(0, secs) * float64(time.Second))
	h.DeadRows, err = pairs[string, int64](ctx, s.pool, `
		select relname::text, n_dead_tup
		from pg_stat_user_tables
		where relid in (to_regclass('river_job'), to_regclass('accounts'), to_regclass('tasks'),
			to_regclass('endpoints'), to_regclass('deliveries'))`)
	return h, wrapped("count dead rows", err)
}
