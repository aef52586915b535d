package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Registration is a registration: a task and one callback URL that is to hear of it.
type Registration struct {
	AppID, AccountID     uuid.UUID
	UpstreamID, UniqueID string
	CallbackURL          string
	Metadata             map[string]string
	Until                string
	ExpectedVideos       *int
	ExpiresAt            time.Time
	Traceparent          *string // where the registration is traced
}

func (n Registration) key() taskKey { return taskKey{n.AppID, n.UpstreamID, n.UniqueID} }

// Registered is the answer to a registration.
type Registered struct {
	Task    *Task // with its subscriptions
	Created bool  // the subscription is new
}

// taskKey names a task as its app does.
type taskKey struct {
	AppID                uuid.UUID
	UpstreamID, UniqueID string
}

func compareKeys(a, b taskKey) int {
	return cmp.Or(slices.Compare(a.AppID[:], b.AppID[:]), cmp.Compare(a.UpstreamID, b.UpstreamID), cmp.Compare(a.UniqueID, b.UniqueID))
}

// RegisterTask registers one task; registrations that come at the same time share a transaction.
// What a known task already has (metadata, until, expected videos, expiry) stays as it is.
func (s *Store) RegisterTask(ctx context.Context, n Registration) (Registered, error) {
	return s.register.Do(ctx, n)
}

// RegisterTasks registers up to a thousand tasks in one transaction and answers each, in order.
func (s *Store) RegisterTasks(ctx context.Context, tasks []Registration) ([]Registered, error) {
	return s.registerTasks(ctx, tasks)
}

func (s *Store) registerTasks(ctx context.Context, news []Registration) (out []Registered, err error) {
	err = s.tx(ctx, "register tasks", func(tx pgx.Tx) error {
		endpoints, err := s.endpointsFor(ctx, tx, news)
		if err != nil {
			return err
		}
		tasks, fresh, err := s.insertTasks(ctx, tx, news)
		if err != nil {
			return err
		}
		created, err := s.subscribe(ctx, tx, news, tasks, fresh, endpoints)
		if err != nil {
			return err
		}
		if err := s.readSubscriptions(ctx, tx, tasks); err != nil {
			return err
		}
		var accounts []uuid.UUID
		for _, n := range news {
			if fresh[n.key()] && !slices.Contains(accounts, n.AccountID) {
				accounts = append(accounts, n.AccountID)
			}
		}
		if err := s.ensurePollJobs(ctx, tx, accounts); err != nil {
			return err
		}
		out = make([]Registered, len(news))
		for i, n := range news {
			t := tasks[n.key()]
			sub := subscriptionKey{t.ID, endpoints[endpointKey{n.AppID, n.CallbackURL}]}
			out[i] = Registered{Task: t, Created: created[sub]}
			delete(created, sub) // the same again in one batch was there already
		}
		return nil
	})
	if err == nil {
		s.activity.count(s.now(), func(m *Minute) { m.Registrations += int64(len(news)) })
	}
	return out, err
}

// insertTasks inserts the tasks that are not there yet and reads the others, locked so that none of
// them turns ready before the caller has subscribed. fresh holds the inserted ones.
func (s *Store) insertTasks(ctx context.Context, tx pgx.Tx, news []Registration) (tasks map[taskKey]*Task, fresh map[taskKey]bool, err error) {
	tasks, fresh = make(map[taskKey]*Task, len(news)), make(map[taskKey]bool, len(news))
	unique := make([]Registration, 0, len(news))
	seen := make(map[taskKey]bool, len(news))
	for _, n := range news {
		if !seen[n.key()] {
			seen[n.key()] = true
			unique = append(unique, n)
		}
	}
	// In one order everywhere, so that two batches with the same keys wait for each other in a line.
	slices.SortFunc(unique, func(a, b Registration) int { return compareKeys(a.key(), b.key()) })

	// A task can be closed between the insert that it blocks and the read that looks for it: once more, then.
	for range 3 {
		var missing []Registration
		for _, n := range unique {
			if tasks[n.key()] == nil {
				missing = append(missing, n)
			}
		}
		if len(missing) == 0 {
			return tasks, fresh, nil
		}
		if err := s.insertFresh(ctx, tx, missing, tasks, fresh); err != nil {
			return nil, nil, err
		}
		if err := readKnown(ctx, tx, missing, tasks); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, fmt.Errorf("register: %w: the task ended meanwhile", ErrConflict)
}

func (s *Store) insertFresh(ctx context.Context, tx pgx.Tx, missing []Registration, tasks map[taskKey]*Task, fresh map[taskKey]bool) error {
	var (
		n                   = len(missing)
		now                 = s.now().Truncate(time.Microsecond) // as it is read back
		ids, apps, accounts = make([]uuid.UUID, n), make([]uuid.UUID, n), make([]uuid.UUID, n)
		taskIDs, uniqueIDs  = make([]string, n), make([]string, n)
		untils, metadatas   = make([]string, n), make([]string, n)
		expected            = make([]*int, n)
		expires             = make([]time.Time, n)
		traces              = make([]*string, n)
		made                = make(map[uuid.UUID]*Task, n)
	)
	for i, m := range missing {
		metadata, err := json.Marshal(m.Metadata)
		if err != nil {
			return fmt.Errorf("encode metadata: %w", err)
		}
		if m.Metadata == nil {
			metadata = []byte("{}")
		}
		ids[i], apps[i], accounts[i] = newID(), m.AppID, m.AccountID
		taskIDs[i], uniqueIDs[i], untils[i], metadatas[i] = m.UpstreamID, m.UniqueID, m.Until, string(metadata)
		expected[i], expires[i], traces[i] = m.ExpectedVideos, m.ExpiresAt, m.Traceparent
		made[ids[i]] = &Task{
			ID: ids[i], AppID: m.AppID, AccountID: m.AccountID, UpstreamID: m.UpstreamID, UniqueID: m.UniqueID, Status: TaskWaiting, Polling: true,
			Until: m.Until, ExpectedVideos: m.ExpectedVideos, Metadata: m.Metadata, NextPollAt: &now, CreatedAt: now, ExpiresAt: m.ExpiresAt,
		}
	}
	rows, err := tx.Query(ctx, `
		insert into tasks (id, app_id, account_id, task_id, unique_id, until, expected_videos, metadata, expires_at, traceparent, next_poll_at, created_at)
		select id, app_id, account_id, task_id, unique_id, until, expected_videos, metadata::jsonb, expires_at, traceparent, $11, $11
		from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::int[], $8::text[], $9::timestamptz[], $10::text[])
			as n (id, app_id, account_id, task_id, unique_id, until, expected_videos, metadata, expires_at, traceparent)
		on conflict (app_id, task_id, unique_id, closed) do nothing
		returning id`,
		ids, apps, accounts, taskIDs, uniqueIDs, untils, expected, metadatas, expires, traces, now)
	if err != nil {
		return fmt.Errorf("insert tasks: %w", err)
	}
	inserted, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return fmt.Errorf("insert tasks: %w", err)
	}
	for _, id := range inserted {
		t := made[id]
		key := taskKey{t.AppID, t.UpstreamID, t.UniqueID}
		tasks[key], fresh[key] = t, true
	}
	return nil
}

