package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// A slot is the right to send one request to memories.ai on an account's budget. Slots are evenly spaced, and one number in
// the account's row, next_slot_at, grants them (a generic cell rate algorithm): the statement that takes a slot moves
// the number on by one interval. So a budget of r requests a second is kept by any number of instances together,
// across restarts and kills. A slot that is taken and not used is lost, never given out twice.
//
// Only the account's lease takes slots for polling (lease.go), and none further ahead than slotHorizon, so that a
// poller which dies wastes one slot at most. [Store.ReserveSlot] takes one for an operator's single request.
//
// A slot also brings news: tasks that were registered or hinted (tasks.urgent) are admitted to the lease by the same
// statement that takes the slot, so each is admitted once.

// Slots are spaced so that any one-second window holds at most r + 1 requests: r + 2 requests span r + 1 gaps, so
// (r + 1) × interval must be at least 1 s plus slotJitter, the most that can pass between the slot and the request's
// arrival. For small budgets a margin of one per cent is the larger of the two.
const slotJitter, slotMargin = 80 * time.Millisecond, 1.01

// SlotInterval returns the time between two slots of a budget of rps requests a second.
func SlotInterval(rps float64) time.Duration {
	return time.Duration(max(slotMargin/rps, (1+slotJitter.Seconds())/(rps+1)) * float64(time.Second))
}

// slotIntervalOf is [SlotInterval] in SQL, as an interval, of the account with the given alias.
func slotIntervalOf(account string) string { //nolint:unparam // the caller names its alias
	return fmt.Sprintf(`make_interval(secs => greatest(%[2]g / %[1]s.requests_per_second, %[3]g / (%[1]s.requests_per_second + 1)))`,
		account, slotMargin, 1+slotJitter.Seconds())
}

// usageOf is the SQL count of slots that an account has taken, each faded by 1/e a minute since the last slot.
func usageOf(account string) string {
	return fmt.Sprintf(`%[1]s.usage * exp(-least(50, greatest(0,
		extract(epoch from clock_timestamp() - %[1]s.next_slot_at) + 1 / %[1]s.requests_per_second) / 60))`, account)
}

const (
	// SlotLinger is how long an early request waits for others.
	SlotLinger = 40 * time.Millisecond
	// slotHorizon is how far ahead of its time a slot is given out.
	slotHorizon = 200 * time.Millisecond
	// admittedMost is how many tasks a slot admits at most, the newest first; the next slot admits the rest. So an app that
	// hints or has registered very many does not delay the new tasks of another.
	admittedMost = 1000
)

// SlotRequest asks for an account's next slot.
type SlotRequest struct {
	Account, Lease uuid.UUID
	Any            bool // take a slot even if no task is urgent
	Early          bool // the slot is expected well after SlotLinger, so the request may wait for others
}

// Slot is the answer.
type Slot struct {
	Lost     bool          // another lease has replaced the caller's
	Granted  bool          // the slot is the caller's
	Asked    time.Time     // when the database was asked
	Took     time.Duration // until it had answered
	Wait     time.Duration // from within Took of Asked to the slot or, where none was granted, until the caller should ask again
	Admitted []PollTarget  // tasks that were registered or hinted since the last slot
}

// TakeSlot takes the account's next slot for a lease and admits urgent tasks to it. Requests that come at the same time share
// a statement, and early ones wait for one another.
func (s *Store) TakeSlot(ctx context.Context, r SlotRequest) (Slot, error) {
	if r.Early {
		return s.earlySlots.Do(ctx, r)
	}
	return s.slots.Do(ctx, r)
}

var slotRequestColumns = []column[SlotRequest]{
	col("account_id", "uuid", func(r SlotRequest) uuid.UUID { return r.Account }),
	col("lease", "uuid", func(r SlotRequest) uuid.UUID { return r.Lease }),
	col("any_task", "boolean", func(r SlotRequest) bool { return r.Any }),
}

