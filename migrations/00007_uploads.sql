-- Columns are added with constant defaults, which rewrites nothing; the version before goes on beside it. Each can be run again.

-- +goose NO TRANSACTION

-- +goose Up
alter table tasks add column if not exists progress jsonb; -- {"percent": …, "stages": {…}}, the last that memories.ai told
alter table accounts
    add column if not exists uploads_per_minute double precision check (uploads_per_minute > 0), -- null: what is known of its api
    add column if not exists next_upload_at timestamptz not null default 'epoch', -- of its budget of submissions
    add column if not exists upload_lease uuid,                      -- of the job that submits
    add column if not exists upload_job boolean not null default false; -- it has one, or is to get one
-- Which tasks wait for a video to be indexed: memories.ai's callbacks name videos.
drop index concurrently if exists tasks_indexing;
create index concurrently tasks_indexing on tasks using gin (videos jsonb_path_ops) where polling and until = 'indexed';

-- What apps want submitted to memories.ai and followed.
create table if not exists uploads (
    id              uuid primary key, -- also the idempotency key of the submission, where memories.ai knows such
    app_id          uuid not null,
    account_id      uuid not null,
    status          text not null default 'queued' check (status in ('queued', 'submitted', 'failed', 'unknown')),
    lease           uuid, -- of the job that is sending it, or was when it ended; set before it sends
    request         jsonb not null, -- what is submitted
    callback_url    text not null,
    metadata        jsonb not null default '{}',
    until           text not null,
    expected_videos int,
    expires_in      interval not null, -- from the submission on
    task            uuid,
    error           jsonb, -- {"code": …, "message": …}, why it failed, or is not submitted yet
    refusals        int not null default 0,
    attempts        int not null default 0,
    next_attempt_at timestamptz not null,
    created_at      timestamptz not null,
    finished_at     timestamptz,
    traceparent     text
);
create index if not exists uploads_queued on uploads (account_id, next_attempt_at, id) where status = 'queued';
create index if not exists uploads_app on uploads (app_id, id);
create index if not exists uploads_status on uploads (status, id);
create index if not exists uploads_task on uploads (task) where task is not null;
create index if not exists uploads_request on uploads using gin (request jsonb_path_ops); -- to search by a URL

-- +goose Down
drop table uploads;
drop index tasks_indexing;
alter table accounts drop column upload_job, drop column upload_lease, drop column next_upload_at, drop column uploads_per_minute;
alter table tasks drop column progress;
