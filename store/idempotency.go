package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const (
	// idempotencyKept is how long an answer is given again.
	idempotencyKept = 24 * time.Hour
	// idempotencyStale is after how long a request that never ended counts as dead: its instance was killed.
	idempotencyStale = time.Minute
)

// placeResponse is what answers are sealed for: one can hold a secret.
const placeResponse = "idempotency.response"

// Idempotent is the claim of a request on its idempotency key, or what became of an earlier one.
type Idempotent struct {
	Mine      bool // the caller is to do the work, and then to Finish or Forget
	Differs   bool // the key was used for another request
	Status    int  // of the earlier answer; 0 while it is under way
	Response  []byte
	claimedAt time.Time
}

// ClaimIdempotent claims an app's idempotency key for a request, of which hash is a digest. The claim of a request that has
// failed, or is dead, can be taken over by the same request alone: it may have been done all the same.
func (s *Store) ClaimIdempotent(ctx context.Context, app uuid.UUID, key string, hash []byte) (c Idempotent, err error) {
	err = s.pool.QueryRow(ctx, `
		insert into idempotency_keys as k (app_id, key, request_hash, created_at)
		values ($1, $2, $3, clock_timestamp())
		on conflict (app_id, key) do update
		set request_hash = excluded.request_hash, created_at = excluded.created_at, status = null, response = null
		where k.created_at < now() - $4::interval
			or (k.status is null and k.created_at < now() - $5::interval and k.request_hash = excluded.request_hash)
		returning created_at`, app, key, hash, idempotencyKept, idempotencyStale).Scan(&c.claimedAt)
	if err == nil {
		c.Mine = true
		return c, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return c, fmt.Errorf("claim idempotency key: %w", err)
	}
	var theirs []byte
	var status *int
	err = s.pool.QueryRow(ctx, `
		select request_hash, status, response from idempotency_keys where app_id = $1 and key = $2`, app, key).Scan(&theirs, &status, &c.Response)
	if errors.Is(err, pgx.ErrNoRows) {
		return c, nil // given back just now: as if it were under way, the caller asks again
	}
	if err != nil {
		return c, fmt.Errorf("read idempotency key: %w", err)
	}
	c.Differs = !bytes.Equal(theirs, hash)
	if status == nil {
		return c, nil
	}
	c.Status = *status
	if c.Response != nil {
		if c.Response, err = s.open(placeResponse, c.Response); err != nil {
			return c, fmt.Errorf("read the answer of an idempotency key: %w", err)
		}
	}
	return c, nil
}

// FinishIdempotent keeps the answer to the claim's request.
func (s *Store) FinishIdempotent(ctx context.Context, app uuid.UUID, key string, c Idempotent, status int, response []byte) error {
	var sealed []byte
	if len(response) > 0 {
		sealed = s.keys.Seal(placeResponse, response)
	}
	_, err := s.pool.Exec(ctx, `
		update idempotency_keys set status = $4, response = $5
		where app_id = $1 and key = $2 and created_at = $3`, app, key, c.claimedAt, status, sealed)
	return wrapped("keep answer", err)
}

// ForgetIdempotent releases the claim of a request that failed, as if it were dead, so that the request may be tried again.
func (s *Store) ForgetIdempotent(ctx context.Context, app uuid.UUID, key string, c Idempotent) error {
	_, err := s.pool.Exec(ctx, `
		update idempotency_keys set created_at = created_at - 2 * $4::interval
		where app_id = $1 and key = $2 and created_at = $3`, app, key, c.claimedAt, idempotencyStale)
	return wrapped("give idempotency key back", err)
}
