package store

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Registration names a task and one callback URL that is to hear of it.
type Registration struct {
	AppID                uuid.UUID
	UpstreamID, UniqueID string
	CallbackURL          string // in normal form
	Metadata             map[string]string
	Until                string
	ExpectedVideos       *int
	ExpiresIn            time.Duration // from the registration on
	Traceparent          *string       // where the registration is traced
}

func (r Registration) key() taskKey { return taskKey{r.AppID, r.UpstreamID, r.UniqueID} }

// Registered is the answer to a registration.
type Registered struct {
	Task    *Task // with its subscriptions
	Created bool  // the subscription is new
	Full    bool  // the task has as many subscriptions as it can have, and this is none of them
}

// taskKey names a task as its app does.
type taskKey struct {
	AppID                uuid.UUID
	UpstreamID, UniqueID string
}

// RegisterTask registers one task. Registrations that come at the same time share a transaction. What a known
// task already has (metadata, until, expected videos, expiry) stays. It returns ErrNotFound where the app was deleted, and ErrFull
// where the task has too many subscriptions for one more.
func (s *Store) RegisterTask(ctx context.Context, r Registration) (Registered, error) {
	out, err := s.register.Do(ctx, r)
	if err == nil && out.Task == nil {
		err = fmt.Errorf("register task: the app: %w", ErrNotFound)
	}
	if err == nil && out.Full {
		err = fmt.Errorf("register task: %w", ErrFull)
	}
	return out, err
}

// RegisterTasks registers up to 1,000 tasks of one app in one transaction and answers each, in order. It returns ErrNotFound
// where the app was deleted.
func (s *Store) RegisterTasks(ctx context.Context, regs []Registration) ([]Registered, error) {
	out, err := s.registerBatch(ctx, regs)
	if err == nil && len(out) > 0 && out[0].Task == nil {
		err = fmt.Errorf("register tasks: the app: %w", ErrNotFound)
	}
	return out, err
}

// registerBatch answers a registration whose app was deleted with a zero Registered.
func (s *Store) registerBatch(ctx context.Context, all []Registration) (out []Registered, err error) {
	err = s.tx(ctx, "register tasks", func(tx pgx.Tx) error {
		accounts, err := lockApps(ctx, tx, distinct(all, func(r Registration) uuid.UUID { return r.AppID }), "for share")
		if err != nil {
			return err
		}
		regs := slices.DeleteFunc(slices.Clone(all), func(r Registration) bool { return accounts[r.AppID] == uuid.Nil })
		out = make([]Registered, len(all))
		if len(regs) == 0 {
			return nil
		}
		return s.registerLocked(ctx, tx, regs, accounts, all, out)
	})
	if err == nil {
		s.activity.count(s.now(), func(m *Minute) {
			for _, r := range out {
				if r.Created {
					m.Registrations++
				}
			}
		})
	}
	return out, err
}

// lockApps keeps apps from being changed or deleted until the transaction ends, and returns the account of each that
// exists. What is registered is so never left to an account or an app that is gone.
func lockApps(ctx context.Context, tx pgx.Tx, apps []uuid.UUID, lock string) (map[uuid.UUID]uuid.UUID, error) {
	accounts, err := pairs[uuid.UUID, uuid.UUID](ctx, tx, `
		select id, account_id from apps where id = any($1) and deleted_at is null order by id `+lock, apps)
	return accounts, wrapped("lock apps", err)
}

// registerLocked registers regs, whose apps are locked, and answers those of all that are among them, into out.
func (s *Store) registerLocked(ctx context.Context, tx pgx.Tx, regs []Registration, accounts map[uuid.UUID]uuid.UUID,
	all []Registration, out []Registered,
) error {
	destinations, err := s.ensureEndpoints(ctx, tx, regs)
	if err != nil {
		return err
	}
	tasks, created, err := s.ensureTasks(ctx, tx, regs, accounts)
	if err != nil {
		return err
	}
	subscription := func(r Registration) Subscription {
		to := destinations[callback{r.AppID, r.CallbackURL}]
		return Subscription{TaskID: tasks[r.key()].ID, EndpointID: to.endpoint, Suffix: to.suffix}
	}
	wanted := make(map[subscriptionKey]Subscription, len(regs))
	for _, r := range regs {
		sub := subscription(r)
		sub.ID = newID()
		wanted[sub.key()] = sub
	}
	isNew, full, err := s.subscribe(ctx, tx, slices.Collect(maps.Values(wanted)), created)
	if err != nil {
		return err
	}
	if err := readSubscriptions(ctx, tx, slices.Collect(maps.Values(tasks))...); err != nil {
		return err
	}
	fresh := slices.DeleteFunc(slices.Clone(regs), func(r Registration) bool { return !created[tasks[r.key()].ID] })
	err = s.ensurePollJobs(ctx, tx, distinct(fresh, func(r Registration) uuid.UUID { return accounts[r.AppID] }))
	if err != nil {
		return err
	}
	for i, r := range all {
		if t := tasks[r.key()]; t != nil {
			key := subscription(r).key()
			has := slices.ContainsFunc(t.Subscriptions, func(s Subscription) bool { return s.key() == key })
			out[i] = Registered{Task: t, Created: isNew[key], Full: full[t.ID] && !isNew[key] && !has}
			delete(isNew, key) // a repetition within the batch finds it there already
		}
	}
	return nil
}

