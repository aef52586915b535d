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

// subscribe inserts those of the subscriptions that do not exist yet and returns them. Subscribers of tasks that are not
// in created, the tasks of this transaction, are sent what has happened to them before.
func (s *Store) subscribe(ctx context.Context, tx pgx.Tx, wanted []Subscription, created map[uuid.UUID]bool) (
	map[subscriptionKey]bool, error,
) {
	// In one order everywhere, so that two batches with the same keys wait for each other in a line.
	slices.SortFunc(wanted, func(a, b Subscription) int {
		return cmp.Or(slices.Compare(a.TaskID[:], b.TaskID[:]), slices.Compare(a.EndpointID[:], b.EndpointID[:]), cmp.Compare(a.Suffix, b.Suffix))
	})
	sql, args := insertInto("subscriptions", wanted, subscriptionColumns)
	rows, err := tx.Query(ctx, sql+` on conflict (task, endpoint_id, suffix) do nothing returning id, task, endpoint_id, suffix`, args...)
	inserted, err := many[Subscription](rows, err)
	if isUnique(err) {
		return nil, errUpgrading
	}
	if err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	isNew := make(map[subscriptionKey]bool, len(inserted))
	var late []uuid.UUID
	for _, sub := range inserted {
		isNew[sub.key()] = true
		if !created[sub.TaskID] {
			late = append(late, sub.TaskID)
		}
	}
	return isNew, s.catchUp(ctx, tx, late, isNew)
}

// catchUp delivers to new subscribers what happened to the tasks before they came.
func (s *Store) catchUp(ctx context.Context, tx pgx.Tx, tasks []uuid.UUID, isNew map[subscriptionKey]bool) error {
	if len(tasks) == 0 {
		return nil
	}
	// Without their payloads, which may have megabytes each.
	rows, err := tx.Query(ctx, `select id, app_id, type, created_at, task from events where task = any($1) order by id`, tasks)
	events, err := many[Event](rows, err)
	if err != nil || len(events) == 0 {
		return err
	}
	recipients, err := s.recipientsOf(ctx, tx, tasks)
	if err != nil {
		return err
	}
	emissions := make([]emission, len(events))
	for i, ev := range events {
		emissions[i].event = ev
		for _, r := range recipients[*ev.TaskID] {
			if isNew[subscriptionKey{r.TaskID, r.EndpointID, r.Suffix}] && r.wants(ev.Type) {
				emissions[i].to = append(emissions[i].to, r)
			}
		}
	}
	return s.insertDeliveries(ctx, tx, emissions)
}

// readSubscriptions fills in the tasks' subscriptions, the oldest first.
func readSubscriptions(ctx context.Context, q querier, tasks ...*Task) error {
	byID := make(map[uuid.UUID]*Task, len(tasks))
	ids := make([]uuid.UUID, len(tasks))
	for i, t := range tasks {
		ids[i], byID[t.ID] = t.ID, t
	}
	rows, err := q.Query(ctx, `
		select s.id, s.task, s.endpoint_id, s.suffix, `+callbackURLOf("e", "s")+` as url
		from subscriptions s
		join endpoints e on e.id = s.endpoint_id
		where s.task = any($1) and e.deleted_at is null
		order by s.created_at, s.id`, ids)
	subs, err := many[Subscription](rows, err)
	if err != nil {
		return fmt.Errorf("read subscriptions: %w", err)
	}
	for _, sub := range subs {
		t := byID[sub.TaskID]
		t.Subscriptions = append(t.Subscriptions, sub)
	}
	return nil
}
