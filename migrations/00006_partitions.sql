-- Events and attempts go by age, so each day's are a partition, which is dropped as a whole. Ids begin with the time of their
-- making (48 bits of Unix milliseconds), so a day is a range of ids; an attempt belongs to the day of its delivery. What is there
-- stays where it is: the table becomes the first partition. Instances of the version before go on beside it.

-- +goose NO TRANSACTION

-- +goose Up
alter table tasks add column if not exists ended_at timestamptz; -- when it was last polled for good: retention counts from here
create index concurrently if not exists tasks_ended_at on tasks (ended_at) where ended_at is not null;
create index concurrently if not exists deliveries_event on deliveries (event_id);
create index concurrently if not exists endpoints_deleted on endpoints (deleted_at) where deleted_at is not null;

-- The feed's order: the transaction that made the event, then the id. (0, id) for the events that are there. Two statements,
-- so that no row is rewritten.
alter table events add column if not exists xid xid8 not null default '0';
alter table events alter column xid set default pg_current_xact_id();
create index concurrently if not exists events_feed on events (app_id, xid, id);
drop index concurrently if exists events_app;

-- What the sweep of orphans keeps between two runs: see store/adopt.go and store/event.go.
create table if not exists sweep (
    one     boolean primary key default true check (one),
    settled uuid not null default '00000000-0000-0000-0000-000000000000', -- all deliveries before this one are past their shared job
    xid     xid8 not null default '0'                                     -- of the sweep before: never greater than the present one
);
insert into sweep default values on conflict do nothing;

