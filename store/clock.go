package store

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// The database's clock decides: when a slot is due, when a heartbeat is old. An instance's own clock makes ids and says when
// tasks end, so one that is wrong by much must not end or purge anything. Each heartbeat compares the two, and what such an
// instance says of the time is corrected where something is decided by it: see ClockError.

// MaxClockSkew is how far the instance's clock may differ from the database's before it stops expiring and purging.
const MaxClockSkew = 5 * time.Second

// stepNoticed is the least step of the database's clock that is taken for one.
const stepNoticed = time.Second

// clock is what the last reading of the database's clock said.
type clock struct {
	mu     sync.Mutex
	skew   time.Duration
	asked  time.Time // by the instance's clock, which counts steadily
	theirs time.Time
}

// read takes a reading of the database's clock between two of the instance's. It reports whether the database's may have
// stepped back: it did since the last reading, or there was none.
func (c *clock) read(asked, answered, theirs time.Time) (stepped bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.skew = skewBetween(asked, answered, theirs)
	stepped = c.asked.IsZero() || theirs.Sub(c.theirs) < asked.Sub(c.asked)-stepNoticed
	c.asked, c.theirs = asked, theirs
	return stepped
}

// skewBetween returns how far the instance's clock is ahead of the database's, which said theirs between two readings of the
// instance's; 0 where theirs may be the time between them.
func skewBetween(asked, answered, theirs time.Time) time.Duration {
	// Without Round a difference of two readings would not see the clock that was set between them.
	asked, answered = asked.Round(0), answered.Round(0)
	switch {
	case theirs.Before(asked):
		return asked.Sub(theirs)
	case theirs.After(answered):
		return answered.Sub(theirs)
	default:
		return 0
	}
}

// ClockSkew returns how far the instance's clock was ahead of the database's at the last heartbeat, negative if it was behind.
// Where its size is above [MaxClockSkew], nothing may be done that cannot be undone.
func (s *Store) ClockSkew() time.Duration {
	s.clock.mu.Lock()
	defer s.clock.mu.Unlock()
	return s.clock.skew
}

// ClockError returns what must be subtracted from the instance's clock to get the database's: 0 while they differ by
// [MaxClockSkew] at most, else the difference in whole seconds, so that it does not change with each heartbeat. Times that
// decide what cannot be undone are corrected by it: of refusals, of the growth of lists, of an endpoint's failures.
func (s *Store) ClockError() time.Duration {
	if skew := s.ClockSkew(); skew.Abs() > MaxClockSkew {
		return skew.Round(time.Second)
	}
	return 0
}

// slotsAhead is how many intervals ahead the next slot may be: more than the lease's horizon and what operators reserve.
const slotsAhead = 10

// uploadsAhead is how far ahead the next submission may be: memories.ai asks for no more than 5 minutes. One interval of the
// budget may be longer.
const uploadsAhead = 6 * time.Minute

// clockSteppedBack brings to the present what the database's clock wrote before it stepped back. An account would wait for its
// next slot as long as the step was, and a dead instance would count as alive. The slot is an interval behind the last that
// can have been given out.
func clockSteppedBack(ctx context.Context, q querier) error {
	for _, statement := range []struct {
		sql string
		arg time.Duration
	}{
		{`update accounts a
		set next_slot_at = clock_timestamp() + $1::interval + ` + slotIntervalOf("a") + `
		where a.next_slot_at > clock_timestamp() + $1::interval + ` + strconv.Itoa(slotsAhead) + ` * ` + slotIntervalOf("a"), slotHorizon},
		{`update accounts a
		set next_upload_at = clock_timestamp() + ` + uploadIntervalOf("a") + `
		where a.next_upload_at > clock_timestamp() + greatest($1::interval, ` + uploadIntervalOf("a") + `)`, uploadsAhead},
		{`update uploads set next_attempt_at = clock_timestamp() where status = 'queued' and next_attempt_at > clock_timestamp() + $1::interval`,
			uploadsAhead},
		{`update instances set beat_at = now() where beat_at > now() + $1::interval`, slotHorizon},
	} {
		if _, err := q.Exec(ctx, statement.sql, statement.arg); err != nil {
			return fmt.Errorf("follow the database's clock back: %w", err)
		}
	}
	return nil
}
