-- Endpoints are named by scheme, host, port and path. What follows in a callback URL (its query, or the rest of the path under
-- an endpoint that ends in /*) is the suffix of the subscription and of its deliveries. The rows that are there are
-- given their names by the service (store/endpoint_merge.go), which must compute the normal form of a URL.

-- +goose NO TRANSACTION

-- +goose Up
alter table endpoints
    add column if not exists manual boolean not null default false, -- an app has created or changed it: it is never purged as idle
    add column if not exists named boolean not null default false,  -- its url is its name; false for rows of the version before
    add column if not exists signatures text[] not null default '{v1,v1a}', -- rows of the version before keep v1a, with the app's key
    add column if not exists signing_key bytea,     -- sealed ed25519 seed; null: the app's, until the secret is rotated
    add column if not exists old_signing_key bytea; -- sealed; signs too until old_secret expires
alter table endpoints alter column signatures set default '{v1}';
update endpoints e set manual = true
where deleted_at is null and not named and not manual
    and (description <> '' or headers is not null or event_types is not null or rate_limit is not null
        or not exists (select 1 from subscriptions s where s.endpoint_id = e.id));
create index concurrently if not exists endpoints_unnamed on endpoints (app_id) where deleted_at is null and not named;
create index concurrently if not exists endpoints_wildcard on endpoints (app_id) where deleted_at is null and right(url, 2) = '/*';

-- Secrets of endpoints that were merged into another: they sign too, for the deliveries with their suffix first of all.
create table if not exists endpoint_secrets (
    id          uuid primary key,
    endpoint_id uuid not null,
    suffix      text not null,
    secret      bytea not null, -- sealed
    expires_at  timestamptz     -- null until the endpoint's secret is rotated
);
create index if not exists endpoint_secrets_endpoint on endpoint_secrets (endpoint_id, suffix);

alter table subscriptions add column if not exists suffix text not null default '';
create unique index concurrently if not exists subscriptions_identity on subscriptions (task, endpoint_id, suffix);
create index concurrently if not exists subscriptions_endpoint on subscriptions (endpoint_id);
-- The primary key on (task, endpoint_id) is dropped by the service once no instance of the version before runs, whose
-- registrations need it (store/upgrade.go).

alter table deliveries
    add column if not exists suffix text not null default '',
    -- An attempt has failed and another is due later. A column of its own, since an index on the status would cost every
    -- delivery its HOT update.
    add column if not exists retrying boolean not null default false;
create index concurrently if not exists deliveries_retrying on deliveries (endpoint_id, id) where retrying;

alter table accounts
    add column if not exists api text not null default 'v1' check (api in ('v1', 'datalake')),
    add column if not exists key_hash bytea; -- SHA-256 of the key: one key is one budget
create unique index concurrently if not exists accounts_key on accounts (key_hash) where key_hash is not null;

-- +goose Down
drop index accounts_key;
alter table accounts drop column key_hash, drop column api;
drop index deliveries_retrying;
alter table deliveries drop column retrying, drop column suffix;
delete from subscriptions s using subscriptions t
where s.task = t.task and s.endpoint_id = t.endpoint_id and (s.created_at, s.suffix) > (t.created_at, t.suffix);
alter table subscriptions drop constraint if exists subscriptions_pkey, add primary key (task, endpoint_id);
drop index subscriptions_endpoint, subscriptions_identity;
alter table subscriptions drop column suffix;
drop table endpoint_secrets;
drop index endpoints_wildcard, endpoints_unnamed;
alter table endpoints drop column old_signing_key, drop column signing_key, drop column signatures, drop column named, drop column manual;
