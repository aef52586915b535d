package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const taskColumns = `id, app_id, account_id, task_id, unique_id, status, polling, until, expected_videos, metadata, videos,
	grown_at, polls, last_polled_at, next_poll_at, hinted_at, last_error, refusals, first_refusal_at,
	created_at, ready_at, indexed_at, expires_at, poll_log, traceparent`

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func (s *Store) readSubscriptions(ctx context.Context, q querier, tasks map[taskKey]*Task) error {
	byID := make(map[uuid.UUID]*Task, len(tasks))
	ids := make([]uuid.UUID, 0, len(tasks))
	for _, t := range tasks {
		byID[t.ID] = t
		ids = append(ids, t.ID)
	}
	return readSubscriptionsOf(ctx, q, ids, byID)
}

func readSubscriptionsOf(ctx context.Context, q querier, ids []uuid.UUID, byID map[uuid.UUID]*Task) error {
	rows, err := q.Query(ctx, `
		select s.id, s.task, s.endpoint_id, e.url
		from subscriptions s
		join endpoints e on e.id = s.endpoint_id
		where s.task = any($1)
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

// Task reads one task with its subscriptions.
func (s *Store) Task(ctx context.Context, scope Scope, id uuid.UUID) (*Task, error) {
	rows, err := s.pool.Query(ctx, `select `+taskColumns+` from tasks where id = $1 and ($2::uuid is null or app_id = $2)`, id, scope.arg())
	t, err := one[Task](rows, err)
	if err != nil {
		return nil, err
	}
	return &t, readSubscriptionsOf(ctx, s.pool, []uuid.UUID{id}, map[uuid.UUID]*Task{id: &t})
}

// TaskFilter narrows a list of tasks; zero fields do not.
type TaskFilter struct {
	Scope                        Scope // whose tasks
	Status, UpstreamID, UniqueID string
}

// Tasks lists tasks with their subscriptions, newest first.
func (s *Store) Tasks(ctx context.Context, f TaskFilter, p Page) ([]Task, error) {
	// Plans are made for the values at hand (see Open), so that a filter that is not there costs nothing. What
	// waits is polled, which has an index across apps.
	apps := ""
	if f.Scope.All() && (f.UpstreamID != "" || f.UniqueID != "") {
		apps = ` and app_id in (select id from apps)` // those indexes begin with the app: each is looked into
	}
	rows, err := s.pool.Query(ctx, `
		select `+taskColumns+`
		from tasks
		where id < $1
			and ($2::uuid is null or app_id = $2)
			and ($3 = '' or status = $3)
			and ($3 <> 'waiting' or polling)
			and ($4 = '' or task_id = $4)
			and ($5 = '' or unique_id = $5)`+apps+`
		order by id desc
		limit $6`, p.before(), f.Scope.arg(), f.Status, f.UpstreamID, f.UniqueID, p.Limit)
	tasks, err := many[Task](rows, err)
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", err)
	}
	byID := make(map[uuid.UUID]*Task, len(tasks))
	ids := make([]uuid.UUID, len(tasks))
	for i := range tasks {
		ids[i] = tasks[i].ID
		byID[tasks[i].ID] = &tasks[i]
	}
	return tasks, readSubscriptionsOf(ctx, s.pool, ids, byID)
}

// CancelTask stops polling a task; its memories.ai id can be registered anew. A task that has ended
// already is ErrConflict.
func (s *Store) CancelTask(ctx context.Context, scope Scope, id uuid.UUID) error {
	return s.tx(ctx, "cancel task", func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `select `+taskColumns+` from tasks where id = $1 and ($2::uuid is null or app_id = $2) for update`, id, scope.arg())
		t, err := one[Task](rows, err)
		if err != nil {
			return err
		}
		if !t.Polling {
			return ErrConflict
		}
		if t.Status == TaskReady && t.Until != UntilIndexed {
			return ErrConflict
		}
		t.Status, t.Polling = TaskCancelled, false
		return s.saveTasks(ctx, tx, []*Task{&t}, nil)
	})
}

// saveTasks writes what polls, expiry and cancelling change. polls, where not nil, has a poll for each
// task, which is counted.
func (s *Store) saveTasks(ctx context.Context, tx pgx.Tx, tasks []*Task, polls []Poll) error {
	if len(tasks) == 0 {
		return nil
	}
	var (
		n                                        = len(tasks)
		now                                      = s.now().UnixMicro()
		ids                                      = make([]uuid.UUID, n)
		statuses, videos                         = make([]string, n), make([]string, n)
		polling                                  = make([]bool, n)
		closed                                   = make([]int64, n)
		refusals, polled                         = make([]int, n), make([]int, n)
		lastErrors, outcomes                     = make([]*string, n), make([]*string, n)
		grown, refused, ready, indexed, at, next = make([]*time.Time, n), make([]*time.Time, n), make([]*time.Time, n), make([]*time.Time, n), make([]*time.Time, n), make([]*time.Time, n)
	)
	for i, t := range tasks {
		if t.Status == TaskFailed || t.Status == TaskExpired || t.Status == TaskCancelled {
			closed[i] = now
		}
		list, err := json.Marshal(append([]Video{}, t.Videos...))
		if err != nil {
			return fmt.Errorf("encode videos: %w", err)
		}
		if t.LastError != nil {
			text, err := json.Marshal(t.LastError)
			if err != nil {
				return fmt.Errorf("encode last error: %w", err)
			}
			lastErrors[i] = new(string(text))
		}
		if polls != nil {
			polled[i] = 1
			t.Polls++
			t.LastPolledAt, t.NextPollAt = &polls[i].At, &polls[i].NextPollAt
			outcomes[i] = new(polls[i].outcome())
		}
		ids[i], statuses[i], polling[i], videos[i], refusals[i] = t.ID, t.Status, t.Polling, string(list), t.Refusals
		grown[i], refused[i], ready[i], indexed[i], at[i], next[i] = t.GrownAt, t.FirstRefusalAt, t.ReadyAt, t.IndexedAt, t.LastPolledAt, t.NextPollAt
	}
	_, err := tx.Exec(ctx, `
		update tasks t
		set status = n.status, polling = n.polling, urgent = t.urgent and n.polling, closed = n.closed, videos = n.videos::jsonb,
			last_error = n.last_error::jsonb, refusals = n.refusals, polls = t.polls + n.polled, grown_at = n.grown_at,
			first_refusal_at = n.first_refusal_at, ready_at = n.ready_at, indexed_at = n.indexed_at,
			last_polled_at = n.at, next_poll_at = n.next_poll_at,
			poll_log = case when n.outcome is null then t.poll_log else `+logged+` end
		from unnest($1::uuid[], $2::text[], $3::boolean[], $4::bigint[], $5::text[], $6::text[], $7::int[], $8::int[],
				$9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::timestamptz[], $14::timestamptz[], $15::text[])
			as n (id, status, polling, closed, videos, last_error, refusals, polled, grown_at, first_refusal_at, ready_at, indexed_at,
				at, next_poll_at, outcome)
		where t.id = n.id`,
		ids, statuses, polling, closed, videos, lastErrors, refusals, polled, grown, refused, ready, indexed, at, next, outcomes)
	if err != nil {
		return fmt.Errorf("save tasks: %w", err)
	}
	return nil
}

// settleGrace is how long a task that has what it waited for may go on settling beyond its expiry, until a poll has
// seen its list whole: an account may have been busy or away.
const settleGrace = 24 * time.Hour

// ExpireTasks ends up to limit tasks whose time is up and tells how many there were. Those that only settle end by
// themselves, or here after settleGrace.
func (s *Store) ExpireTasks(ctx context.Context, limit int) (n int, err error) {
	err = s.tx(ctx, "expire tasks", func(tx pgx.Tx) error {
		now := s.now()
		// This runs every second: where the table's statistics are old the condition on what only settles would let the
		// planner read all of it.
		if _, err := tx.Exec(ctx, `set local enable_seqscan = off`); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			select `+taskColumns+`
			from tasks
			where polling and expires_at <= $1
				and (status <> 'ready' or (until = 'indexed' and indexed_at is null) or expires_at <= $3)
			order by expires_at
			limit $2
			for update skip locked`, now, limit, now.Add(-settleGrace))
		expired, err := many[Task](rows, err)
		if err != nil {
			return err
		}
		n = len(expired)
		var events []Event
		tasks := make([]*Task, n)
		for i := range expired {
			t := &expired[i]
			tasks[i] = t
			for _, ev := range t.expire() {
				ev.AppID, ev.CreatedAt, ev.Task = t.AppID, now, t
				events = append(events, ev)
			}
		}
		if err := s.saveTasks(ctx, tx, tasks, nil); err != nil {
			return err
		}
		return s.emitForTasks(ctx, tx, events)
	})
	return n, err
}

