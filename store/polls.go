package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// What comes between taking a slot and the request's arrival, at most: slots are so far apart that the budget and
// one request more are kept in any second even so. With r requests a second, r + 2 requests are r + 1 slots, which must
// last a second and that long. Where the budget is small, one per cent is enough for that.
const slotJitter, slotMargin = 80 * time.Millisecond, 1.01

// slotInterval is the SQL time between two slots of the account a, in seconds.
var slotInterval = fmt.Sprintf(`greatest(%g / a.requests_per_second, %g / (a.requests_per_second + 1))`, slotMargin, 1+slotJitter.Seconds())

// SlotInterval gives the time between two slots of a budget in requests a second.
func SlotInterval(rps float64) time.Duration {
	return time.Duration(max(slotMargin/rps, (1+slotJitter.Seconds())/(rps+1)) * float64(time.Second))
}

// Waiting is a task as its poller sees it.
type PollTarget struct {
	ID           uuid.UUID  `json:"id"`
	AppID        uuid.UUID  `json:"app_id"`
	UpstreamID   string     `db:"task_id" json:"task_id"`
	UniqueID     string     `json:"unique_id"`
	Status       string     `json:"status"`
	Refusals     int        `json:"refusals"`
	HasVideos    bool       `json:"has_videos"`
	LastPolledAt *time.Time `json:"last_polled_at"`
	HintedAt     *time.Time `json:"hinted_at"`
	CreatedAt    time.Time  `json:"created_at"`
	GrownAt      *time.Time `json:"grown_at"`
	Indexing     bool       `json:"indexing"` // ready, and to be polled until its videos are indexed
	Traceparent  *string    `json:"traceparent"`
}

// Bare tells whether the task waits with no videos and no refusals (see [Poll]).
func (w *PollTarget) Bare() bool {
	return w.Status == TaskWaiting && !w.HasVideos && w.Refusals == 0
}

const pollTargetColumns = `t.id, t.app_id, t.task_id, t.unique_id, t.status, t.refusals, t.videos <> '[]' as has_videos, t.last_polled_at,
	t.hinted_at, t.created_at, t.grown_at, t.status = 'ready' and t.until = 'indexed' and t.indexed_at is null as indexing, t.traceparent`

// Lease is one poll job's hold on an account: only the account's latest shift gets slots.
type Lease struct {
	ID      uuid.UUID
	Account *Account
	Targets []PollTarget
}

// AcquireLease makes the caller the one poller of an account and reads what there is to poll. An older
// shift of the account gets no more slots.
func (s *Store) AcquireLease(ctx context.Context, account uuid.UUID) (*Lease, error) {
	sh := &Lease{ID: newID()}
	rows, err := s.pool.Query(ctx, `update accounts a set shift = $2 where a.id = $1 returning `+accountColumns, account, sh.ID)
	a, err := one[Account](rows, err)
	if err != nil {
		return nil, fmt.Errorf("start shift: %w", err)
	}
	if a.Key, err = s.keys.Open("account.api_key", a.APIKey); err != nil {
		return nil, fmt.Errorf("account %s: %w", a.Name, err)
	}
	sh.Account = &a
	_, err = s.ReloadLease(ctx, sh)
	return sh, err
}

// ReloadLease reads anew what there is to poll. mine is false where the account has a newer shift.
func (s *Store) ReloadLease(ctx context.Context, sh *Lease) (mine bool, err error) {
	// What is urgent is told here and not again as news; what comes after this statement may be both. A newer shift
	// begins after it, and reads what it has told.
	err = s.pool.QueryRow(ctx, `
		with told as (
			update tasks t
			set urgent = false
			from accounts a
			where a.id = $1 and a.shift = $2 and t.account_id = $1 and t.polling and t.urgent
		)
		select exists (select 1 from accounts where id = $1 and shift = $2)`, sh.Account.ID, sh.ID).Scan(&mine)
	if err != nil {
		return false, fmt.Errorf("tell urgent tasks: %w", err)
	}
	if !mine {
		return false, nil
	}
	rows, err := s.pool.Query(ctx, `select `+pollTargetColumns+` from tasks t where t.account_id = $1 and t.polling`, sh.Account.ID)
	if sh.Targets, err = many[PollTarget](rows, err); err != nil {
		return false, fmt.Errorf("read waiting tasks: %w", err)
	}
	return true, nil
}

// LeaseEnd is what a shift leaves behind.
type LeaseEnd struct {
	Survival []float32 // what was learnt; nil leaves it as it is
	ResumeAt time.Time // when to go on; zero: at once
}

