package store

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// What state an account can be in.
const (
	AccountActive      = "active"
	AccountRateLimited = "rate_limited" // asked too often
	AccountRefused     = "refused"      // key refused, or out of credits
	AccountUnavailable = "unavailable"  // memories.ai is down, or answers garbage
)

// The generations of memories.ai's API that an account can be of.
const (
	AccountV1       = "v1"
	AccountDatalake = "datalake"
)

// LeastRate is the least of every budget and rate limit, per second: one in 100 seconds.
const LeastRate = 0.01

// Account is an account of memories.ai: a key and a request budget, shared by all apps on it.
type Account struct {
	ID                uuid.UUID
	Name              string
	APIKey            []byte  // sealed
	Key               []byte  `db:"-"` // in clear, where the method says so
	API               string  // AccountV1 or AccountDatalake
	RequestsPerSecond float64 // the budget
	UploadsPerMinute  float64 // the budget of submissions
	State             string
	StateReason       *string // memories.ai's own words
	PausedUntil       *time.Time
	Troubles          int       // in a row
	Survival          []float32 // what was learnt of the time from registration to ready
	CreatedAt         time.Time
	Used              float64 // requests a second, over the last minute or so
}

// uploadsPerMinuteOf is the SQL of an account's budget of submissions: its own, or the default of its generation.
func uploadsPerMinuteOf(account string) string {
	return `coalesce(` + account + `.uploads_per_minute, case ` + account + `.api when 'v1' then 1 else 60 end)`
}

// uploadIntervalOf is the SQL of the time between two submissions of an account.
func uploadIntervalOf(account string) string { //nolint:unparam // the caller names its alias
	return `60 / ` + uploadsPerMinuteOf(account) + ` * interval '1 second'`
}

var accountColumns = `a.id, a.name, a.api_key, a.api, a.requests_per_second,
	` + uploadsPerMinuteOf("a") + ` as uploads_per_minute, a.state, a.state_reason, a.paused_until,
	a.troubles, a.survival, a.created_at, ` + usageOf("a") + ` / 60 as used`

// AccountChange changes the fields that are not nil.
type AccountChange struct {
	Name              *string
	APIKey            *string
	API               *string
	RequestsPerSecond *float64
	UploadsPerMinute  *float64
	Resume            bool // end the account's backoff: memories.ai is asked again at once
}

// Resumes reports whether the change ends the account's backoff.
func (c AccountChange) Resumes() bool {
	return c.APIKey != nil || c.API != nil || c.RequestsPerSecond != nil || c.Resume
}

// Backoff is why and until when an account is not polled.
type Backoff struct {
	State  string // AccountActive ends the backoff
	Reason string
	Until  time.Time
	Count  int // failures in a row
}

// Accounts lists accounts, newest first.
func (s *Store) Accounts(ctx context.Context, p Page) ([]Account, error) {
	list, err := many[Account](ctx, s.pool, `
			select `+accountColumns+`
			from accounts a
			where a.id < $1 and a.id > $3
			order by a.id `+p.order()+` limit $2`, p.high(), p.Limit, p.low())
	return newestFirst(p, list), err
}

// AllAccounts lists all accounts by name.
func (s *Store) AllAccounts(ctx context.Context) ([]Account, error) {
	return many[Account](ctx, s.pool, `select `+accountColumns+` from accounts a order by a.name`)
}

// Account reads one account.
func (s *Store) Account(ctx context.Context, id uuid.UUID) (Account, error) {
	return one[Account](ctx, s.pool, `select `+accountColumns+` from accounts a where a.id = $1`, id)
}

// Backlogs counts the tasks of each account that are polled. The counts can be some seconds old.
func (s *Store) Backlogs(ctx context.Context) (map[uuid.UUID]int64, error) {
	found, err := s.backlog.get(ctx)
	return found, wrapped("count backlogs", err)
}
