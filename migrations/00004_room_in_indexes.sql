-- A task that turns ready gets a new entry in each index beside its old one. Where pages are filled as the tasks come,
-- all of them would be split or searched for what may go then.

-- +goose Up
-- A delivery changes once, soon after it was made: with room for that on its page it needs no new entry in any index.
alter table deliveries set (fillfactor = 50);
alter index tasks_pkey set (fillfactor = 50);
alter index tasks_app set (fillfactor = 50);
alter index tasks_status set (fillfactor = 50);
alter index tasks_polling set (fillfactor = 50);
alter index tasks_expiring set (fillfactor = 50);

-- +goose Down
alter table deliveries set (fillfactor = 80);
alter index tasks_expiring reset (fillfactor);
alter index tasks_polling reset (fillfactor);
alter index tasks_status reset (fillfactor);
alter index tasks_app reset (fillfactor);
alter index tasks_pkey reset (fillfactor);
