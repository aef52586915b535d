package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Subscription is one endpoint's interest in a task.
type Subscription struct {
	ID         uuid.UUID
	TaskID     uuid.UUID `db:"task"`
	EndpointID uuid.UUID
	Suffix     string // what the callback URL has beyond the endpoint's URL
	URL        string // the callback URL, where read for a task
}

// maxSubscriptions is how many subscriptions a task can have. An event is inserted with all of its deliveries in one transaction,
// which hundreds of tasks share.
const maxSubscriptions = 1000

// key returns the fields that identify a subscription.
func (s Subscription) key() subscriptionKey { return subscriptionKey{s.TaskID, s.EndpointID, s.Suffix} }

type subscriptionKey struct {
	task, endpoint uuid.UUID
	suffix         string
}

var subscriptionColumns = []column[Subscription]{
	col("id", "uuid", func(s Subscription) uuid.UUID { return s.ID }),
	col("task", "uuid", func(s Subscription) uuid.UUID { return s.TaskID }),
	col("endpoint_id", "uuid", func(s Subscription) uuid.UUID { return s.EndpointID }),
	col("suffix", "text", func(s Subscription) string { return s.Suffix }),
}

// subscribe inserts those of the subscriptions that do not exist yet and returns them, and the ids of the tasks for which it left
// some out because they have maxSubscriptions. Subscribers of tasks that are not in created, the tasks of this transaction,
// are sent what has happened to them before.
func (s *Store) subscribe(ctx context.Context, tx pgx.Tx, wanted []Subscription, created map[uuid.UUID]bool) (
	isNew map[subscriptionKey]bool, full map[uuid.UUID]bool, err error,
) {
	// In one order everywhere, so that two batches with the same keys wait for each other in a line.
	slices.SortFunc(wanted, func(a, b Subscription) int {
		return cmp.Or(slices.Compare(a.TaskID[:], b.TaskID[:]), slices.Compare(a.EndpointID[:], b.EndpointID[:]), cmp.Compare(a.Suffix, b.Suffix))
	})
	sql, args := insertInto("subscriptions", wanted, subscriptionColumns)
	inserted, err := many[Subscription](ctx, tx, sql+`
		on conflict (task, endpoint_id, suffix) do nothing returning id, task, endpoint_id, suffix`, args...)
	if isUnique(err) {
		return nil, nil, errUpgrading
	}
	if err != nil {
		return nil, nil, fmt.Errorf("subscribe: %w", err)
	}
	isNew = make(map[subscriptionKey]bool, len(inserted))
	added := make(map[uuid.UUID]int, len(inserted))
	for _, sub := range inserted {
		isNew[sub.key()] = true
		added[sub.TaskID]++
	}
	var late, crowded []uuid.UUID
	for task, n := range added {
		if !created[task] {
			late = append(late, task)
		}
		if !created[task] || n > maxSubscriptions {
			crowded = append(crowded, task)
		}
	}
	if full, err = unsubscribe(ctx, tx, crowded, inserted, isNew); err != nil {
		return nil, nil, err
	}
	return isNew, full, s.catchUp(ctx, tx, late, isNew)
}

// unsubscribe deletes those of the inserted subscriptions, and from isNew, that are beyond maxSubscriptions of one of the tasks. It
// returns the ids of these.
func unsubscribe(ctx context.Context, tx pgx.Tx, tasks []uuid.UUID, inserted []Subscription, isNew map[subscriptionKey]bool) (
	full map[uuid.UUID]bool, err error,
) {
	if len(tasks) == 0 {
		return nil, nil
	}
	// Locked first, so that the statement below sees what others that add to the same tasks have committed.
	if _, err := tx.Exec(ctx, `select 1 from tasks where id = any($1) order by id for no key update`, tasks); err != nil {
		return nil, fmt.Errorf("lock tasks with more subscribers: %w", err)
	}
	beyond, err := many[Subscription](ctx, tx, `
		with numbered as (
			select id, row_number() over (partition by task order by id = any($2), id) as n from subscriptions where task = any($1)
		)
		delete from subscriptions s
		using numbered n
		where s.task = any($1) and s.id = n.id and n.id = any($2) and n.n > $3
		returning s.id, s.task, s.endpoint_id, s.suffix`,
		tasks, distinct(inserted, func(s Subscription) uuid.UUID { return s.ID }), maxSubscriptions)
	if err != nil {
		return nil, fmt.Errorf("count subscribers: %w", err)
	}
	full = make(map[uuid.UUID]bool)
	for _, sub := range beyond {
		full[sub.TaskID] = true
		delete(isNew, sub.key())
	}
	return full, nil
}

