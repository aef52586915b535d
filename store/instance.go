package store

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// River frees the running jobs of a killed worker after an hour. Here each instance writes a heartbeat every second, and the
// jobs of an instance that is dead are freed by the first of these:
//
//	RegisterInstance  a successor starts on the same host and address, which only one process can hold: at once
//	ReapInstances     any instance finds the heartbeat older than InstanceStale
//	DeregisterInstance  the instance stops and releases its unfinished jobs
//	ReclaimJobs       the instance itself finds jobs recorded as its own that it is not running: the answer to the
//	                  statement that fetched them was lost
//
// An instance that is frozen and comes back may run a job that another has taken over: deliveries are at least once.

// InstanceStale is how long after its last heartbeat an instance counts as dead.
const InstanceStale = 5 * time.Second

// Instance is a running memhook with workers. Its id is also its River client's.
type Instance struct {
	ID        uuid.UUID
	Name      string // host, network and address: two living instances never share it
	Version   string
	StartedAt time.Time
	BeatAt    time.Time
}

// RegisterInstance registers a starting instance and frees at once the running jobs of a predecessor of the
// same name, which must be dead: it held the address that the new one listens on.
func (s *Store) RegisterInstance(ctx context.Context, in Instance) (freed int64, err error) {
	err = s.tx(ctx, "register instance", func(tx pgx.Tx) error {
		dead, err := scalars[string](ctx, tx, `delete from instances where name = $1 and id <> $2 returning id::text`, in.Name, in.ID)
		if err != nil {
			return err
		}
		if freed, err = freeJobs(ctx, tx, dead, nil); err != nil {
			return err
		}
		return s.beat(ctx, tx, in)
	})
	return freed, err
}

// Heartbeat records that the instance is alive.
func (s *Store) Heartbeat(ctx context.Context, in Instance) error {
	ctx, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	return wrapped("beat", s.beat(ctx, s.pool, in))
}

// beat writes the heartbeat, and measures the clocks by the answer.
func (s *Store) beat(ctx context.Context, q querier, in Instance) error {
	asked := s.now()
	var theirs time.Time
	err := q.QueryRow(ctx, `
		insert into instances (id, name, version, started_at, beat_at)
		values ($1, $2, $3, $4, now())
		on conflict (id) do update
		set name = excluded.name, version = excluded.version, started_at = excluded.started_at, beat_at = now()
		returning clock_timestamp()`, in.ID, in.Name, in.Version, in.StartedAt).Scan(&theirs)
	if err != nil {
		return err
	}
	if s.clock.read(asked, s.now(), theirs) {
		return clockSteppedBack(ctx, q)
	}
	return nil
}

// runningUnlisted is the SQL set of the River clients that run jobs of ours without being listed as an instance, once a job.
const runningUnlisted = `
	select j.client
	from (
		select attempted_by[array_upper(attempted_by, 1)] as client
		from river_job
		where state = 'running' and queue in ('poll', 'deliver_first', 'deliver', 'upload')
	) j
	where j.client ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' and not exists (select 1 from instances i where i.id::text = j.client)`

// ReapInstances frees the running jobs of instances that have stopped beating. An instance that runs jobs and is not
// listed is listed as if it had just beaten: it beats on, or is reaped later.
func (s *Store) ReapInstances(ctx context.Context) (freed int64, err error) {
	err = s.tx(ctx, "reap instances", func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			insert into instances (id, name, version, started_at, beat_at)
			select distinct j.client::uuid, 'unknown ' || j.client, '', now(), now()
			from (`+runningUnlisted+`) j
			on conflict (id) do nothing`)
		if err != nil {
			return err
		}
		dead, err := scalars[string](ctx, tx, `
			delete from instances
			where id in (select id from instances where beat_at < now() - $1::interval for update skip locked)
			returning id::text`, InstanceStale)
		if err != nil {
			return err
		}
		freed, err = freeJobs(ctx, tx, dead, nil)
		return err
	})
	return freed, err
}

// DeregisterInstance takes a stopping instance off the list and frees what it still has running. It returns the
// number of those jobs.
func (s *Store) DeregisterInstance(ctx context.Context, id uuid.UUID) (freed int64, err error) {
	err = s.tx(ctx, "leave", func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `delete from instances where id = $1`, id); err != nil {
			return err
		}
		freed, err = freeJobs(ctx, tx, []string{id.String()}, nil)
		return err
	})
	return freed, err
}

// freeJobs makes the running jobs of River clients available again, only those with the given ids unless that is nil.
func freeJobs(ctx context.Context, q querier, clients []string, only []int64) (int64, error) {
	if len(clients) == 0 {
		return 0, nil
	}
	tag, err := q.Exec(ctx, `
		update river_job
		set state = 'available', scheduled_at = now()
		where state = 'running' and attempted_by[array_upper(attempted_by, 1)] = any($1) and ($2::bigint[] is null or id = any($2))`,
		clients, only)
	return tag.RowsAffected(), wrapped("free jobs", err)
}

// RunningJobs lists the jobs that the queue has recorded as running on an instance for at least a time.
func (s *Store) RunningJobs(ctx context.Context, instance uuid.UUID, atLeast time.Duration) ([]int64, error) {
	jobs, err := scalars[int64](ctx, s.pool, `
		select id
		from river_job
		where state = 'running' and attempted_by[array_upper(attempted_by, 1)] = $1
			and attempted_at < now() - $2::interval`, instance.String(), atLeast)
	return jobs, wrapped("list running jobs", err)
}

// ReclaimJobs makes those of the given running jobs of an instance available again that the instance does not run, and
// returns their number.
func (s *Store) ReclaimJobs(ctx context.Context, instance uuid.UUID, jobs []int64) (int64, error) {
	return freeJobs(ctx, s.pool, []string{instance.String()}, append([]int64{}, jobs...)) // never nil, which means all
}

// Instances lists the instances that beat.
func (s *Store) Instances(ctx context.Context) ([]Instance, error) {
	return many[Instance](ctx, s.pool, `select id, name, version, started_at, beat_at from instances order by started_at`)
}
