package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// Upload reads one upload.
func (s *Store) Upload(ctx context.Context, scope Scope, id uuid.UUID) (Upload, error) {
	return one[Upload](ctx, s.pool, `
		select `+uploadColumns+`
		from uploads
		where id = $1 and ($2::uuid is null or app_id = $2)`, id, scope.arg())
}

// UploadFilter narrows a list of uploads; zero fields do not.
type UploadFilter struct {
	Scope  Scope // whose uploads
	Status string
}

// Uploads lists uploads, newest first. cut reports whether the page was cut at pageBytes, so that there are more than it has.
func (s *Store) Uploads(ctx context.Context, f UploadFilter, p Page) (uploads []Upload, cut bool, err error) {
	// The metadata counts twice: the upload's and its task's.
	uploads, err = many[Upload](ctx, s.pool, `
		with page as (
			select `+uploadColumns+`
			from uploads
			where id < $1 and id > $5
				and ($2::uuid is null or app_id = $2)
				and ($3 = '' or status = $3)
			order by id `+p.order()+`
			limit $4
		)`+cutPage(uploadColumns, `octet_length(request::text) + 2 * octet_length(metadata::text)`, "id "+p.order())+`
		order by id desc`, p.high(), f.Scope.arg(), f.Status, p.Limit, p.low())
	return uploads, len(uploads) > 0 && uploads[0].Cut, wrapped("list uploads", err)
}

// taskWithoutVideosColumns are taskColumns with no videos.
var taskWithoutVideosColumns = strings.Replace(taskColumns, "metadata, videos,",
	`metadata, '[]'::jsonb as videos, jsonb_array_length(videos) as videos_omitted,`, 1)

// TasksOfUploads reads the tasks of those uploads that have one, by id, with their subscriptions and without their videos.
func (s *Store) TasksOfUploads(ctx context.Context, uploads []Upload) (map[uuid.UUID]*Task, error) {
	var ids []uuid.UUID
	for _, u := range uploads {
		if u.TaskID != nil {
			ids = append(ids, *u.TaskID)
		}
	}
	found, err := many[Task](ctx, s.pool, `select `+taskWithoutVideosColumns+` from tasks where id = any($1)`, ids)
	if err != nil {
		return nil, fmt.Errorf("read tasks of uploads: %w", err)
	}
	tasks := byID(found, func(t *Task) uuid.UUID { return t.ID })
	return tasks, readSubscriptions(ctx, s.pool, slices.Collect(maps.Values(tasks))...)
}

// UploadOfTask reads the first upload that became a task. It returns ErrNotFound where the task came otherwise.
func (s *Store) UploadOfTask(ctx context.Context, task uuid.UUID) (Upload, error) {
	return one[Upload](ctx, s.pool, `select `+uploadColumns+` from uploads where task = $1 order by id limit 1`, task)
}
