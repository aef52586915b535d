package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
)

// The queues.
const (
	QueuePoll    = "poll"
	QueueUpload  = "upload"
	QueueFirst   = "deliver_first" // first attempts
	QueueDeliver = "deliver"       // all others: workers that wait for receivers in trouble are not the first attempts'
)

// Pausable are the queues that an operator pauses together, by what people call them. Pausing polling stops all calls to
// memories.ai, submissions included.
var Pausable = map[string][]string{"polling": {QueuePoll, QueueUpload}, "deliveries": {QueueFirst, QueueDeliver}}

// jobAttempts is how often River may run a job that ends with an error of ours (the database away, a
// bug). It is generous because the number of webhook attempts is the delivery's, not the job's.
const jobAttempts = 10_000

// PollArgs is the job that polls one account under a lease (lease.go).
type PollArgs struct {
	AccountID uuid.UUID `json:"account_id"`
}

// Kind names the job.
func (PollArgs) Kind() string { return "poll" }

// firstAttempts is how many first attempts share a job. With a job each the queue takes a third of what a delivery
// costs in CPU; with ten it takes a thirtieth, and a worker still holds no more than others can do without for a
// moment.
const firstAttempts = 10

// FirstArgs is the job of the first attempts of deliveries that were made in one transaction. It is done when each
// of them has had its attempt; one that failed has a job of its own by then, [DeliverArgs].
type FirstArgs struct {
	Deliveries []uuid.UUID `json:"deliveries"`
}

// Kind names the job.
func (FirstArgs) Kind() string { return "deliver_first" }

// DeliverArgs is the job of one delivery after its first attempt, or after it was parked. It lives through all
// attempts of a round, snoozing between them; a job whose generation is not its delivery's does nothing.
type DeliverArgs struct {
	DeliveryID uuid.UUID `json:"delivery_id"`
	Generation int       `json:"generation,omitempty"`
	Released   int       `json:"released,omitempty"` // the attempt for which Release gave the job
}

// Kind names the job.
func (DeliverArgs) Kind() string { return "deliver" }

// UploadArgs is the job that submits the uploads of one account (upload_submit.go).
type UploadArgs struct {
	AccountID uuid.UUID `json:"account_id"`
}

// Kind names the job.
func (UploadArgs) Kind() string { return "upload" }

// withJob is the SQL set of jobs with the deliveries that are or were theirs.
const withJob = `(
	select j.state, (j.args ->> 'delivery_id')::uuid as delivery, false as first
	from river_job j
	where j.kind = 'deliver'
	union all
	select j.state, d.id::uuid, true
	from river_job j
	cross join lateral jsonb_array_elements_text(j.args -> 'deliveries') as d (id)
	where j.kind = 'deliver_first'
)`

func (s *Store) insertFirstJobs(ctx context.Context, tx pgx.Tx, deliveries []uuid.UUID) error {
	groups := slices.Collect(slices.Chunk(deliveries, firstAttempts))
	return insertJobs(ctx, tx, s.jobs, QueueFirst, groups, func(group []uuid.UUID) FirstArgs { return FirstArgs{group} })
}

// insertDeliverJobs inserts jobs that run at once. One whose delivery is not due yet snoozes.
func (s *Store) insertDeliverJobs(ctx context.Context, tx pgx.Tx, jobs []DeliverArgs) error {
	return insertJobs(ctx, tx, s.jobs, QueueDeliver, jobs, func(job DeliverArgs) DeliverArgs { return job })
}

func (s *Store) insertPollJobs(ctx context.Context, tx pgx.Tx, accounts []uuid.UUID) error {
	return insertJobs(ctx, tx, s.jobs, QueuePoll, accounts, func(id uuid.UUID) PollArgs { return PollArgs{id} })
}

func (s *Store) insertUploadJobs(ctx context.Context, tx pgx.Tx, accounts []uuid.UUID) error {
	return insertJobs(ctx, tx, s.jobs, QueueUpload, accounts, func(id uuid.UUID) UploadArgs { return UploadArgs{id} })
}

// insertJobs inserts a job for each of things, to run at once.
func insertJobs[T any, A river.JobArgs](
	ctx context.Context, tx pgx.Tx, jobs *river.Client[pgx.Tx], queue string, things []T, args func(T) A,
) error {
	if len(things) == 0 {
		return nil
	}
	params := make([]river.InsertManyParams, len(things))
	for i, thing := range things {
		params[i] = river.InsertManyParams{Args: args(thing), InsertOpts: &river.InsertOpts{Queue: queue}}
	}
	if _, err := jobs.InsertManyFastTx(ctx, tx, params); err != nil {
		return fmt.Errorf("insert %s jobs: %w", params[0].Args.Kind(), err)
	}
	return nil
}
