package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
)

// The queues.
const (
	QueuePoll    = "poll"
	QueueDeliver = "deliver"
)

// jobAttempts is how often River may run a job that ends with an error of ours (the database away, a
// bug). It is generous because the number of webhook attempts is the delivery's, not the job's.
const jobAttempts = 10_000

// PollArgs is the job that polls one account for a shift.
type PollArgs struct {
	AccountID uuid.UUID `json:"account_id"`
}

// Kind names the job.
func (PollArgs) Kind() string { return "poll" }

// InsertOpts says where the job goes.
func (PollArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: QueuePoll, MaxAttempts: jobAttempts}
}

// DeliverArgs is the job of one delivery. It lives through all attempts of a round, snoozing between
// them; a job whose generation is not its delivery's does nothing.
type DeliverArgs struct {
	DeliveryID uuid.UUID `json:"delivery_id"`
	Generation int       `json:"generation,omitempty"`
	Released   int       `json:"released,omitempty"` // the attempt for which Release gave the job
}

// Kind names the job.
func (DeliverArgs) Kind() string { return "deliver" }

// InsertOpts says where the job goes.
func (DeliverArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: QueueDeliver, MaxAttempts: jobAttempts}
}

// insertDeliverJobs inserts a job for each delivery, to run at once.
func (s *Store) insertDeliverJobs(ctx context.Context, tx pgx.Tx, jobs []DeliverArgs) error {
	if len(jobs) == 0 {
		return nil
	}
	params := make([]river.InsertManyParams, len(jobs))
	for i, j := range jobs {
		params[i] = river.InsertManyParams{Args: j}
	}
	if _, err := s.jobs.InsertManyFastTx(ctx, tx, params); err != nil {
		return fmt.Errorf("insert deliver jobs: %w", err)
	}
	return nil
}

// insertPollJobs inserts a poll job for each account, to run at once.
func (s *Store) insertPollJobs(ctx context.Context, tx pgx.Tx, accounts []uuid.UUID) error {
	if len(accounts) == 0 {
		return nil
	}
	params := make([]river.InsertManyParams, len(accounts))
	for i, id := range accounts {
		params[i] = river.InsertManyParams{Args: PollArgs{AccountID: id}}
	}
	if _, err := s.jobs.InsertManyFastTx(ctx, tx, params); err != nil {
		return fmt.Errorf("insert poll jobs: %w", err)
	}
	return nil
}

// PauseQueue stops a queue's work everywhere, or starts it again.
func (s *Store) PauseQueue(ctx context.Context, queue string, pause bool) error {
	var err error
	if pause {
		err = s.jobs.QueuePause(ctx, queue, nil)
	} else {
		err = s.jobs.QueueResume(ctx, queue, nil)
	}
	if err != nil && !errors.Is(err, river.ErrNotFound) { // not found: no worker has ever run, so nothing is to be paused
		return fmt.Errorf("pause or resume %s: %w", queue, err)
	}
	return nil
}