// catchUp delivers to new subscribers what happened to the tasks before they came.
func (s *Store) catchUp(ctx context.Context, tx pgx.Tx, tasks []uuid.UUID, isNew map[subscriptionKey]bool) error {
	if len(tasks) == 0 {
		return nil
	}
	// Without their payloads, which may have megabytes each.
	events, err := many[Event](ctx, tx, `select id, app_id, type, created_at, task from events where task = any($1) order by id`, tasks)
	if err != nil {
		return fmt.Errorf("read events of before: %w", err)
	}
	untold, err := scalars[uuid.UUID](ctx, tx, `select id from tasks where id = any($1) and status = 'ready' order by id`, tasks)
	if err != nil {
		return fmt.Errorf("look for ready tasks: %w", err)
	}
	if len(events)+len(untold) == 0 {
		return nil
	}
	recipients, err := s.recipientsOf(ctx, tx, tasks)
	if err != nil {
		return err
	}
	wanting := func(task uuid.UUID, eventType string) []recipient {
		return slices.DeleteFunc(slices.Clone(recipients[task]), func(r recipient) bool {
			return !isNew[subscriptionKey{r.TaskID, r.EndpointID, r.Suffix}] || !r.wants(eventType)
		})
	}
	emissions := make([]emission, len(events))
	for i, ev := range events {
		emissions[i] = emission{ev, wanting(*ev.TaskID, ev.Type)}
		if ev.Type == EventReady {
			untold = slices.DeleteFunc(untold, func(id uuid.UUID) bool { return id == *ev.TaskID })
		}
	}
	for _, id := range untold {
		if err := s.tellReady(ctx, tx, id, wanting(id, EventReady)); err != nil {
			return err
		}
	}
	return s.insertDeliveries(ctx, tx, emissions)
}

// tellReady emits another task.ready of a task to some of its subscribers, where the first is past its retention.
func (s *Store) tellReady(ctx context.Context, tx pgx.Tx, id uuid.UUID, to []recipient) error {
	if len(to) == 0 {
		return nil
	}
	t, err := one[Task](ctx, tx, `select `+taskColumns+` from tasks where id = $1`, id)
	if err != nil {
		return fmt.Errorf("read a ready task: %w", err)
	}
	ev := Event{AppID: t.AppID, Type: EventReady, CreatedAt: *t.ReadyAt, Task: &t, Traceparent: t.Traceparent}
	return s.emit(ctx, tx, []emission{{ev, to}})
}

// subscriptionsOf are the subscriptions s of the tasks $1, looked up task by task. Left to itself the planner, which does not know
// yet how many there are, reads all subscriptions of the endpoints, of which one may have a million (measured: registering in
// batches took PostgreSQL three times as long).
const subscriptionsOf = `unnest($1::uuid[]) as wanted (id)
		cross join lateral (select * from subscriptions where task = wanted.id offset 0) s`

// readSubscriptions fills in the tasks' subscriptions, the oldest first.
func readSubscriptions(ctx context.Context, q querier, tasks ...*Task) error {
	byID := make(map[uuid.UUID]*Task, len(tasks))
	ids := make([]uuid.UUID, len(tasks))
	for i, t := range tasks {
		ids[i], byID[t.ID] = t.ID, t
	}
	subs, err := many[Subscription](ctx, q, `
		select s.id, s.task, s.endpoint_id, s.suffix, `+callbackURLOf("e", "s")+` as url
		from `+subscriptionsOf+`
		join endpoints e on e.id = s.endpoint_id
		where e.deleted_at is null
		order by s.created_at, s.id`, ids)
	if err != nil {
		return fmt.Errorf("read subscriptions: %w", err)
	}
	for _, sub := range subs {
		t := byID[sub.TaskID]
		t.Subscriptions = append(t.Subscriptions, sub)
	}
	return nil
}
