-- +goose Up

-- An account of memories.ai: one key, one request budget.
create table accounts (
    id                  uuid primary key,
    name                text not null unique,
    api_key             bytea not null,                 -- sealed
    requests_per_second double precision not null check (requests_per_second > 0 and requests_per_second <= 1000),
    next_slot_at        timestamptz not null default 'epoch', -- the generic cell rate algorithm's one number
    poll_job            boolean not null default false, -- a poll job for this account exists
    shift               uuid,                           -- the one shift that may take slots
    state               text not null default 'active' check (state in ('active', 'rate_limited', 'refused', 'unavailable')),
    state_reason        text,
    paused_until        timestamptz,
    troubles            int not null default 0,         -- in a row
    survival            real[] not null default array_fill(0::real, array[74]), -- what was learnt of the time from registration to ready; of one size from the start
    created_at          timestamptz not null default now()
) with (fillfactor = 50); -- next_slot_at changes with every poll: room for HOT updates

create table apps (
    id          uuid primary key,
    name        text not null unique,
    account_id  uuid not null references accounts (id),
    hint_token  text not null unique,
    signing_key bytea not null, -- sealed ed25519 seed
    public_key  bytea not null,
    created_at  timestamptz not null default now(),
    deleted_at  timestamptz
);
create index apps_account on apps (account_id);

create table api_keys (
    id           uuid primary key,
    app_id       uuid not null references apps (id),
    name         text not null,
    prefix       text not null,         -- enough to recognise the key by
    hash         bytea not null unique, -- SHA-256
    created_at   timestamptz not null default now(),
    last_used_at timestamptz,
    revoked_at   timestamptz
);
create index api_keys_app on api_keys (app_id);

