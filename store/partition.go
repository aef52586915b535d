package store

import (
	"context"
	"fmt"
	"time"
)

// Events and attempts are partitioned by the day that their keys name: events by their id, attempts by their delivery's. A
// partition is made some days ahead and dropped when all in it is older than the retention. Rows without a
// partition go to the default one: rows of a clock that is far off, attempts of a delivery whose day was dropped, and rows that
// were inserted while no instance made partitions. Migration 6 has the functions.

const (
	// partitionsAhead is for how many days partitions are made ahead.
	partitionsAhead = 3
	// keptDeliveries is how many deliveries' rows of a partition may be moved when it is dropped. A partition with more of
	// them stays, and its other rows are deleted one by one.
	keptDeliveries = 5000
)

// partitioned are the tables with partitions.
var partitioned = []string{"events", "attempts"}

// AddPartitions makes the partitions of today and of the next days where they are missing. It is cheap where none is.
func (s *Store) AddPartitions(ctx context.Context) error {
	ctx = allowing(ctx, longTimeout)
	type missing struct {
		Name string
		Day  time.Time
	}
	days, err := many[missing](ctx, s.pool, `
		select t.name, (d.day at time zone 'UTC')::date as day
		from unnest($1::text[]) as t (name)
		cross join generate_series(date_trunc('day', now(), 'UTC'), now() + make_interval(days => $2), interval '1 day') as d (day)
		where not exists (
			select 1 from partitions p where p.parent = t.name and p.lo < id_at(d.day + interval '1 day') and p.hi > id_at(d.day)
		)
		order by d.day, t.name`, partitioned, partitionsAhead)
	for _, m := range days {
		if err == nil {
			_, err = s.pool.Exec(ctx, `select add_partition($1, $2)`, m.Name, m.Day)
		}
	}
	if err != nil && !isLockTimeout(err) {
		return fmt.Errorf("add partitions: %w", err)
	}
	return nil
}

// isLockTimeout reports whether err means that a lock was not granted in time.
func isLockTimeout(err error) bool { return sqlState(err) == "55P03" }

// dropPartitions drops the partitions of which all is older than a time, and returns their number and the names of those that stay
// because they have the rows of too many deliveries.
func (s *Store) dropPartitions(ctx context.Context, before time.Time) (n int64, stay []string, err error) {
	names, err := scalars[string](ctx, s.pool, `select name from partitions where hi <= $1 order by hi`, idAt(before))
	if err != nil {
		return 0, nil, fmt.Errorf("list partitions: %w", err)
	}
	for _, name := range names {
		var dropped bool
		err := s.pool.QueryRow(ctx, `select drop_partition($1, $2)`, name, keptDeliveries).Scan(&dropped)
		if isLockTimeout(err) {
			continue // somebody reads it for long, such as a backup: the next purge tries again
		}
		if err != nil {
			return n, stay, fmt.Errorf("drop partition %s: %w", name, err)
		}
		if dropped {
			n++
		} else {
			stay = append(stay, name)
		}
	}
	return n, stay, nil
}
