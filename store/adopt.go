package store

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// AdoptOrphans inserts jobs for work that has lost its own and returns their number: jobs that an operator has cancelled
// or discarded, or that an instance completed which was believed dead and came back.
func (s *Store) AdoptOrphans(ctx context.Context) (n int, err error) {
	err = s.tx(ctx, "adopt orphans", func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			select a.id
			from accounts a
			where a.poll_job and not exists (
				select 1 from river_job j
				where j.queue = 'poll' and j.state in ('available', 'pending', 'running', 'scheduled', 'retryable')
					and j.args ->> 'account_id' = a.id::text
			)
			for update skip locked`)
		if err != nil {
			return err
		}
		accounts, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		if err != nil {
			return err
		}
		rows, err = tx.Query(ctx, `
			update deliveries d
			set generation = d.generation + 1
			from `+withJob+` j
			where j.state in ('cancelled', 'discarded') and j.finalized_at > now() - interval '1 hour'
				and d.id = j.delivery and d.generation = j.generation and (not j.first or d.attempt_count = 0)
				and d.status = 'pending' and not d.parked
			returning d.id, d.generation`)
		if err != nil {
			return err
		}
		jobs, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (j DeliverArgs, err error) {
			return j, row.Scan(&j.DeliveryID, &j.Generation)
		})
		if err != nil {
			return err
		}
		n = len(accounts) + len(jobs)
		if err := s.insertPollJobs(ctx, tx, accounts); err != nil {
			return err
		}
		return s.insertDeliverJobs(ctx, tx, jobs)
	})
	return n, err
}
