package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// What a delivery can be.
const (
	DeliveryPending   = "pending"
	DeliveryDelivered = "delivered"
	DeliveryFailed    = "failed" // its attempts are used up
	DeliveryCancelled = "cancelled"
)

// Delivery is one event on its way to one endpoint.
type Delivery struct {
	ID            uuid.UUID
	AppID         uuid.UUID
	EventID       uuid.UUID
	EventType     string
	Task          *uuid.UUID
	EndpointID    uuid.UUID
	Status        string
	Parked        bool // waits without a job
	Generation    int  // of its job
	AttemptCount  int
	RoundStart    int // attempts made before the retry schedule last began
	NextAttemptAt *time.Time
	CreatedAt     time.Time
	DeliveredAt   *time.Time

	Payload     string    // where loaded for sending
	Traceparent *string   // where loaded for sending, and traced
	CallbackURL string    // where read for a list
	Attempts    []Attempt `db:"-"` // where the method says so
}

const deliveryColumns = `d.id, d.app_id, d.event_id, d.event_type, d.task, d.endpoint_id, d.status, d.parked, d.generation, d.attempt_count,
	d.round_start, d.next_attempt_at, d.created_at, d.delivered_at`

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

// LoadDeliveries reads deliveries with their payloads, in order, nil for one that there is not. Loads that come at
// the same time share a statement.
func (s *Store) LoadDeliveries(ctx context.Context, ids ...uuid.UUID) ([]*Delivery, error) {
	return s.load.Do(ctx, ids)
}

func (s *Store) loadDeliveries(ctx context.Context, lists [][]uuid.UUID) ([][]*Delivery, error) {
	ids := slices.Concat(lists...)
	rows, err := s.pool.Query(ctx, `
		select `+deliveryColumns+`, e.payload, e.traceparent
		from deliveries d
		join events e on e.id = d.event_id
		where d.id = any($1)`, ids)
	found, err := many[Delivery](rows, err)
	if err != nil {
		return nil, fmt.Errorf("load deliveries: %w", err)
	}
	byID := make(map[uuid.UUID]*Delivery, len(found))
	for i := range found {
		byID[found[i].ID] = &found[i]
	}
	out := make([][]*Delivery, len(lists))
	for i, list := range lists {
		out[i] = make([]*Delivery, len(list))
		for k, id := range list {
			out[i][k] = byID[id]
		}
	}
	return out, nil
}

// Result is what came of a delivery's turn: it was parked, or an attempt was made.
type Result struct {
	Delivery   uuid.UUID
	Endpoint   uuid.UUID
	Generation int
	Park       bool // no attempt was made: the endpoint takes none now

	At              time.Time
	Duration        time.Duration
	Delivered       bool
	ResponseStatus  *int
	Error           *string
	ResponseHeaders map[string]string
	ResponseBody    *string

	NextAttemptAt *time.Time    // nil: delivered, or used up
	First         bool          // its job has others beside it: the next attempt needs a job of its own
	Blameless     bool          // what failed was not the receiver's: its endpoint's health stays
	Gone          bool          // the receiver answered 410
	Hold          time.Duration // the receiver asked to be left alone for so long
	Released      bool          // Release gave the job, for this attempt
	Healthy       bool          // as far as the sender knew, a success changes nothing of the endpoint
	Latency       time.Duration // since the delivery was made
}

// touches tells whether the result can change its endpoint.
func (r Result) touches() bool { return !r.Park && (!r.Delivered || !r.Healthy) }

// Recorded answers a Result. There is nothing to say yet but that it is on disk.
type Recorded struct{}

// RecordResult writes a result to disk. Results that come at the same time share a transaction.
// The caller tells River only afterwards.
func (s *Store) RecordResult(ctx context.Context, r Result) error {
	_, err := s.record.Do(ctx, r)
	return err
}

