package store

import (
	"context"
	"fmt"
	"time"
)

// Due says which of maintenance's work there is. It may say so some seconds early, as the clock of an instance may be ahead of
// the database's by [MaxClockSkew]; the work itself looks exactly.
type Due struct {
	DeadInstances bool // for ReapInstances
	ExpiredTasks  bool // for ExpireTasks
	Backlog       bool // for Backlogged
	Resends       bool // for WorkResends
}

// Nearly always there is nothing, which takes one statement a second to learn. The statement has no parameters: PostgreSQL
// then keeps its plan, and planning was nine tenths of what looking cost. The order of the tasks leaves the planner only the
// index, however old the table's statistics are.
var lookForDue = `
	select
		exists (select from instances where beat_at < now() - ` + interval(InstanceStale) + `) or exists (` + runningUnlisted + `),
		(select count(*) > 0 from (
			select from tasks where polling and expires_at <= now() + ` + interval(MaxClockSkew) + ` order by expires_at limit 1) t),
		exists (
			select from endpoints
			where backlog and enabled and deleted_at is null and (hold_until is null or hold_until <= now() + ` + interval(MaxClockSkew) + `)),
		exists (select from resends where finished_at is null)`

// Due looks for work of maintenance.
func (s *Store) Due(ctx context.Context) (d Due, err error) {
	err = s.pool.QueryRow(ctx, lookForDue).Scan(&d.DeadInstances, &d.ExpiredTasks, &d.Backlog, &d.Resends)
	return d, wrapped("look for what is due", err)
}

// interval returns a duration as an SQL literal.
func interval(d time.Duration) string { return fmt.Sprintf("interval '%d ms'", d.Milliseconds()) }
