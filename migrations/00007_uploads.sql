-- Columns are added with constant defaults, which rewrites nothing; the version before goes on beside it. Each can be run again.

-- +goose NO TRANSACTION

-- +goose Up
alter table tasks add column if not exists progress jsonb; -- {"percent": …, "stages": {…}}, the last that memories.ai told
alter table accounts
    add column if not exists uploads_per_minute double precision check (uploads_per_minute > 0); -- null: what is known of its api
-- Which tasks wait for a video to be indexed: memories.ai's callbacks name videos.
drop index concurrently if exists tasks_indexing;
create index concurrently tasks_indexing on tasks using gin (videos jsonb_path_ops) where polling and until = 'indexed';

-- +goose Down
drop index tasks_indexing;
alter table accounts drop column uploads_per_minute;
alter table tasks drop column progress;
