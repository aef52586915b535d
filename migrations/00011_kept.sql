-- What must outlive a request: which upload an idempotency key has made, whether an endpoint's secret was given out, and when a
-- delivery was cancelled. Each statement can be run again, beside the version before.

-- +goose NO TRANSACTION

-- +goose Up
-- Unset after the 24 hours of the key.
alter table uploads add column if not exists idempotency_key text;
drop index concurrently if exists uploads_idempotency;
create unique index concurrently uploads_idempotency on uploads (app_id, idempotency_key) where idempotency_key is not null;

-- An endpoint whose secret somebody has read is not purged as idle. Of those that are there nobody knows, so they count as read:
-- the default, a constant of its statement, rewrites no row.
alter table endpoints add column if not exists secret_read_at timestamptz default now();
alter table endpoints alter column secret_read_at drop default;

-- Retention counts from here. Null for those that the version before has cancelled.
alter table deliveries add column if not exists cancelled_at timestamptz;

-- +goose Down
alter table deliveries drop column if exists cancelled_at;
alter table endpoints drop column if exists secret_read_at;
drop index if exists uploads_idempotency;
alter table uploads drop column if exists idempotency_key;