// PollTask moves the next poll of a task to the front, for an operator. A task that is polled no more is
// ErrConflict.
func (s *Store) PollTask(ctx context.Context, scope Scope, id uuid.UUID) error {
	tag, err := s.pool.Exec(ctx, `update tasks set urgent = true, hinted_at = $2 where id = $1 and polling and ($3::uuid is null or app_id = $3)`, id, s.now(), scope.arg())
	if err != nil {
		return fmt.Errorf("poll task: %w", err)
	}
	if tag.RowsAffected() == 0 {
		if _, err := s.Task(ctx, scope, id); err != nil {
			return err
		}
		return fmt.Errorf("%w: the task is polled no more", ErrConflict)
	}
	return nil
}

// hintInterval is the least time between two hints of one task that count: who forges hints for a task
// that he knows gains a poll of it every five seconds.
const hintInterval = 5 * time.Second

// HintTask moves the next poll of an app's task to the front. Unknown and finished tasks are ignored.
func (s *Store) HintTask(ctx context.Context, hintToken, taskID string) error {
	now := s.now()
	_, err := s.pool.Exec(ctx, `
		update tasks t
		set urgent = true, hinted_at = $3
		from apps a
		where a.hint_token = $1 and t.app_id = a.id and t.task_id = $2 and t.closed = 0 and t.polling and not t.urgent
			and (t.hinted_at is null or t.hinted_at <= $4)`, hintToken, taskID, now, now.Add(-hintInterval))
	if err != nil {
		return fmt.Errorf("hint task: %w", err)
	}
	return nil
}
