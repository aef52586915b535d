package store

import (
	"context"
	"fmt"

	"github.com/google/uuid"
)

// TaskFilter narrows a list of tasks; zero fields do not.
type TaskFilter struct {
	Scope                        Scope // whose tasks
	Status, UpstreamID, UniqueID string
}

// Task reads one task with its subscriptions.
func (s *Store) Task(ctx context.Context, scope Scope, id uuid.UUID) (*Task, error) {
	rows, err := s.pool.Query(ctx, `
			select `+taskColumns+`
			from tasks
			where id = $1 and ($2::uuid is null or app_id = $2)`, id, scope.arg())
	t, err := one[Task](rows, err)
	if err != nil {
		return nil, err
	}
	return &t, readSubscriptions(ctx, s.pool, &t)
}

// Tasks lists tasks with their subscriptions, newest first.
func (s *Store) Tasks(ctx context.Context, f TaskFilter, p Page) ([]Task, error) {
	// PostgreSQL plans for these values (see Open), so an unused filter costs nothing. Waiting tasks are polled, and
	// polled tasks have an index across apps.
	apps := ""
	if f.Scope.All() && (f.UpstreamID != "" || f.UniqueID != "") {
		apps = ` and app_id in (select id from apps)` // those indexes begin with the app: each is looked into
	}
	rows, err := s.pool.Query(ctx, `
		select `+taskColumns+`
		from tasks
		where id < $1
			and ($2::uuid is null or app_id = $2)
			and ($3 = '' or status = $3)
			and ($3 <> 'waiting' or polling)
			and ($4 = '' or task_id = $4)
			and ($5 = '' or unique_id = $5)`+apps+`
		order by id desc
		limit $6`, p.before(), f.Scope.arg(), f.Status, f.UpstreamID, f.UniqueID, p.Limit)
	tasks, err := many[Task](rows, err)
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", err)
	}
	all := make([]*Task, len(tasks))
	for i := range tasks {
		all[i] = &tasks[i]
	}
	return tasks, readSubscriptions(ctx, s.pool, all...)
}
