package store

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// The event types.
const (
	EventReady             = "task.ready"
	EventUpdated           = "task.updated"
	EventIndexed           = "task.indexed"
	EventFailed            = "task.failed"
	EventExpired           = "task.expired"
	EventUploadFailed      = "upload.failed"
	EventUploadUnknown     = "upload.unknown"
	EventEndpointFailing   = "endpoint.failing"
	EventEndpointDisabled  = "endpoint.disabled"
	EventEndpointRecovered = "endpoint.recovered"
	EventTest              = "webhook.test"
)

// EventTypes lists them all.
var EventTypes = []string{
	EventReady, EventUpdated, EventIndexed, EventFailed, EventExpired, EventUploadFailed, EventUploadUnknown,
	EventEndpointFailing, EventEndpointDisabled, EventEndpointRecovered, EventTest,
}

// Event is something that happened and that subscribers hear of. When it is made, Task, Endpoint
// or Upload says what it happened to; when it is read back, Payload holds the bytes.
type Event struct {
	ID        uuid.UUID
	AppID     uuid.UUID
	Type      string
	CreatedAt time.Time

	Task     *Task      `db:"-"`
	Added    []string   `db:"-"` // of EventUpdated: the new video ids
	Error    *TaskError `db:"-"` // of EventFailed
	Endpoint *Endpoint  `db:"-"`
	Upload   *Upload    `db:"-"`

	TaskID     *uuid.UUID `db:"task"`
	EndpointID *uuid.UUID
	Payload    string
	Cut        bool // where read for a page: it was cut, so that there are more

	Traceparent *string
}

// Encode writes an event as the body of its webhooks: the exact bytes that are signed and sent.
type Encode func(Event) ([]byte, error)

const eventColumns = `e.id, e.app_id, e.type, e.created_at, e.task, e.endpoint_id, e.payload`

// Event reads one event.
func (s *Store) Event(ctx context.Context, scope Scope, id uuid.UUID) (Event, error) {
	return one[Event](ctx, s.pool, `
			select `+eventColumns+`
			from events e
			where e.id = $1 and ($2::uuid is null or e.app_id = $2)`, id, scope.arg())
}

// The feed's order is (xid, id): by the transaction that has made an event, then by id. An event is in the feed when every
// transaction of this database that began to write before its own has ended, so whatever commits later comes later, too: no
// reader passes an event that it could not see. Ids alone cannot give that order: they are made before their transactions
// commit, and by several clocks. The price is that a transaction that writes to this database holds back what comes after it
// until it ends.

// feedEnd is the SQL of the first transaction whose events may not be shown yet: the first that was under way when the
// statement took its snapshot, but for those of sessions of other databases, which make no events. Sessions are looked at after the
// snapshot was taken: one that has a transaction of the snapshot's then had it before, so its database is the transaction's.
const feedEnd = `coalesce(
			(select x
			from pg_snapshot_xip(pg_current_snapshot()) x
			where not exists (select from pg_stat_activity a where a.backend_xid = x::xid and a.datname <> current_database())
			order by x
			limit 1),
			pg_snapshot_xmax(pg_current_snapshot()))`

// Events lists events after one, in the order of the feed, of one type unless that is empty. Where the event to begin after
// is not stored, the list begins with what was made later than its id says. cut reports whether the page was cut at
// pageBytes, so that there are more than it has.
func (s *Store) Events(ctx context.Context, scope Scope, eventType string, after uuid.UUID, limit int) (list []Event, cut bool, err error) {
	return eventPage(ctx, s.pool, `
		with cursor as (
			select coalesce((select xid from events where id = $2), '0') as xid,
				exists (select 1 from events where id = $2) as stored,
				`+feedEnd+` as ending
		), page as (
			select e.*
			from cursor c
			cross join apps a
			cross join lateral (
				select *
				from events e
				where e.app_id = a.id and ($3 = '' or e.type = $3) and (e.xid, e.id) > (c.xid, $2) and (c.stored or e.id > $2)
				order by e.xid, e.id
				limit $4
			) e
			-- The end of the feed is applied after the limit: the planner, which does not know it, would expect few rows of each
			-- app, and read and sort all of them.
			where ($1::uuid is null or a.id = $1) and e.xid < c.ending
			order by e.xid, e.id
			limit $4
		)`+cutPage(eventColumns, `octet_length(payload)`, "xid, id")+`
		order by e.xid, e.id`, scope.arg(), after, eventType, limit)
}

// feedBatch is how many events CheckFeed numbers anew at most.
const feedBatch = 20_000

// CheckFeed sets the events' transactions to 0 where the database was restored from a dump into another PostgreSQL, which
// counts its transactions anew: (0, id) is the old order. It reports whether there are more: it goes on at the next call, from
// an app's last events to its first ones, so that no reader passes any that follow its own.
func (s *Store) CheckFeed(ctx context.Context) (more bool, err error) {
	ctx = allowing(ctx, longTimeout)
	n, err := s.sweep(ctx, func(tx pgx.Tx, _ uuid.UUID, _ bool) (int, error) {
		tag, err := tx.Exec(ctx, `
			update sweep set xid = pg_snapshot_xmin(pg_current_snapshot()) where xid <= pg_snapshot_xmin(pg_current_snapshot())`)
		if err != nil || tag.RowsAffected() == 1 {
			return 0, err
		}
		tag, err = tx.Exec(ctx, `
			update events
			set xid = '0'
			where id in (
				select e.id
				from apps a
				cross join lateral (
					select id
					from events
					where app_id = a.id and xid >= pg_snapshot_xmax(pg_current_snapshot())
					order by xid desc, id desc
					limit $1
				) e
				limit $1
			)`, feedBatch)
		if err == nil && tag.RowsAffected() < feedBatch {
			_, err = tx.Exec(ctx, `update sweep set xid = '0'`)
		}
		return int(tag.RowsAffected()), err
	})
	return n == feedBatch, wrapped("check the feed", err)
}

// TaskEvents lists the events of a task after one, oldest first. cut is as of [Store.Events].
func (s *Store) TaskEvents(ctx context.Context, task, after uuid.UUID, limit int) (list []Event, cut bool, err error) {
	return eventPage(ctx, s.pool, `
		with page as (
			select * from events where task = $1 and id > $2 order by id limit $3
		)`+cutPage(eventColumns, `octet_length(payload)`, "id")+`
		order by e.id`, task, after, limit)
}

// eventPage collects a page of events, and reports whether it was cut.
func eventPage(ctx context.Context, q querier, sql string, args ...any) (list []Event, cut bool, err error) {
	list, err = many[Event](ctx, q, sql, args...)
	return list, len(list) > 0 && list[0].Cut, wrapped("list events", err)
}

// TaskHistory returns the last events of a task, oldest first and without their payloads.
func (s *Store) TaskHistory(ctx context.Context, task uuid.UUID, most int) ([]Event, error) {
	list, err := many[Event](ctx, s.pool, `
		select id, app_id, type, created_at, task from events where task = $1 order by id desc limit $2`, task, most)
	slices.Reverse(list)
	return list, wrapped("read a task's events", err)
}