func (s *Store) recordResults(ctx context.Context, results []Result) ([]Recorded, error) {
	var attempts, parked []Result
	var touched []uuid.UUID
	for _, r := range results {
		if r.Park {
			parked = append(parked, r)
			continue
		}
		attempts = append(attempts, r)
		if r.touches() && !slices.Contains(touched, r.Endpoint) {
			touched = append(touched, r.Endpoint)
		}
	}
	if len(parked) == 0 && len(touched) == 0 {
		err := recordAttempts(ctx, s.pool, attempts)
		if err == nil {
			s.countAttempts(attempts)
		}
		return make([]Recorded, len(results)), err
	}
	err := s.tx(ctx, "record results", func(tx pgx.Tx) error {
		if err := s.applyHealth(ctx, tx, touched, attempts); err != nil {
			return err
		}
		if err := recordAttempts(ctx, tx, attempts); err != nil {
			return err
		}
		if err := s.insertDeliverJobs(ctx, tx, nextJobs(attempts)); err != nil {
			return err
		}
		return park(ctx, tx, parked)
	})
	if err == nil {
		s.countAttempts(attempts)
	}
	return make([]Recorded, len(results)), err
}

// nextJobs gives the jobs of the deliveries whose first attempt has failed.
func nextJobs(attempts []Result) (jobs []DeliverArgs) {
	for _, r := range attempts {
		if r.First && r.NextAttemptAt != nil {
			jobs = append(jobs, DeliverArgs{DeliveryID: r.Delivery, Generation: r.Generation})
		}
	}
	return jobs
}

func (s *Store) countAttempts(attempts []Result) {
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
}

// recordAttempts appends attempts and moves their deliveries on. One statement, so that it is all or
// nothing without a transaction of its own. The number of an attempt is counted here: a second instance
// that sent the same delivery adds its attempt, it does not overwrite. What is delivered stays delivered.
func recordAttempts(ctx context.Context, q querier, results []Result) error {
	for len(results) > 0 {
		// An update touches a row once a statement, so a delivery's second result waits for the next.
		var rest []Result
		seen := make(map[uuid.UUID]bool, len(results))
		now := results[:0:0]
		for _, r := range results {
			if seen[r.Delivery] {
				rest = append(rest, r)
				continue
			}
			seen[r.Delivery] = true
			now = append(now, r)
		}
		if err := recordDistinct(ctx, q, now); err != nil {
			return err
		}
		results = rest
	}
	return nil
}

func recordDistinct(ctx context.Context, q querier, results []Result) error {
	var (
		n            = len(results)
		ids          = make([]uuid.UUID, n)
		at           = make([]time.Time, n)
		durations    = make([]int, n)
		delivered    = make([]bool, n)
		next         = make([]*time.Time, n)
		statuses     = make([]*int, n)
		errs, bodies = make([]*string, n), make([]*string, n)
		headers      = make([]*string, n)
	)
	for i, r := range results {
		ids[i], at[i], durations[i], delivered[i], next[i] = r.Delivery, r.At, int(r.Duration.Milliseconds()), r.Delivered, r.NextAttemptAt
		statuses[i], errs[i], bodies[i] = r.ResponseStatus, r.Error, r.ResponseBody
		if r.ResponseHeaders != nil {
			text, err := json.Marshal(r.ResponseHeaders)
			if err != nil {
				return fmt.Errorf("encode response headers: %w", err)
			}
			headers[i] = new(string(text))
		}
	}
	rows, err := q.Query(ctx, `
		with result as materialized (
			select * from unnest($1::uuid[], $2::timestamptz[], $3::int[], $4::boolean[], $5::timestamptz[], $6::int[], $7::text[], $8::text[], $9::text[])
				as r (id, at, duration_ms, delivered, next_attempt_at, response_status, error, response_headers, response_body)
		), moved as (
			update deliveries d
			set attempt_count = d.attempt_count + 1,
				status = case
					when r.delivered then 'delivered'
					when d.status = 'pending' and r.next_attempt_at is null then 'failed'
					else d.status
				end,
				failed = not r.delivered and ((d.status = 'pending' and r.next_attempt_at is null) or d.failed),
				next_attempt_at = case when r.delivered or d.status <> 'pending' then null else r.next_attempt_at end,
				delivered_at = case when r.delivered then coalesce(d.delivered_at, r.at + r.duration_ms * interval '1 ms') else d.delivered_at end,
				parked = d.parked and not r.delivered
			from result r
			where d.id = r.id
			returning d.id, d.attempt_count
		)
		insert into attempts (delivery_id, number, at, duration_ms, outcome, response_status, error, response_headers, response_body)
		select r.id, m.attempt_count, r.at, r.duration_ms, case when r.delivered then 'delivered' else 'failed' end,
			r.response_status, r.error, r.response_headers::jsonb, r.response_body
		from result r
		join moved m on m.id = r.id`,
		ids, at, durations, delivered, next, statuses, errs, headers, bodies)
	if err == nil {
		rows.Close()
		err = rows.Err()
	}
	if err != nil {
		return fmt.Errorf("record attempts: %w", err)
	}
	return nil
}