func (s *Store) takeSlotBatch(ctx context.Context, requests []SlotRequest) ([]Slot, error) {
	begin := time.Now()
	wanted, args := unnest("r", requests, slotRequestColumns, slotHorizon, admittedMost)
	type row struct {
		Asked    uuid.UUID
		Lost     bool
		Granted  bool
		Wait     float64 // seconds
		Admitted []PollTarget
	}
	found, err := many[row](ctx, s.pool, `
		with request as materialized (
			select r.account_id, r.lease, r.any_task, array(
				select t.id
				from tasks t
				where t.account_id = r.account_id and t.polling and t.urgent
				order by t.id desc
				limit $2
			) as urgent
			from `+wanted+`
		), taken as (
			update accounts a
			set next_slot_at = greatest(a.next_slot_at, clock_timestamp()) + `+slotIntervalOf("a")+`, usage = 1 + `+usageOf("a")+`
			from request r
			where a.id = r.account_id and a.shift = r.lease and (r.any_task or cardinality(r.urgent) > 0)
				and a.next_slot_at <= clock_timestamp() + $1::interval
			returning a.id, r.lease, r.urgent, a.next_slot_at - `+slotIntervalOf("a")+` as slot
		), admitted as (
			update tasks t
			set urgent = false
			from taken
			where t.id = any(taken.urgent)
			returning taken.lease as asked, `+pollTargetColumns+`
		), grouped as (
			select asked, json_agg(admitted) as admitted from admitted group by asked
		)
		select r.lease as asked, a.shift is distinct from r.lease as lost, taken.id is not null as granted,
			extract(epoch from coalesce(taken.slot, a.next_slot_at) - clock_timestamp())::float8 as wait, g.admitted
		from request r
		join accounts a on a.id = r.account_id
		left join taken on taken.lease = r.lease
		left join grouped g on g.asked = r.lease`, args...)
	if err != nil {
		return nil, fmt.Errorf("take slots: %w", err)
	}
	index := make(map[uuid.UUID]int, len(requests))
	slots := make([]Slot, len(requests))
	for i, r := range requests {
		index[r.Lease], slots[i].Lost = i, true // of an account that was deleted
	}
	took := time.Since(begin)
	for _, r := range found {
		slots[index[r.Asked]] = Slot{
			Lost: r.Lost, Granted: r.Granted, Asked: begin, Took: took,
			Wait: time.Duration(r.Wait * float64(time.Second)), Admitted: r.Admitted,
		}
	}
	return slots, nil
}

// ReserveSlot takes an account's next slot for one request of an operator. It returns the account's key and the time until
// the slot.
func (s *Store) ReserveSlot(ctx context.Context, account uuid.UUID) (key []byte, wait time.Duration, err error) {
	var sealed []byte
	var seconds float64
	err = s.pool.QueryRow(ctx, `
		update accounts a
		set next_slot_at = greatest(a.next_slot_at, clock_timestamp()) + `+slotIntervalOf("a")+`
		where a.id = $1
		returning a.api_key, extract(epoch from a.next_slot_at - `+slotIntervalOf("a")+` - clock_timestamp())::float8`,
		account).Scan(&sealed, &seconds)
	if err != nil {
		return nil, 0, fmt.Errorf("reserve slot: %w", err)
	}
	key, err = s.keys.Open("account.api_key", sealed)
	return key, max(0, time.Duration(seconds*float64(time.Second))), err
}

// UrgentAccounts returns those of the accounts that have an urgent task: one to poll at once.
func (s *Store) UrgentAccounts(ctx context.Context, accounts []uuid.UUID) ([]uuid.UUID, error) {
	urgent, err := scalars[uuid.UUID](ctx, s.pool, `
		select a.id
		from unnest($1::uuid[]) as a (id)
		where exists (select 1 from tasks t where t.account_id = a.id and t.polling and t.urgent)`, accounts)
	return urgent, wrapped("find accounts with urgent tasks", err)
}