// ReleaseLease ends a shift. goOn tells that something is left to poll: the caller's job goes on, at
// end.ResumeAt. Otherwise the account has gone idle and the next registration inserts a job, or a newer
// shift has the account and with it the duty. (One job that is snoozed between shifts, rather than a
// new one each time, leaves nothing behind in the queue's table.)
//
// A registration holds the account FOR KEY SHARE from reading poll_job to its commit. So either the
// row cannot be had here and there is a registration to wait for, or it can and the second statement
// sees all that was registered before.
func (s *Store) ReleaseLease(ctx context.Context, sh *Lease, end LeaseEnd) (goOn bool, err error) {
	err = s.tx(ctx, "end shift", func(tx pgx.Tx) error {
		var mine bool
		err := tx.QueryRow(ctx, `
			update accounts set survival = coalesce($3, survival) where id = $1 and shift = $2 returning true`,
			sh.Account.ID, sh.ID, end.Survival).Scan(&mine)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // a newer shift has the account
		}
		if err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, `select exists (select 1 from tasks where account_id = $1 and polling)`, sh.Account.ID).Scan(&goOn); err != nil || goOn {
			return err
		}
		idle, err := goIdle(ctx, tx, sh.Account.ID)
		goOn = !idle
		return err
	})
	return goOn && err == nil, err
}

// goIdle clears the account's poll_job, unless a registration is under way or was committed since the
// caller looked.
func goIdle(ctx context.Context, tx pgx.Tx, account uuid.UUID) (idle bool, err error) {
	rows, err := tx.Query(ctx, `select id from accounts where id = $1 for update skip locked`, account)
	if err != nil {
		return false, err
	}
	locked, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil || len(locked) == 0 {
		return false, err
	}
	tag, err := tx.Exec(ctx, `
		update accounts set poll_job = false
		where id = $1 and not exists (select 1 from tasks where account_id = $1 and polling)`, account)
	return tag.RowsAffected() == 1, err
}

// ensurePollJobs inserts a poll job for those of the accounts that have none.
func (s *Store) ensurePollJobs(ctx context.Context, tx pgx.Tx, accounts []uuid.UUID) error {
	if len(accounts) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `
		select id, poll_job from accounts where id = any($1) order by id for key share`, accounts)
	if err != nil {
		return fmt.Errorf("read poll jobs: %w", err)
	}
	var idle []uuid.UUID
	var id uuid.UUID
	var has bool
	if _, err := pgx.ForEachRow(rows, []any{&id, &has}, func() error {
		if !has {
			idle = append(idle, id)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("read poll jobs: %w", err)
	}
	if len(idle) == 0 {
		return nil
	}
	// Of two registrations that both found the account idle, the second waits here and then changes nothing.
	rows, err = tx.Query(ctx, `update accounts set poll_job = true where id = any($1) and not poll_job returning id`, idle)
	if err != nil {
		return fmt.Errorf("claim poll jobs: %w", err)
	}
	if idle, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID]); err != nil {
		return fmt.Errorf("claim poll jobs: %w", err)
	}
	return s.insertPollJobs(ctx, tx, idle)
}

// SlotRequest asks for an account's next slot.
type SlotRequest struct {
	Account, Lease uuid.UUID
	Any            bool // take a slot even if nothing is new
}

// Slot is the answer.
type Slot struct {
	Lost    bool          // the account has a newer shift
	Granted bool          // the slot is the caller's
	Wait    time.Duration // until the slot, or, where none was granted, until it makes sense to ask again
	News    []PollTarget  // tasks that were registered or hinted since the last slot; now the shift's
}

// TakeSlot reserves the account's next slot and tells what is new for the shift to choose from: tasks that
// were registered or hinted. Requests that come at the same time share a statement.
func (s *Store) TakeSlot(ctx context.Context, r SlotRequest) (Slot, error) { return s.slots.Do(ctx, r) }

// faded is the SQL factor by which an account's usage has faded: 1/e a minute since its last slot.
const faded = `exp(-least(50, greatest(0, extract(epoch from clock_timestamp() - a.next_slot_at) + 1 / a.requests_per_second) / 60))`

const (
	// slotHorizon is how far ahead of its time a slot is given out.
	slotHorizon = 200 * time.Millisecond
	// newsBatch is how many tasks a slot tells of at most; the next slot tells of the rest.
	newsBatch = 1000
)