-- Tasks, subscriptions, events, deliveries and attempts carry no foreign keys: they come in by the
-- thousand in one transaction that has just read or written what they point to, and go out by age.
create table tasks (
    id               uuid primary key,
    app_id           uuid not null,
    account_id       uuid not null,
    task_id          text not null, -- memories.ai's
    unique_id        text not null,
    closed           bigint not null default 0, -- 0, or when the task failed, expired or was cancelled (Unix microseconds): then its id is free again
    status           text not null default 'waiting' check (status in ('waiting', 'ready', 'failed', 'expired', 'cancelled')),
    polling          boolean not null default true,  -- waiting, or ready and its list may still change
    urgent           boolean not null default true,  -- never polled, or hinted since the last poll
    until            text not null default 'downloaded' check (until in ('downloaded', 'indexed')),
    expected_videos  int,
    metadata         jsonb not null default '{}',
    videos           jsonb not null default '[]', -- [{"video_id": …, "status": …}] in the order in which they were first seen
    grown_at         timestamptz, -- when the list last grew
    polls            int not null default 0,
    last_polled_at   timestamptz,
    next_poll_at     timestamptz,
    hinted_at        timestamptz,
    last_error       jsonb, -- {"code": …, "message": …}
    refusals         int not null default 0, -- in a row
    first_refusal_at timestamptz,
    created_at       timestamptz not null,
    ready_at         timestamptz,
    indexed_at       timestamptz,
    expires_at       timestamptz not null
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
create unique index tasks_identity on tasks (app_id, task_id, unique_id, closed);
create index tasks_app on tasks (app_id, id);
create index tasks_waiting on tasks (app_id, id) where status = 'waiting';
create index tasks_ended on tasks (status, id) where status in ('failed', 'expired', 'cancelled');
create index tasks_polling on tasks (account_id, urgent, id) where polling;
create index tasks_expiring on tasks (expires_at) where polling;

create table endpoints (
    id                    uuid primary key,
    app_id                uuid not null references apps (id),
    url                   text not null,
    description           text not null default '',
    enabled               boolean not null default true,
    disabled_reason       text,
    event_types           text[], -- null: all events of its tasks
    headers               bytea,  -- sealed JSON object
    rate_limit            double precision check (rate_limit > 0),
    secret                bytea not null, -- sealed
    old_secret            bytea,          -- sealed; signs too until it expires
    old_secret_expires_at timestamptz,
    breaker               text not null default 'closed' check (breaker in ('closed', 'open', 'half-open')),
    failures              int not null default 0, -- in a row
    failing_since         timestamptz,            -- no attempt has succeeded since
    hold_until            timestamptz,            -- no attempt before; of an open breaker: when it may be probed
    probes                int not null default 0, -- failed ones in a row
    backlog               boolean not null default false, -- some of its deliveries are parked
    next_slot_at          timestamptz not null default 'epoch', -- of its rate limit
    created_at            timestamptz not null default now(),
    deleted_at            timestamptz
) with (fillfactor = 70);
create unique index endpoints_url on endpoints (app_id, url) where deleted_at is null;
create index endpoints_app on endpoints (app_id, id);
create index endpoints_backlog on endpoints (id) where backlog;

create table subscriptions (
    id          uuid not null,
    task        uuid not null,
    endpoint_id uuid not null,
    created_at  timestamptz not null default now(),
    primary key (task, endpoint_id)
);

create table events (
    id          uuid primary key,
    app_id      uuid not null,
    task        uuid,
    endpoint_id uuid,
    type        text not null,
    payload     text not null, -- the exact bytes that are signed and sent
    created_at  timestamptz not null
);
create index events_app on events (app_id, id);
create index events_task on events (task) where task is not null;

create table deliveries (
    id              uuid primary key,
    app_id          uuid not null,
    event_id        uuid not null,
    event_type      text not null,
    task            uuid,
    endpoint_id     uuid not null,
    status          text not null default 'pending' check (status in ('pending', 'delivered', 'failed', 'cancelled')),
    failed          boolean not null default false, -- status = 'failed', as a column of its own: an index on status would cost every delivery its HOT update
    parked          boolean not null default false, -- waits in this table, without a job
    generation      int not null default 0, -- of its job: a job of an older generation does nothing
    attempt_count   int not null default 0,
    round_start     int not null default 0, -- attempts made before the retry schedule last began
    next_attempt_at timestamptz,
    created_at      timestamptz not null,
    delivered_at    timestamptz
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
create index deliveries_app on deliveries (app_id, id);
create index deliveries_endpoint on deliveries (endpoint_id, id);
create index deliveries_task on deliveries (task) where task is not null;
create index deliveries_failed on deliveries (endpoint_id, id) where failed;
create index deliveries_app_failed on deliveries (app_id, id) where failed;
create index deliveries_parked on deliveries (endpoint_id, id) where parked;

create table attempts (
    delivery_id      uuid not null,
    number           int not null, -- from 1
    at               timestamptz not null,
    duration_ms      int not null,
    outcome          text not null check (outcome in ('delivered', 'failed')),
    response_status  int,
    error            text,
    response_headers jsonb,
    response_body    text, -- at most 4 KiB
    primary key (delivery_id, number)
);

create table instances (
    id         uuid primary key, -- also its River client's id
    name       text not null,    -- host, network and address: two living instances never share it
    version    text not null,
    started_at timestamptz not null,
    beat_at    timestamptz not null
);

create table idempotency_keys (
    app_id       uuid not null,
    key          text not null,
    request_hash bytea not null,
    status       int,   -- null while the first request is under way
    response     bytea,
    created_at   timestamptz not null default now(),
    primary key (app_id, key)
);
create index idempotency_keys_created on idempotency_keys (created_at);

-- One sealed sentence, by which a wrong encryption key is noticed at the start.
create table keyring_check (
    one    boolean primary key default true check (one),
    sealed bytea not null
);

-- +goose Down
drop table keyring_check, idempotency_keys, instances, attempts, deliveries, events, subscriptions, endpoints, tasks, api_keys, apps, accounts;