// ensureTasks inserts the tasks that do not exist yet and reads the others, locked so that none of them becomes ready
// before the caller has subscribed. created holds the ids of those that it inserted.
func (s *Store) ensureTasks(ctx context.Context, tx pgx.Tx, regs []Registration, accounts map[uuid.UUID]uuid.UUID) (
	map[taskKey]*Task, map[uuid.UUID]bool, error,
) {
	tasks, created := make(map[taskKey]*Task, len(regs)), make(map[uuid.UUID]bool, len(regs))
	// In one order everywhere, so that two batches with the same keys wait for each other in a line.
	sorted := slices.Clone(regs)
	slices.SortStableFunc(sorted, func(a, b Registration) int {
		return cmp.Or(slices.Compare(a.AppID[:], b.AppID[:]), cmp.Compare(a.UpstreamID, b.UpstreamID), cmp.Compare(a.UniqueID, b.UniqueID))
	})
	missing := slices.CompactFunc(sorted, func(a, b Registration) bool { return a.key() == b.key() })

	// A task can end between the insert that it blocks and the read that looks for it: then once more.
	for range 3 {
		if err := s.insertTasks(ctx, tx, missing, accounts, tasks, created); err != nil {
			return nil, nil, err
		}
		found := func(r Registration) bool { return tasks[r.key()] != nil }
		if missing = slices.DeleteFunc(missing, found); len(missing) == 0 {
			return tasks, created, nil
		}
		if err := readTasksByKey(ctx, tx, missing, tasks); err != nil {
			return nil, nil, err
		}
		if missing = slices.DeleteFunc(missing, found); len(missing) == 0 {
			return tasks, created, nil
		}
	}
	return nil, nil, conflict("the task ended while it was being registered; register it again")
}

type newTask struct {
	*Task
	expiresIn time.Duration
}

var newTaskColumns = []column[newTask]{
	col("id", "uuid", func(t newTask) uuid.UUID { return t.ID }),
	col("app_id", "uuid", func(t newTask) uuid.UUID { return t.AppID }),
	col("account_id", "uuid", func(t newTask) uuid.UUID { return t.AccountID }),
	col("task_id", "text", func(t newTask) string { return t.UpstreamID }),
	col("unique_id", "text", func(t newTask) string { return t.UniqueID }),
	col("until", "text", func(t newTask) string { return t.Until }),
	col("expected_videos", "int", func(t newTask) *int { return t.ExpectedVideos }),
	col("metadata", "jsonb", func(t newTask) string { return toJSON(orEmpty(t.Metadata)) }),
	col("traceparent", "text", func(t newTask) *string { return t.Traceparent }),
	col("expires_in", "interval", func(t newTask) time.Duration { return t.expiresIn }),
}

// insertTasks inserts those of the registrations' tasks that do not exist yet.
func (s *Store) insertTasks(ctx context.Context, tx pgx.Tx, regs []Registration,
	accounts map[uuid.UUID]uuid.UUID, tasks map[taskKey]*Task, created map[uuid.UUID]bool,
) error {
	byID := make(map[uuid.UUID]*Task, len(regs))
	inserts := make([]newTask, len(regs))
	for i, r := range regs {
		t := &Task{
			ID: newID(), AppID: r.AppID, AccountID: accounts[r.AppID], UpstreamID: r.UpstreamID, UniqueID: r.UniqueID,
			Status: TaskWaiting, Polling: true, Until: r.Until, ExpectedVideos: r.ExpectedVideos, Metadata: r.Metadata,
			Traceparent: r.Traceparent,
		}
		inserts[i], byID[t.ID] = newTask{t, r.ExpiresIn}, t
	}
	// The database's clock says when a task expires, as it does when that has come.
	from, args := unnest("n", inserts, newTaskColumns)
	type inserted struct {
		ID                   uuid.UUID
		CreatedAt, ExpiresAt time.Time
	}
	added, err := many[inserted](ctx, tx, `
		insert into tasks (id, app_id, account_id, task_id, unique_id, until, expected_videos, metadata, traceparent,
			created_at, expires_at, next_poll_at)
		select id, app_id, account_id, task_id, unique_id, until, expected_videos, metadata, traceparent,
			at, at + expires_in, at
		from `+from+`, statement_timestamp() as at
		on conflict (app_id, task_id, unique_id, closed) do nothing
		returning id, created_at, expires_at`, args...)
	if err != nil {
		return fmt.Errorf("insert tasks: %w", err)
	}
	for _, a := range added {
		t := byID[a.ID]
		t.CreatedAt, t.NextPollAt, t.ExpiresAt = a.CreatedAt, &a.CreatedAt, a.ExpiresAt
		tasks[taskKey{t.AppID, t.UpstreamID, t.UniqueID}], created[a.ID] = t, true
	}
	return nil
}

var taskKeyColumns = []column[Registration]{
	col("app_id", "uuid", func(r Registration) uuid.UUID { return r.AppID }),
	col("task_id", "text", func(r Registration) string { return r.UpstreamID }),
	col("unique_id", "text", func(r Registration) string { return r.UniqueID }),
}

// readTasksByKey reads the registrations' tasks that have not ended, with their first videos.
func readTasksByKey(ctx context.Context, tx pgx.Tx, regs []Registration, tasks map[taskKey]*Task) error {
	keys, args := unnest("k", regs, taskKeyColumns)
	known, err := many[Task](ctx, tx, `
		with page as materialized (
			select `+taskListColumns+`
			from tasks
			where (app_id, task_id, unique_id, closed) in (select app_id, task_id, unique_id, 0 from `+keys+`)
			order by id
			for key share
		), `+sizedTasks+`
		select `+sizedTaskColumns+` from sized`, args...)
	if err != nil {
		return fmt.Errorf("read tasks: %w", err)
	}
	for i := range known {
		t := &known[i]
		tasks[taskKey{t.AppID, t.UpstreamID, t.UniqueID}] = t
	}
	return nil
}

// orEmpty returns m, or an empty map for nil.
func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
