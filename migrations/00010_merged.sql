-- What was delivered to an endpoint that is merged into another one follows it in batches (store/endpoint_merge.go). Each
-- statement can be run again, beside the version before.

-- +goose NO TRANSACTION

-- +goose Up
alter table endpoints
    add column if not exists merged_into uuid,   -- the endpoint that has taken this one's deliveries over; null once all have moved
    add column if not exists merged_suffix text; -- what this one's url has beyond the other's
create index concurrently if not exists endpoints_merged on endpoints (id) where merged_into is not null;

-- +goose Down
drop index endpoints_merged;
alter table endpoints drop column merged_suffix, drop column merged_into;
