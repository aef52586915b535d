-- What operators need: settings that count when they change, sessions that end, an audit log, bulk resends, alerts that are
-- sent once, and indexes to search by. Each statement can be run again, beside the version before.

-- +goose NO TRANSACTION

-- +goose Up
-- What was last applied of the settings that create the account and the app `default`.
create table if not exists applied_settings (
    name text primary key,
    hash bytea not null, -- SHA-256 of the value
    at   timestamptz not null default now()
);

-- The dashboard's sessions that were signed out before they expired.
create table if not exists ended_sessions (
    id         text primary key,
    expires_at timestamptz not null
);

-- What people and apps have changed. It outlives what it is about, and is purged by age.
create table if not exists audit (
    id     uuid primary key,
    at     timestamptz not null,
    actor  text not null, -- admin (the token), session (the dashboard), key (an app's)
    name   text not null, -- the beginning of the app's key, the beginning of the session's id, or empty
    client text not null, -- the address
    app_id uuid,          -- of the key
    action text not null,
    target text not null, -- the path of what was changed
    detail text not null default ''
);
create index if not exists audit_app on audit (app_id, id) where app_id is not null;

-- Deliveries that are resent or cancelled by a filter, in batches.
create table if not exists resends (
    id          uuid primary key,
    app_id      uuid,          -- null: an operator's, of all apps
    action      text not null check (action in ('resend', 'cancel')),
    endpoint_id uuid,
    status      text not null,
    event_type  text not null default '',
    since       timestamptz,   -- of the deliveries' creation
    until       timestamptz not null,
    matched     bigint not null,
    done        bigint not null default 0,
    skipped     bigint not null default 0, -- those that could not be resent, or were done by somebody else meanwhile
    after       uuid not null, -- the last delivery that was looked at
    created_at  timestamptz not null,
    finished_at timestamptz
);
create index if not exists resends_open on resends (id) where finished_at is null;

-- What MEMHOOK_ALERT_URL was told, and is to be told.
create table if not exists alerts (
    subject text primary key, -- such as account:<id>
    state   text not null,
    summary text not null,
    link    text not null default '',
    at      timestamptz not null,
    sent    boolean not null default false
);
create index if not exists alerts_unsent on alerts (at) where not sent;

-- In place of tasks_identity, by which prefixes can be found only in a database of the C collation.
create unique index concurrently if not exists tasks_identity_prefix on tasks (app_id, task_id text_pattern_ops, unique_id, closed);
drop index concurrently if exists tasks_identity;
create index concurrently if not exists tasks_metadata on tasks using gin (metadata) where metadata <> '{}';
create index concurrently if not exists endpoints_prefix on endpoints (url text_pattern_ops) where deleted_at is null;
create index concurrently if not exists endpoints_host on endpoints (split_part(url, '/', 3) text_pattern_ops) where deleted_at is null;

-- +goose Down
create unique index concurrently if not exists tasks_identity on tasks (app_id, task_id, unique_id, closed);
drop index if exists tasks_identity_prefix;
drop index if exists endpoints_host;
drop index if exists endpoints_prefix;
drop index if exists tasks_metadata;
drop table if exists alerts, resends, audit, ended_sessions, applied_settings;
