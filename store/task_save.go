package store

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// taskChange is a task as it is to be saved, and the poll that has changed it, or nil.
type taskChange struct {
	*Task
	poll *Poll
}

// outcome returns the entry of the poll log, or nil without a poll.
func (c taskChange) outcome() *string {
	if c.poll == nil {
		return nil
	}
	return new(c.poll.outcome())
}

// saveTasks writes what polls, expiry and cancelling change.
func (s *Store) saveTasks(ctx context.Context, tx pgx.Tx, changes []taskChange) error {
	if len(changes) == 0 {
		return nil
	}
	now := s.now().UnixMicro()
	from, args := unnest("n", changes, []column[taskChange]{
		col("id", "uuid", func(c taskChange) uuid.UUID { return c.ID }),
		col("status", "text", func(c taskChange) string { return c.Status }),
		col("polling", "boolean", func(c taskChange) bool { return c.Polling }),
		col("closed", "bigint", func(c taskChange) int64 {
			if c.ended() {
				return now
			}
			return 0
		}),
		col("videos", "jsonb", func(c taskChange) string { return toJSON(append([]Video{}, c.Videos...)) }),
		col("progress", "jsonb", func(c taskChange) *string { return jsonOrNull(c.Progress) }),
		col("last_error", "jsonb", func(c taskChange) *string { return jsonOrNull(c.LastError) }),
		col("refusals", "int", func(c taskChange) int { return c.Refusals }),
		col("polls", "int", func(c taskChange) int { return c.Polls }),
		col("grown_at", "timestamptz", func(c taskChange) *time.Time { return c.GrownAt }),
		col("first_refusal_at", "timestamptz", func(c taskChange) *time.Time { return c.FirstRefusalAt }),
		col("ready_at", "timestamptz", func(c taskChange) *time.Time { return c.ReadyAt }),
		col("indexed_at", "timestamptz", func(c taskChange) *time.Time { return c.IndexedAt }),
		col("last_polled_at", "timestamptz", func(c taskChange) *time.Time { return c.LastPolledAt }),
		col("next_poll_at", "timestamptz", func(c taskChange) *time.Time { return c.NextPollAt }),
		col("outcome", "text", taskChange.outcome),
	})
	// The caller has locked the rows, so its counts are current.
	_, err := tx.Exec(ctx, `
		update tasks t
		set status = n.status, polling = n.polling, urgent = t.urgent and n.polling, closed = n.closed, videos = n.videos,
			progress = n.progress, last_error = n.last_error, refusals = n.refusals, polls = n.polls, grown_at = n.grown_at,
			first_refusal_at = n.first_refusal_at, ready_at = n.ready_at, indexed_at = n.indexed_at,
			last_polled_at = n.last_polled_at, next_poll_at = n.next_poll_at,
			ended_at = case when not n.polling then coalesce(t.ended_at, now()) end,
			poll_log = case when n.outcome is null then t.poll_log else `+pollLogWith("n.last_polled_at", "n.outcome")+` end
		from `+from+`
		where t.id = n.id`, args...)
	return wrapped("save tasks", err)
}
