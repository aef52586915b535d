package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// CancelTask stops polling a task; its memories.ai id can be registered again. A task that has ended
// already is ErrConflict.
func (s *Store) CancelTask(ctx context.Context, scope Scope, id uuid.UUID) error {
	return s.tx(ctx, "cancel task", func(tx pgx.Tx) error {
		t, err := one[Task](ctx, tx, `
				select `+taskColumns+`
				from tasks
				where id = $1 and ($2::uuid is null or app_id = $2) for update`, id, scope.arg())
		if err != nil {
			return err
		}
		if !t.CanCancel() {
			return conflict("the task has ended: it is %s", t.Status)
		}
		if err := s.note(ctx, tx, id, fields{"status": t.Status}, fields{"status": TaskCancelled}); err != nil {
			return err
		}
		t.Status, t.Polling = TaskCancelled, false
		return s.saveTasks(ctx, tx, []taskChange{{Task: &t}})
	})
}

// A task is not told to have expired before it was asked once more: its poller asks it within lastCall before it expires,
// or afterwards if more tasks expire together than the account's budget allows, and a poll of an expired task ends it (see
// applyPolls). ExpireTasks ends the tasks that were asked before they expired, and those of which nobody can be asked.
const (
	lastCall = time.Minute // package polling has the same
	// pollGrace is how long a poll that was sent before a task expired may take to be recorded: memories.ai has 10 s to answer.
	// The task does not end before, since the answer may have its videos.
	pollGrace = 12 * time.Second
	// answerGrace is how long a task that was asked, and whose poll failed, is asked again after it has expired.
	answerGrace = 5 * time.Minute
	// unaskedGrace is how long an expired task waits to be asked: longer than an account at 1 request/s takes for 1,500
	// tasks that expire together. Afterwards it ends, so that a customer is told something even if polling is paused.
	unaskedGrace = 30 * time.Minute
	// settleGrace is how long a task that has what it waited for may go on settling beyond its expiry, until a poll has
	// seen its list whole: an account may have been busy or away.
	settleGrace = 24 * time.Hour
	// outage is how many times in a row an account must have failed before its tasks expire unasked. A backoff of some
	// seconds, such as for a rate limit, is no reason: the tasks are asked when it is over.
	outage = 5
	// committed is within what time of its end a poll is recorded, as a rule.
	committed = 10 * time.Second
)

// ExpireTasks ends up to limit tasks that expired at from or later, fewer where their lists are long, and returns their number.
// next is the from of the next call: where tasks are left that wait to be asked it spares a look at each of them at every call.
// A caller begins anew with the zero time once in a while, to find those whose account has failed since, and those that have
// waited too long.
//
// Tasks that only settle end by themselves, or here after settleGrace.
func (s *Store) ExpireTasks(ctx context.Context, from time.Time, limit int) (n int, next time.Time, err error) {
	now := s.now()
	next = now.Add(-committed - pollGrace)
	// Nearly always no task's time is up, which takes one statement to learn. The order leaves the planner only the index,
	// however old the table's statistics are.
	var due bool
	err = s.pool.QueryRow(ctx, `
		select count(*) > 0
		from (select from tasks where polling and expires_at between $1 and $2 order by expires_at limit 1) t`, from, now).Scan(&due)
	if err != nil {
		return 0, next, fmt.Errorf("look for expired tasks: %w", err)
	}
	if !due {
		return 0, next, nil
	}
	err = s.tx(ctx, "expire tasks", func(tx pgx.Tx) error {
		// This runs every second: where the table's statistics are old the conditions would let the planner read all of it.
		if _, err := tx.Exec(ctx, `set local enable_seqscan = off`); err != nil {
			return err
		}
		// Sizes are as stored: most lists are compressed. A subscription, which gets a delivery, counts as 100 bytes. What is locked
		// is what is read: a second look at the table would see its rows as they were before they were locked.
		expired, err := many[Task](ctx, tx, `
			with due as materialized (
				select *, pg_column_size(videos) + 100 * (select count(*) from subscriptions s where s.task = t.id) as bytes
				from tasks t
				where polling and expires_at between $1 and $2
					and (status <> 'ready' or (until = 'indexed' and indexed_at is null) or expires_at <= $4)
					and (last_polled_at >= expires_at - $5::interval and expires_at <= case when last_error is null then $9::timestamptz else $6 end
						or expires_at <= $7
						or not exists (
							select 1
							from accounts a
							where a.id = t.account_id
								and (a.state in ('active', 'rate_limited') or a.troubles < $8 or a.paused_until <= $2)))
				order by expires_at
				limit $3
				for update of t skip locked
			), sized as (
				select *, row_number() over (order by expires_at, id) = 1 or sum(bytes) over (order by expires_at, id) <= $10 as taken from due
			)
			select `+taskColumns+`, (select count(*) from due) > count(*) over () as cut
			from sized
			where taken
			order by expires_at`,
			from, now, limit, now.Add(-settleGrace), lastCall, now.Add(-answerGrace), now.Add(-unaskedGrace), outage,
			now.Add(-pollGrace), pageBytes)
		if err != nil {
			return err
		}
		n = len(expired)
		var events []Event
		changes := make([]taskChange, n)
		for i := range expired {
			t := &expired[i]
			changes[i].Task = t
			for _, ev := range t.expire() {
				ev.AppID, ev.CreatedAt, ev.Task = t.AppID, now, t
				events = append(events, ev)
			}
		}
		if n == limit || (n > 0 && expired[0].Cut) {
			next = expired[n-1].ExpiresAt
		}
		if err := s.saveTasks(ctx, tx, changes); err != nil {
			return err
		}
		return s.emitForTasks(ctx, tx, events)
	})
	return n, next, err
}
