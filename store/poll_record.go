package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Polled is what recording a poll has shown of its task.
type Polled struct {
	Polling bool // the task is still to be polled
	Ready   bool // this poll made it ready
	Target  PollTarget
}

// pollLinger is how long a poll that changes nothing waits for others to be recorded with. Of 300 accounts with one request per
// second each, whose polls come some 3 ms apart, it saves two thirds of the CPU of recording them.
const pollLinger = 50 * time.Millisecond

// RecordPoll records one poll: its counters and, where the task changed, its events with their deliveries and jobs, all in
// one transaction. Polls that come at the same time share it, and those that change nothing wait for one another. Faults do not:
// their poller may have to back off.
func (s *Store) RecordPoll(ctx context.Context, p Poll) (Polled, error) {
	if p.Fault == nil && p.changesNothing() {
		return s.idlePolls.Do(ctx, p)
	}
	return s.polls.Do(ctx, p)
}

func (s *Store) recordPollBatch(ctx context.Context, polls []Poll) ([]Polled, error) {
	out := make([]Polled, len(polls))
	err := s.tx(ctx, "record polls", func(tx pgx.Tx) error {
		for _, round := range rounds(polls, func(p Poll) uuid.UUID { return p.TaskID }) {
			if err := s.recordRound(ctx, tx, polls, round, out); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		s.activity.count(s.now(), func(m *Minute) {
			m.Polls += int64(len(polls))
			for i, p := range polls {
				if out[i].Ready {
					m.DetectionLag.observe(p.Lag)
				}
			}
		})
	}
	return out, err
}

// recordRound records the polls with the given indices, each of another task, into out.
func (s *Store) recordRound(ctx context.Context, tx pgx.Tx, polls []Poll, round []int, out []Polled) error {
	index := make(map[uuid.UUID]int, len(round))
	var counters, changes []Poll
	for _, i := range round {
		p := polls[i]
		index[p.TaskID] = i
		if p.changesNothing() {
			counters = append(counters, p)
		} else {
			changes = append(changes, p)
		}
	}
	counted, err := countPolls(ctx, tx, counters)
	if err != nil {
		return err
	}
	applied, err := s.applyPolls(ctx, tx, changes)
	if err != nil {
		return err
	}
	for _, p := range append(counted, applied...) {
		out[index[p.Target.ID]] = p
	}
	return nil
}

// pollLog is how many polls of a task are kept to be looked at.
const pollLog = 20

// pollLogWith returns the SQL of the task t's log with one poll more, in Unix milliseconds and its outcome.
func pollLogWith(at, outcome string) string {
	return fmt.Sprintf(`(t.poll_log || ((extract(epoch from %s) * 1000)::bigint || ' ' || %s))[greatest(1, cardinality(t.poll_log) - %d):]`,
		at, outcome, pollLog-2)
}

var countedPollColumns = []column[Poll]{
	col("id", "uuid", func(p Poll) uuid.UUID { return p.TaskID }),
	col("at", "timestamptz", func(p Poll) time.Time { return p.At }),
	col("next_poll_at", "timestamptz", func(p Poll) time.Time { return p.NextPollAt }),
	col("fault", "jsonb", func(p Poll) *string { return jsonOrNull(p.Fault) }),
	col("progress", "jsonb", func(p Poll) *string { return jsonOrNull(p.Progress) }),
	col("outcome", "text", Poll.outcome),
}

// countPolls records polls that change nothing but counters. Of a task that has ended meanwhile, what it ended with stays.
func countPolls(ctx context.Context, tx pgx.Tx, polls []Poll) ([]Polled, error) {
	if len(polls) == 0 {
		return nil, nil
	}
	type row struct {
		PollTarget
		Polling bool
	}
	from, args := unnest("n", polls, countedPollColumns)
	found, err := many[row](ctx, tx, `
		update tasks t
		set polls = t.polls + 1, last_polled_at = n.at, next_poll_at = n.next_poll_at,
			last_error = case when t.polling then n.fault else t.last_error end,
			progress = case when t.polling then coalesce(n.progress, t.progress) else t.progress end,
			poll_log = `+pollLogWith("n.at", "n.outcome")+`
		from `+from+`
		where t.id = n.id
		returning t.polling, `+pollTargetColumns, args...)
	if err != nil {
		return nil, fmt.Errorf("count polls: %w", err)
	}
	out := make([]Polled, len(found))
	for i, r := range found {
		out[i] = Polled{Polling: r.Polling, Target: r.PollTarget}
	}
	return out, nil
}

// applyPolls records polls that may change their tasks.
func (s *Store) applyPolls(ctx context.Context, tx pgx.Tx, polls []Poll) ([]Polled, error) {
	if len(polls) == 0 {
		return nil, nil
	}
	byTask := make(map[uuid.UUID]*Poll, len(polls))
	ids := make([]uuid.UUID, len(polls))
	for i := range polls {
		ids[i], byTask[polls[i].TaskID] = polls[i].TaskID, &polls[i]
	}
	type row struct {
		Task
		Overdue bool
	}
	// Whether a task has expired is for the database's clock to say: an instance's may be wrong by a day.
	tasks, err := many[row](ctx, tx, `
		select `+taskColumns+`, expires_at <= clock_timestamp() as overdue
		from tasks
		where id = any($1)
		order by id
		for update`, ids)
	if err != nil {
		return nil, fmt.Errorf("read polled tasks: %w", err)
	}
	var events []Event
	changes, out := make([]taskChange, len(tasks)), make([]Polled, len(tasks))
	for i := range tasks {
		t := &tasks[i].Task
		p := byTask[t.ID]
		waited := t.Status == TaskWaiting
		told := t.apply(*p, s.settle)
		if t.Polling && p.Fault == nil && !t.reached() && tasks[i].Overdue {
			told = append(told, t.expire()...) // it was asked for the last time
		}
		for _, ev := range told {
			ev.AppID, ev.CreatedAt, ev.Task, ev.Traceparent = t.AppID, p.At, t, p.Traceparent
			events = append(events, ev)
		}
		t.Polls++
		t.LastPolledAt, t.NextPollAt = &p.At, &p.NextPollAt
		changes[i] = taskChange{t, p}
		out[i] = Polled{Polling: t.Polling, Ready: waited && t.Status == TaskReady, Target: t.pollTarget()}
	}
	if err := s.saveTasks(ctx, tx, changes); err != nil {
		return nil, err
	}
	return out, s.emitForTasks(ctx, tx, events)
}