func (s *Store) takeSlots(ctx context.Context, requests []SlotRequest) ([]Slot, error) {
	n := len(requests)
	accounts, shifts, anys := make([]uuid.UUID, n), make([]uuid.UUID, n), make([]bool, n)
	index := make(map[uuid.UUID]int, n)
	for i, r := range requests {
		accounts[i], shifts[i], anys[i] = r.Account, r.Lease, r.Any
		index[r.Lease] = i
	}
	// A slot is taken only within the horizon, so that none is reserved long before it is used. What is
	// new is marked as told by the same statement: it goes to the one shift that has the slot.
	rows, err := s.pool.Query(ctx, `
		with request as materialized (
			select r.account_id, r.shift, r.any_task, array(
				select t.id
				from tasks t
				where t.account_id = r.account_id and t.polling and t.urgent
				order by t.id
				limit $5
			) as news
			from unnest($1::uuid[], $2::uuid[], $3::boolean[]) as r (account_id, shift, any_task)
		), taken as (
			update accounts a
			set next_slot_at = greatest(a.next_slot_at, clock_timestamp()) + make_interval(secs => `+slotInterval+`),
				usage = 1 + a.usage * `+faded+`
			from request r
			where a.id = r.account_id and a.shift = r.shift and (r.any_task or cardinality(r.news) > 0)
				and a.next_slot_at <= clock_timestamp() + $4::interval
			returning a.id, r.shift, r.news, a.next_slot_at - make_interval(secs => `+slotInterval+`) as slot
		), told as (
			update tasks t
			set urgent = false
			from taken
			where t.id = any(taken.news)
			returning taken.shift as asked, `+pollTargetColumns+`
		), news as (
			select asked, json_agg(told) as news from told group by asked
		)
		select r.shift as asked, a.shift is distinct from r.shift as lost, taken.id is not null as granted,
			extract(epoch from coalesce(taken.slot, a.next_slot_at) - clock_timestamp())::float8 as wait, n.news
		from request r
		join accounts a on a.id = r.account_id
		left join taken on taken.shift = r.shift
		left join news n on n.asked = r.shift`,
		accounts, shifts, anys, slotHorizon, newsBatch)
	type row struct {
		Asked   uuid.UUID
		Lost    bool
		Granted bool
		Wait    float64 // seconds
		News    []PollTarget
	}
	found, err := many[row](rows, err)
	if err != nil {
		return nil, fmt.Errorf("take slots: %w", err)
	}
	slots := make([]Slot, n)
	for i := range slots {
		slots[i].Lost = true // an account that is gone
	}
	for _, r := range found {
		slots[index[r.Asked]] = Slot{Lost: r.Lost, Granted: r.Granted, Wait: time.Duration(r.Wait * float64(time.Second)), News: r.News}
	}
	return slots, nil
}

// ReserveSlot reserves an account's next slot for a single request of an operator, and gives the account's key
// and how long to wait until the slot.
func (s *Store) ReserveSlot(ctx context.Context, account uuid.UUID) (key []byte, wait time.Duration, err error) {
	var sealed []byte
	var seconds float64
	err = s.pool.QueryRow(ctx, `
		update accounts a
		set next_slot_at = greatest(a.next_slot_at, clock_timestamp()) + make_interval(secs => `+slotInterval+`)
		where a.id = $1
		returning a.api_key, extract(epoch from a.next_slot_at - make_interval(secs => `+slotInterval+`) - clock_timestamp())::float8`,
		account).Scan(&sealed, &seconds)
	if err != nil {
		return nil, 0, fmt.Errorf("reserve slot: %w", err)
	}
	key, err = s.keys.Open("account.api_key", sealed)
	return key, max(0, time.Duration(seconds*float64(time.Second))), err
}

