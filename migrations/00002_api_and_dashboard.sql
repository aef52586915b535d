-- Columns are added with constant defaults, which rewrites nothing; the version before goes on beside it. Each statement
-- is by itself: one that holds a table while it waits for another would be in a deadlock with a registration.
-- Each can be run again.

-- +goose NO TRANSACTION

-- +goose Up
alter table api_keys add column if not exists rate_limit double precision check (rate_limit > 0); -- requests a second; null: the service's default
alter table apps alter column account_id drop not null; -- null once the app is deleted, so that its account can be
alter table accounts add column if not exists usage double precision not null default 0, -- slots taken, each fading with a minute's time constant
    alter column survival set default array_fill(0::real, array[76]); -- how often lists grow is learnt, too
alter table tasks add column if not exists poll_log text[] not null default '{}'; -- the last polls: Unix milliseconds, a space, what came of it
alter table tasks add column if not exists traceparent text;  -- of the registration, where it was traced
alter table events add column if not exists traceparent text; -- of the task's registration
alter table deliveries add column if not exists cancelled boolean not null default false; -- status = 'cancelled', as failed is to 'failed'

-- What happened in a minute, on all instances together. The arrays are histograms: see store/activity.go.
create table if not exists activity (
    minute          timestamptz primary key,
    registrations   bigint not null default 0,
    polls           bigint not null default 0,
    deliveries      bigint not null default 0, -- delivered
    failed_attempts bigint not null default 0,
    detection_lag   int[] not null,
    latency         int[] not null
) with (fillfactor = 50);

-- +goose Down
drop table activity;
alter table deliveries drop column cancelled;
alter table events drop column traceparent;
alter table tasks drop column traceparent, drop column poll_log;
alter table accounts drop column usage;
delete from api_keys where app_id in (select id from apps where account_id is null);
delete from endpoints where app_id in (select id from apps where account_id is null);
delete from apps where account_id is null;
alter table apps alter column account_id set not null;
alter table api_keys drop column rate_limit;
