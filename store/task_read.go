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
	t, err := one[Task](ctx, s.pool, `
			select `+taskColumns+`
			from tasks
			where id = $1 and ($2::uuid is null or app_id = $2)`, id, scope.arg())
	if err != nil {
		return nil, err
	}
	return &t, readSubscriptions(ctx, s.pool, &t)
}

// Tasks lists tasks with their subscriptions and each with its first videos, newest first. cut reports whether the page was
// cut at pageBytes, so that there are more than it has.
func (s *Store) Tasks(ctx context.Context, f TaskFilter, p Page) (tasks []Task, cut bool, err error) {
	// Plans are made for the values at hand (see sessionSettings), so that a filter that is not there costs nothing. What
	// waits is polled, which has an index across apps.
	apps := ""
	if f.Scope.All() && (f.UpstreamID != "" || f.UniqueID != "") {
		apps = ` and app_id in (select id from apps)` // those indexes begin with the app: each is looked into
	}
	tasks, err = many[Task](ctx, s.pool, `
		with page as (
			select `+taskListColumns+`
			from tasks
			where id < $1 and id > $7
				and ($2::uuid is null or app_id = $2)
				and ($3 = '' or status = $3)
				and ($3 <> 'waiting' or polling)
				and ($4 = '' or task_id = $4)
				and ($5 = '' or unique_id = $5)`+apps+`
			order by id `+p.order()+`
			limit $6
		)`+cutPage(taskColumns+`, videos_omitted`, `octet_length(videos::text) + octet_length(metadata::text) + (
			select coalesce(sum(octet_length(e.url) + octet_length(s.suffix)), 0)
			from subscriptions s
			join endpoints e on e.id = s.endpoint_id
			where s.task = page.id
		)`, "id "+p.order())+`
		order by id desc`, p.high(), f.Scope.arg(), f.Status, f.UpstreamID, f.UniqueID, p.Limit, p.low())
	if err != nil {
		return nil, false, fmt.Errorf("list tasks: %w", err)
	}
	all := make([]*Task, len(tasks))
	for i := range tasks {
		all[i] = &tasks[i]
	}
	return tasks, len(tasks) > 0 && tasks[0].Cut, readSubscriptions(ctx, s.pool, all...)
}