// readKnown reads, of the given tasks, those that are not in tasks yet.
func readKnown(ctx context.Context, tx pgx.Tx, missing []Registration, tasks map[taskKey]*Task) error {
	var apps []uuid.UUID
	var taskIDs, uniqueIDs []string
	for _, n := range missing {
		if tasks[n.key()] == nil {
			apps, taskIDs, uniqueIDs = append(apps, n.AppID), append(taskIDs, n.UpstreamID), append(uniqueIDs, n.UniqueID)
		}
	}
	if len(apps) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `
		select `+taskColumns+`
		from tasks
		where (app_id, task_id, unique_id, closed) in (select *, 0 from unnest($1::uuid[], $2::text[], $3::text[]))
		order by id
		for key share`, apps, taskIDs, uniqueIDs)
	known, err := many[Task](rows, err)
	if err != nil {
		return fmt.Errorf("read tasks: %w", err)
	}
	for i := range known {
		t := &known[i]
		tasks[taskKey{t.AppID, t.UpstreamID, t.UniqueID}] = t
	}
	return nil
}

type subscriptionKey struct{ task, endpoint uuid.UUID }

// subscribe inserts the subscriptions that are not there yet, and for those of tasks to which
// something has happened already, the deliveries of it. It returns the inserted ones.
func (s *Store) subscribe(ctx context.Context, tx pgx.Tx, news []Registration, tasks map[taskKey]*Task, fresh map[taskKey]bool, endpoints map[endpointKey]uuid.UUID) (map[subscriptionKey]bool, error) {
	var ids, taskIDs, endpointIDs []uuid.UUID
	wanted := make(map[subscriptionKey]bool, len(news))
	for _, n := range news {
		k := subscriptionKey{tasks[n.key()].ID, endpoints[endpointKey{n.AppID, n.CallbackURL}]}
		if !wanted[k] {
			wanted[k] = true
			ids, taskIDs, endpointIDs = append(ids, newID()), append(taskIDs, k.task), append(endpointIDs, k.endpoint)
		}
	}
	rows, err := tx.Query(ctx, `
		insert into subscriptions (id, task, endpoint_id)
		select * from unnest($1::uuid[], $2::uuid[], $3::uuid[]) as n (id, task, endpoint_id)
		order by task, endpoint_id
		on conflict (task, endpoint_id) do nothing
		returning id, task, endpoint_id`, ids, taskIDs, endpointIDs)
	inserted, err := many[Subscription](rows, err)
	if err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	isFresh := make(map[uuid.UUID]bool, len(fresh))
	for key := range fresh {
		isFresh[tasks[key].ID] = true
	}
	created := make(map[subscriptionKey]bool, len(inserted))
	var late []Subscription
	for _, sub := range inserted {
		created[subscriptionKey{sub.TaskID, sub.EndpointID}] = true
		if !isFresh[sub.TaskID] {
			late = append(late, sub)
		}
	}
	return created, s.catchUp(ctx, tx, late)
}

// catchUp delivers to new subscribers what happened to their tasks before they came.
func (s *Store) catchUp(ctx context.Context, tx pgx.Tx, late []Subscription) error {
	if len(late) == 0 {
		return nil
	}
	ids := make([]uuid.UUID, len(late))
	isNew := make(map[subscriptionKey]bool, len(late))
	for i, sub := range late {
		ids[i] = sub.TaskID
		isNew[subscriptionKey{sub.TaskID, sub.EndpointID}] = true
	}
	rows, err := tx.Query(ctx, `select `+eventColumns+` from events where task = any($1) order by id`, ids)
	events, err := many[Event](rows, err)
	if err != nil || len(events) == 0 {
		return err
	}
	subscribers, err := s.subscribers(ctx, tx, ids)
	if err != nil {
		return err
	}
	var emissions []emission
	for _, ev := range events {
		e := emission{event: ev}
		for _, c := range subscribers[*ev.TaskID] {
			if isNew[subscriptionKey{c.TaskID, c.EndpointID}] && c.wants(ev.Type) {
				e.targets = append(e.targets, target{c.EndpointID, c.Parks})
			}
		}
		emissions = append(emissions, e)
	}
	return s.deliver(ctx, tx, emissions)
}