-- +goose StatementBegin
create or replace function id_at(at timestamptz) returns uuid language sql immutable as
    $$ select (lpad(to_hex(floor(extract(epoch from at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid $$;
-- +goose StatementEnd

-- The first partition's bound is known to hold before the table is locked.
-- +goose StatementBegin
create or replace procedure partition_table(parent text, key text) language plpgsql as $$
declare
    last uuid;
    bound uuid;
begin
    if (select relkind from pg_class where oid = to_regclass(parent)) = 'p' then
        return;
    end if;
    execute format('drop table if exists %I', parent || '_parted');
    execute format('alter table %I drop constraint if exists before', parent);
    execute format('create table %I (like %I including defaults including constraints) partition by range (%I)', parent || '_parted', parent, key);
    execute format('select %I from %I order by %1$I desc limit 1', key, parent) into last;
    bound := greatest(id_at(date_trunc('day', now(), 'UTC') + interval '3 days'),
        id_at(date_trunc('day', to_timestamp(('x' || substr(replace(last::text, '-', ''), 1, 12))::bit(48)::bigint / 1000.0), 'UTC') + interval '3 days'));
    execute format('alter table %I add constraint before check (%I < %L) not valid', parent, key, bound);
    commit;
    execute format('alter table %I validate constraint before', parent);
    commit;
    set local lock_timeout = '1s';
    for try in 1..60 loop
        begin
            execute format('lock table %I in access exclusive mode', parent);
            exit;
        exception when lock_not_available then
            perform pg_sleep(0.5);
            if try = 60 then
                raise exception 'table % could not be locked for a second within a minute: end the transaction that holds it', parent;
            end if;
        end;
    end loop;
    execute format('alter table %I rename to %I', parent, parent || '_before');
    execute format('alter table %I rename to %I', parent || '_parted', parent);
    execute format('alter index %I rename to %I', parent || '_pkey', parent || '_before_pkey');
    if parent = 'events' then
        alter index events_feed rename to events_before_feed;
        alter index events_task rename to events_before_task;
        alter table events add primary key (id);
        create index events_feed on events (app_id, xid, id);
        create index events_task on events (task) where task is not null;
    else
        alter table attempts add primary key (delivery_id, number);
    end if;
    execute format('alter table %I attach partition %I for values from (minvalue) to (%L)', parent, parent || '_before', bound);
    execute format('create table %I partition of %I default', parent || '_default', parent);
    commit;
end $$;
-- +goose StatementEnd
call partition_table('events', 'id');
call partition_table('attempts', 'delivery_id');
drop procedure partition_table;

-- Partitions are made and dropped by functions with their owner's rights: the service needs none to change the schema.
-- Whoever calls them must have the right to delete from the table. Both give up where they cannot lock the table soon, and are called again.

-- add_partition makes the partition of a day, unless the day has one already. It takes over what has come into the default
-- partition meanwhile; where that is much the day goes without.
-- +goose StatementBegin
create or replace function add_partition(parent text, day date) returns boolean language plpgsql security definer
    set search_path from current set lock_timeout = '300ms' set timezone = 'UTC' as $$
declare
    part text := parent || '_d' || to_char(day, 'YYYYMMDD');
    key text := case parent when 'events' then 'id' when 'attempts' then 'delivery_id' end;
    first uuid := id_at(day::timestamptz);
    after uuid := id_at((day + 1)::timestamptz);
    strays int;
begin
    if not has_table_privilege(session_user, parent, 'delete') then
        raise insufficient_privilege;
    end if;
    if to_regclass(part) is not null or exists (
        select 1 from partitions p where p.parent = add_partition.parent and p.hi > first and p.lo < after
    ) then
        return false;
    end if;
    execute format('lock table only %I in share update exclusive mode', parent);
    if to_regclass(part) is not null then
        return false; -- another was first
    end if;
    execute format('select count(*) from (select 1 from %I where %I >= $1 and %2$I < $2 limit 20001) s', parent || '_default', key)
        into strays using first, after;
    if strays > 20000 then
        return false;
    end if;
    execute format('create table %I (like %I including defaults including constraints)', part, parent);
    if strays > 0 then
        execute format('lock table %I in access exclusive mode', parent || '_default');
        execute format('with moved as (delete from %I where %I >= $1 and %2$I < $2 returning *) insert into %I select * from moved',
            parent || '_default', key, part) using first, after;
    end if;
    execute format('alter table %I attach partition %I for values from (%L) to (%L)', parent, part, first, after);
    return true;
end $$;
-- +goose StatementEnd

-- partitions are the partitions with bounds: all but the default ones.
create or replace view partitions as
    select p.relname::text as parent, c.relname::text as name,
        coalesce((substring(pg_get_expr(c.relpartbound, c.oid) from $$FROM \('([^']+)'$$))::uuid, '00000000-0000-0000-0000-000000000000') as lo,
        (substring(pg_get_expr(c.relpartbound, c.oid) from $$TO \('([^']+)'$$))::uuid as hi
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    join pg_class p on p.oid = i.inhparent
    where p.oid in (to_regclass('events'), to_regclass('attempts')) and pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT';

-- drop_partition drops a partition. The rows whose delivery is still there move to the default partition; where those are
-- the rows of more than a number of deliveries the partition stays. So what stays is never much more than what is waiting.
-- +goose StatementBegin
create or replace function drop_partition(part text, most int) returns boolean language plpgsql security definer
    set search_path from current set lock_timeout = '300ms' as $$
declare
    p partitions;
    kept uuid[];
begin
    select * into p from partitions where name = part;
    if not found then
        return false;
    end if;
    if not has_table_privilege(session_user, p.parent, 'delete') then
        raise insufficient_privilege;
    end if;
    -- Looked at without a lock first, which nobody should wait for in vain.
    if p.parent = 'events' then
        kept := array(select distinct event_id from deliveries where event_id >= p.lo and event_id < p.hi limit most + 1);
    else
        kept := array(select id from deliveries where id >= p.lo and id < p.hi limit most + 1);
    end if;
    if cardinality(kept) > most then
        return false;
    end if;
    -- From here on nobody reads an event to make a delivery of it, and whoever has done so has committed.
    execute format('alter table %I detach partition %I', p.parent, part);
    if p.parent = 'events' then
        kept := array(select distinct event_id from deliveries where event_id >= p.lo and event_id < p.hi);
        execute format('insert into events select * from %I where id = any($1)', part) using kept;
    else
        kept := array(select id from deliveries where id >= p.lo and id < p.hi);
        execute format('insert into attempts select * from %I where delivery_id = any($1)', part) using kept;
    end if;
    execute format('drop table %I', part);
    return true;
end $$;
-- +goose StatementEnd

-- +goose Down
drop function drop_partition(text, int);
drop function add_partition(text, date);
drop view partitions;
create table events_whole (like events including defaults including constraints);
insert into events_whole select * from events;
drop table events;
alter table events_whole rename to events;
alter table events drop column xid;
alter table events drop constraint if exists before;
alter table events add primary key (id);
create index events_app on events (app_id, id);
create index events_task on events (task) where task is not null;
create table attempts_whole (like attempts including defaults including constraints);
insert into attempts_whole select * from attempts;
drop table attempts;
alter table attempts_whole rename to attempts;
alter table attempts drop constraint if exists before;
alter table attempts add primary key (delivery_id, number);
drop function id_at(timestamptz);
drop table sweep;
drop index endpoints_deleted;
drop index deliveries_event;
drop index tasks_ended_at;
alter table tasks drop column ended_at;