// applyHealth changes the touched endpoints by their results.
func (s *Store) applyHealth(ctx context.Context, tx pgx.Tx, touched []uuid.UUID, results []Result) error {
	if len(touched) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `
		select `+endpointColumns+` from endpoints e where e.id = any($1) and e.deleted_at is null order by e.id for no key update`, touched)
	endpoints, err := many[Endpoint](rows, err)
	if err != nil {
		return fmt.Errorf("read endpoints: %w", err)
	}
	byID := make(map[uuid.UUID]*Endpoint, len(endpoints))
	changed := make([]*Endpoint, len(endpoints))
	for i := range endpoints {
		byID[endpoints[i].ID], changed[i] = &endpoints[i], &endpoints[i]
	}
	for _, r := range results {
		ep := byID[r.Endpoint]
		if ep == nil {
			continue
		}
		for _, eventType := range ep.apply(r) {
			if err := s.emitForEndpoint(ctx, tx, ep, eventType, r.At); err != nil {
				return err
			}
		}
	}
	return saveHealth(ctx, tx, changed)
}

// park takes deliveries out of the queue until their endpoint is released.
func park(ctx context.Context, tx pgx.Tx, results []Result) error {
	if len(results) == 0 {
		return nil
	}
	ids, generations := make([]uuid.UUID, len(results)), make([]int, len(results))
	var endpoints []uuid.UUID
	for i, r := range results {
		ids[i], generations[i] = r.Delivery, r.Generation
		if !slices.Contains(endpoints, r.Endpoint) {
			endpoints = append(endpoints, r.Endpoint)
		}
	}
	if err := lockBacklog(ctx, tx, endpoints); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `
		update deliveries d
		set parked = true
		from unnest($1::uuid[], $2::int[]) as p (id, generation)
		where d.id = p.id and d.generation = p.generation and d.status = 'pending'`, ids, generations)
	if err != nil {
		return fmt.Errorf("park deliveries: %w", err)
	}
	return nil
}

// DeliveryFilter narrows a list of deliveries; zero fields do not.
type DeliveryFilter struct {
	AppID, EndpointID, Task uuid.UUID
	Status                  string
}

// withJob is the SQL set of jobs with the deliveries that are or were theirs.
const withJob = `(
	select j.state, j.finalized_at, (j.args ->> 'delivery_id')::uuid as delivery, coalesce((j.args ->> 'generation')::int, 0) as generation, false as first
	from river_job j
	where j.kind = 'deliver'
	union all
	select j.state, j.finalized_at, d.id::uuid, 0, true
	from river_job j
	cross join lateral jsonb_array_elements_text(j.args -> 'deliveries') as d (id)
	where j.kind = 'deliver_first'
)`