// UrgentAccounts tells which of the accounts have a task that should be polled at once.
func (s *Store) UrgentAccounts(ctx context.Context, accounts []uuid.UUID) ([]uuid.UUID, error) {
	rows, err := s.pool.Query(ctx, `
		select a.id
		from unnest($1::uuid[]) as a (id)
		where exists (
			select 1 from tasks t
			where t.account_id = a.id and t.polling and t.urgent
		)`, accounts)
	if err != nil {
		return nil, fmt.Errorf("look for urgent tasks: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
}

// Polled is what a poll's recording has shown of its task.
type Polled struct {
	Polling bool // the task is still to be polled
	Ready   bool // this poll made it ready
	Target  PollTarget
}

// RecordPoll records one poll: its counters and, where the task changed, its events with their
// deliveries and jobs, all in one transaction. Polls that come at the same time share it.
func (s *Store) RecordPoll(ctx context.Context, p Poll) (Polled, error) { return s.polls.Do(ctx, p) }

func (s *Store) recordPolls(ctx context.Context, polls []Poll) ([]Polled, error) {
	out := make([]Polled, len(polls))
	byTask := make(map[uuid.UUID]int, len(polls))
	var quiet, loud []Poll
	for i, p := range polls {
		if _, twice := byTask[p.TaskID]; twice {
			continue // one poll a task is under way at a time; a second would show nothing more
		}
		byTask[p.TaskID] = i
		if p.quiet() {
			quiet = append(quiet, p)
		} else {
			loud = append(loud, p)
		}
	}
	err := s.tx(ctx, "record polls", func(tx pgx.Tx) error {
		counted, err := s.countPolls(ctx, tx, quiet)
		if err != nil {
			return err
		}
		applied, err := s.applyPolls(ctx, tx, loud)
		if err != nil {
			return err
		}
		for _, p := range append(counted, applied...) {
			out[byTask[p.Target.ID]] = p
		}
		return nil
	})
	if err == nil {
		s.countActivity(polls, byTask, out)
	}
	return out, err
}

func (s *Store) countActivity(polls []Poll, byTask map[uuid.UUID]int, polled []Polled) {
	s.activity.count(s.now(), func(m *Minute) {
		m.Polls += int64(len(polls))
		for i, p := range polls {
			if byTask[p.TaskID] == i && polled[i].Ready {
				m.DetectionLag.observe(p.Lag)
			}
		}
	})
}

// pollLog is how many polls of a task are kept to be looked at.
const pollLog = 20

// logged is the SQL that adds a poll to its task's log.
var logged = fmt.Sprintf(`(t.poll_log || ((extract(epoch from n.at) * 1000)::bigint || ' ' || n.outcome))[greatest(1, cardinality(t.poll_log) - %d):]`, pollLog-2)

// outcome says in a word or two what a poll has shown.
func (p Poll) outcome() string {
	switch {
	case p.Fault != nil:
		return p.Fault.Code
	case p.Refusal != nil:
		return "refused " + p.Refusal.Code
	case len(p.Videos) == 0:
		return "empty"
	case len(p.Videos) == 1:
		return "1 video"
	default:
		return fmt.Sprintf("%d videos", len(p.Videos))
	}
}

// countPolls records polls that changed nothing.
func (s *Store) countPolls(ctx context.Context, tx pgx.Tx, polls []Poll) ([]Polled, error) {
	if len(polls) == 0 {
		return nil, nil
	}
	n := len(polls)
	ids, at, next, faults, outcomes := make([]uuid.UUID, n), make([]time.Time, n), make([]time.Time, n), make([]*string, n), make([]string, n)
	for i, p := range polls {
		ids[i], at[i], next[i], outcomes[i] = p.TaskID, p.At, p.NextPollAt, p.outcome()
		if p.Fault != nil {
			text, err := json.Marshal(p.Fault)
			if err != nil {
				return nil, fmt.Errorf("encode fault: %w", err)
			}
			faults[i] = new(string(text))
		}
	}
	type row struct {
		PollTarget
		Polling bool
	}
	rows, err := tx.Query(ctx, `
		update tasks t
		set polls = t.polls + 1, last_polled_at = n.at, next_poll_at = n.next, last_error = n.fault::jsonb,
			poll_log = `+logged+`
		from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::text[], $5::text[]) as n (id, at, next, fault, outcome)
		where t.id = n.id
		returning t.polling, `+pollTargetColumns, ids, at, next, faults, outcomes)
	found, err := many[row](rows, err)
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
	byTask := make(map[uuid.UUID]Poll, len(polls))
	ids := make([]uuid.UUID, len(polls))
	for i, p := range polls {
		ids[i], byTask[p.TaskID] = p.TaskID, p
	}
	rows, err := tx.Query(ctx, `select `+taskColumns+` from tasks where id = any($1) order by id for update`, ids)
	tasks, err := many[Task](rows, err)
	if err != nil {
		return nil, fmt.Errorf("read polled tasks: %w", err)
	}
	var (
		events  []Event
		changed = make([]*Task, len(tasks))
		applied = make([]Poll, len(tasks))
		out     = make([]Polled, len(tasks))
	)
	for i := range tasks {
		t := &tasks[i]
		p := byTask[t.ID]
		waited := t.Status == TaskWaiting
		for _, ev := range t.apply(p, s.settle) {
			ev.AppID, ev.CreatedAt, ev.Task, ev.Traceparent = t.AppID, p.At, t, p.Traceparent
			events = append(events, ev)
		}
		changed[i], applied[i] = t, p
		out[i] = Polled{Polling: t.Polling, Ready: waited && t.Status == TaskReady}
	}
	if err := s.saveTasks(ctx, tx, changed, applied); err != nil {
		return nil, err
	}
	for i, t := range changed {
		out[i].Target = t.pollTarget() // as it was saved
	}
	return out, s.emitForTasks(ctx, tx, events)
}

// waiting gives the task as its poller sees it.
func (t *Task) pollTarget() PollTarget {
	return PollTarget{
		ID: t.ID, AppID: t.AppID, UpstreamID: t.UpstreamID, UniqueID: t.UniqueID, Status: t.Status, Refusals: t.Refusals, HasVideos: len(t.Videos) > 0,
		LastPolledAt: t.LastPolledAt, HintedAt: t.HintedAt, CreatedAt: t.CreatedAt, GrownAt: t.GrownAt,
		Indexing: t.Status == TaskReady && t.Until == UntilIndexed && t.IndexedAt == nil, Traceparent: t.Traceparent,
	}
}
