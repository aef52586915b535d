-- Made beside running writers, so outside a transaction; each statement can be run again.

-- +goose NO TRANSACTION

-- +goose Up
drop index concurrently if exists tasks_status;
create index concurrently tasks_status on tasks (app_id, status, id);
drop index concurrently if exists tasks_unique;
create index concurrently tasks_unique on tasks (app_id, unique_id, id) where unique_id <> 'default';
drop index concurrently if exists deliveries_app_cancelled;
create index concurrently deliveries_app_cancelled on deliveries (app_id, id) where cancelled;
drop index concurrently if exists endpoints_trouble;
create index concurrently endpoints_trouble on endpoints (id) where deleted_at is null and (not enabled or breaker <> 'closed' or backlog);
drop index concurrently if exists tasks_waiting;

-- +goose Down
create index if not exists tasks_waiting on tasks (app_id, id) where status = 'waiting';
drop index if exists endpoints_trouble;
drop index if exists deliveries_app_cancelled;
drop index if exists tasks_unique;
drop index if exists tasks_status;
