-- What the dashboard looks at: a week of activity, attempts by endpoint, and what each entry of the audit log is about. Each
-- statement can be run again, beside the version before.

-- +goose NO TRANSACTION

-- +goose Up
-- As activity, by the hour.
create table if not exists activity_hours (like activity including all);
insert into activity_hours (minute, registrations, polls, deliveries, failed_attempts, detection_lag, latency)
select h.hour, sum(registrations), sum(polls), sum(deliveries), sum(failed_attempts),
    array(select sum(x) from activity b, unnest(b.detection_lag) with ordinality as u (x, k)
        where date_trunc('hour', b.minute) = h.hour group by k order by k),
    array(select sum(x) from activity b, unnest(b.latency) with ordinality as u (x, k)
        where date_trunc('hour', b.minute) = h.hour group by k order by k)
from (select distinct date_trunc('hour', minute) as hour from activity) h
join activity a on date_trunc('hour', a.minute) = h.hour
group by h.hour
on conflict do nothing;

-- Attempts in five minutes, by endpoint. A row stands for one attempt at least, so there are never more than attempts.
create table if not exists endpoint_activity (
    endpoint_id uuid not null,
    at          timestamptz not null,
    delivered   int not null,
    failed      int not null,
    primary key (endpoint_id, at)
) with (fillfactor = 70);
create index if not exists endpoint_activity_at on endpoint_activity using brin (at) with (pages_per_range = 16);

-- What was changed, and how: {"field": [before, after]}.
alter table audit
    add column if not exists object uuid,
    add column if not exists changes jsonb;
update audit
set object = substring(target from '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}')::uuid
where object is null and target ~ '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}';
create index concurrently if not exists audit_object on audit (object, id) where object is not null;
create index concurrently if not exists audit_actor on audit (actor, name, id);
create index concurrently if not exists audit_action on audit (action, id);

-- +goose Down
drop index if exists audit_action, audit_actor, audit_object;
alter table audit drop column if exists changes, drop column if exists object;
drop table if exists endpoint_activity, activity_hours;
