package store

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Attempt is one POST of a delivery.
type Attempt struct {
	DeliveryID      uuid.UUID
	Number          int // from 1
	At              time.Time
	DurationMS      int
	Outcome         string // DeliveryDelivered or DeliveryFailed
	ResponseStatus  *int
	Error           *string
	ResponseHeaders map[string]string
	ResponseBody    *string // at most 4 KiB
}

// AttemptResult is the outcome of one attempt.
type AttemptResult struct {
	DeliveryID uuid.UUID
	EndpointID uuid.UUID
	Generation int // of the delivery's job

	At              time.Time
	Duration        time.Duration
	Delivered       bool
	ResponseStatus  *int
	Error           *string
	ResponseHeaders map[string]string
	ResponseBody    *string

	NextAttemptAt *time.Time    // nil: delivered, or the schedule is used up
	SharedJob     bool          // its job has other deliveries: the next attempt needs a job of its own
	Blameless     bool          // what failed was not the receiver: the health of its endpoint stays as it is
	Gone          bool          // the receiver answered 410
	Hold          time.Duration // after the attempt, the endpoint is held for so long at least
	Released      bool          // the delivery was released from parking for this attempt
	Test          bool          // its event is webhook.test: a success makes due all that waits for the endpoint
	Healthy       bool          // to the sender's knowledge, a success changes nothing of the endpoint
	Latency       time.Duration // since the delivery was created

	clockError time.Duration // of At, see [Store.ClockError]
}

// end is when the attempt ended.
func (r *AttemptResult) end() time.Time { return r.At.Add(r.Duration) }

// RecordAttempt appends an attempt and moves its delivery on. Attempts that end at the same time share a transaction.
// The caller completes the job only after RecordAttempt has returned.
func (s *Store) RecordAttempt(ctx context.Context, r AttemptResult) error {
	_, err := s.record.Do(ctx, r)
	return err
}

func (s *Store) recordAttemptBatch(ctx context.Context, attempts []AttemptResult) ([]struct{}, error) {
	telling := slices.DeleteFunc(slices.Clone(attempts), func(r AttemptResult) bool { return r.Delivered && r.Healthy })
	touched := distinct(telling, func(r AttemptResult) uuid.UUID { return r.EndpointID }) // their health may change
	var err error
	var changes []Change
	if len(touched) == 0 {
		err = appendAttempts(attempts, func(round []AttemptResult) error {
			return throughDeadlocks(func() error { return appendRound(ctx, s.pool, round) })
		})
	} else {
		err = s.tx(ctx, "record attempts", func(tx pgx.Tx) (err error) {
			if changes, err = s.applyHealth(ctx, tx, touched, attempts); err != nil {
				return err
			}
			if err := appendAttempts(attempts, func(round []AttemptResult) error { return appendRound(ctx, tx, round) }); err != nil {
				return err
			}
			return s.insertDeliverJobs(ctx, tx, nextJobs(attempts))
		})
	}
	if err == nil {
		s.countAttempts(attempts)
		for _, c := range changes {
			s.changed(c)
		}
	}
	return make([]struct{}, len(attempts)), err
}

// nextJobs returns the jobs of the deliveries whose first attempt has failed.
func nextJobs(attempts []AttemptResult) (jobs []DeliverArgs) {
	for _, r := range attempts {
		if r.SharedJob && r.NextAttemptAt != nil {
			jobs = append(jobs, DeliverArgs{DeliveryID: r.DeliveryID, Generation: r.Generation})
		}
	}
	return jobs
}

func (s *Store) countAttempts(attempts []AttemptResult) {
	s.activity.count(s.now(), func(m *Minute) {
		for _, r := range attempts {
			if !r.Delivered {
				m.FailedAttempts++
				continue
			}
			m.Deliveries++
			m.Latency.observe(r.Latency)
		}
	})
	s.activity.countEndpoints(s.now(), attempts)
}

// appendAttempts calls appendRound, which takes distinct deliveries, for all attempts.
func appendAttempts(attempts []AttemptResult, appendRound func([]AttemptResult) error) error {
	for _, round := range rounds(attempts, func(r AttemptResult) uuid.UUID { return r.DeliveryID }) {
		these := make([]AttemptResult, len(round))
		for i, k := range round {
			these[i] = attempts[k]
		}
		if err := appendRound(these); err != nil {
			return err
		}
	}
	return nil
}

var attemptColumns = []column[AttemptResult]{
	col("id", "uuid", func(r AttemptResult) uuid.UUID { return r.DeliveryID }),
	col("generation", "int", func(r AttemptResult) int { return r.Generation }),
	col("at", "timestamptz", func(r AttemptResult) time.Time { return r.At }),
	col("duration_ms", "int", func(r AttemptResult) int { return int(r.Duration.Milliseconds()) }),
	col("delivered", "boolean", func(r AttemptResult) bool { return r.Delivered }),
	col("next_attempt_at", "timestamptz", func(r AttemptResult) *time.Time { return r.NextAttemptAt }),
	col("response_status", "int", func(r AttemptResult) *int { return r.ResponseStatus }),
	col("error", "text", func(r AttemptResult) *string { return r.Error }),
	col("response_headers", "jsonb", func(r AttemptResult) *string {
		if r.ResponseHeaders == nil {
			return nil
		}
		return new(toJSON(r.ResponseHeaders))
	}),
	col("response_body", "text", func(r AttemptResult) *string { return r.ResponseBody }),
}

// appendRound appends attempts of distinct deliveries and moves the deliveries on. One statement, so that it is all or
// nothing without a transaction of its own. The attempt's number is counted here: a second instance that sent the same
// delivery adds its attempt, it does not overwrite. What is delivered stays delivered.
func appendRound(ctx context.Context, q querier, attempts []AttemptResult) error {
	from, args := unnest("n", attempts, attemptColumns)
	_, err := q.Exec(ctx, `
		with result as materialized (
			select * from `+from+`
		), moved as (
			update deliveries d
			set attempt_count = d.attempt_count + 1,
				round_start = d.round_start + case when d.generation = r.generation then 0 else 1 end,
				status = case
					when d.generation <> r.generation then d.status
					when r.delivered then 'delivered'
					when d.status = 'pending' and r.next_attempt_at is null then 'failed'
					else d.status
				end,
				failed = case
					when d.generation <> r.generation then d.failed
					else not r.delivered and ((d.status = 'pending' and r.next_attempt_at is null) or d.failed)
				end,
				next_attempt_at = case
					when d.generation <> r.generation then d.next_attempt_at
					when r.delivered or d.status <> 'pending' then null
					else r.next_attempt_at
				end,
				delivered_at = case
					when d.generation = r.generation and r.delivered then coalesce(d.delivered_at, r.at + r.duration_ms * interval '1 ms')
					else d.delivered_at
				end,
				retrying = case
					when d.generation <> r.generation then d.retrying
					else not r.delivered and d.status = 'pending' and r.next_attempt_at is not null
				end,
				parked = d.parked and (d.generation <> r.generation or d.status = 'pending' and not r.delivered and r.next_attempt_at is not null)
			from result r
			where d.id = r.id
			returning d.id, d.attempt_count
		)
		insert into attempts (delivery_id, number, at, duration_ms, outcome, response_status, error, response_headers, response_body)
		select r.id, m.attempt_count, r.at, r.duration_ms, case when r.delivered then 'delivered' else 'failed' end,
			r.response_status, r.error, r.response_headers, r.response_body
		from result r
		join moved m on m.id = r.id`, args...)
	return wrapped("record attempts", err)
}