// pendingNow is the SQL set of deliveries that may be pending: those with a live job and, of each endpoint
// that has some, the newest parked ones. (An index on the status would cost every delivery its HOT update.)
const pendingNow = `
	select delivery from ` + withJob + ` j where state in ('available', 'running', 'retryable', 'scheduled')
	union all
	select p.id
	from endpoints e
	cross join lateral (
		select id from deliveries where endpoint_id = e.id and parked and id < $1 order by id desc limit $4
	) p
	where e.backlog and ($2::uuid is null or e.app_id = $2)`

// Deliveries lists deliveries, newest first, without their attempts.
func (s *Store) Deliveries(ctx context.Context, f DeliveryFilter, p Page) ([]Delivery, error) {
	conditions := `d.id < $1 and ($2::uuid is null or d.app_id = $2) and ($3 = '' or d.status = $3)`
	switch f.Status {
	case DeliveryFailed:
		conditions += ` and d.failed`
	case DeliveryCancelled:
		conditions += ` and d.cancelled`
	case DeliveryPending:
		conditions += ` and d.id in (` + pendingNow + `)`
	}
	args := []any{p.before(), nullID(f.AppID), f.Status, p.Limit}
	if f.EndpointID != uuid.Nil {
		args = append(args, f.EndpointID)
		conditions += fmt.Sprintf(` and d.endpoint_id = $%d`, len(args))
	}
	if f.Task != uuid.Nil {
		args = append(args, f.Task)
		conditions += fmt.Sprintf(` and d.task = $%d`, len(args))
	}
	rows, err := s.pool.Query(ctx, `
		select `+deliveryColumns+`, e.url as callback_url
		from (select * from deliveries d where `+conditions+` order by d.id desc limit $4) d
		join endpoints e on e.id = d.endpoint_id
		order by d.id desc`, args...)
	list, err := many[Delivery](rows, err)
	if err != nil {
		return nil, fmt.Errorf("list deliveries: %w", err)
	}
	return list, nil
}

// Delivery reads one delivery with its attempts. app may be uuid.Nil for an operator.
func (s *Store) Delivery(ctx context.Context, app, id uuid.UUID) (Delivery, error) {
	rows, err := s.pool.Query(ctx, `
		select `+deliveryColumns+`, e.url as callback_url
		from deliveries d
		join endpoints e on e.id = d.endpoint_id
		where d.id = $1 and ($2::uuid is null or d.app_id = $2)`, id, nullID(app))
	d, err := one[Delivery](rows, err)
	if err != nil {
		return d, err
	}
	rows, err = s.pool.Query(ctx, `
		select delivery_id, number, at, duration_ms, outcome, response_status, error, response_headers, response_body
		from attempts where delivery_id = $1 order by number`, id)
	d.Attempts, err = many[Attempt](rows, err)
	return d, err
}

// Resend sends a delivery again under its event's id, with the retry schedule from its beginning. A
// delivery that was cancelled is ErrConflict. app may be uuid.Nil for an operator.
func (s *Store) Resend(ctx context.Context, app, id uuid.UUID) error {
	return s.tx(ctx, "resend", func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			select d.endpoint_id, `+parks+` as parks
			from deliveries d
			join endpoints e on e.id = d.endpoint_id
			where d.id = $1 and ($2::uuid is null or d.app_id = $2) and e.deleted_at is null`, id, nullID(app))
		c, err := one[candidate](rows, err)
		if err != nil {
			return err
		}
		if err := s.readyToPark(ctx, tx, []candidate{c}); err != nil {
			return err
		}
		job := DeliverArgs{DeliveryID: id}
		err = tx.QueryRow(ctx, `
			update deliveries
			set status = 'pending', failed = false, parked = $2, generation = generation + 1, round_start = attempt_count, next_attempt_at = $3, delivered_at = null
			where id = $1 and status <> 'cancelled'
			returning generation`, id, c.Parks, s.now()).Scan(&job.Generation)
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("%w: it was cancelled", ErrConflict)
		}
		if err != nil || c.Parks {
			return err
		}
		return s.insertDeliverJobs(ctx, tx, []DeliverArgs{job})
	})
}
