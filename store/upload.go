package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// What an upload can be.
const (
	UploadQueued    = "queued"
	UploadSubmitted = "submitted" // memories.ai has taken it: it has a task
	UploadFailed    = "failed"    // memories.ai has not taken it
	UploadUnknown   = "unknown"   // its answer was lost: memories.ai may have taken it
)

// Upload is what an app wants to be submitted to memories.ai and then followed as a task.
type Upload struct {
	ID             uuid.UUID
	AppID          uuid.UUID
	AccountID      uuid.UUID
	Status         string
	Request        UploadRequest
	CallbackURL    string // of the task's subscriber, in normal form
	Metadata       map[string]string
	Until          string
	ExpectedVideos *int
	ExpiresIn      time.Duration // from the submission on
	TaskID         *uuid.UUID    `db:"task"`
	Error          *TaskError    // why it failed, or is not submitted yet
	Refusals       int           // of memories.ai, of the submission itself
	Attempts       int
	NextAttemptAt  time.Time
	CreatedAt      time.Time
	FinishedAt     *time.Time
	Traceparent    *string
	IdempotencyKey string `db:"-"` // of a new one: the key of the request that creates it, or empty
	Cut            bool   // where read for a page: it was cut, so that there are more
}

// UploadRequest is what is submitted: URLs with v1, a source URL with the Datalake.
type UploadRequest struct {
	URLs         []string `json:"urls,omitempty"`
	SourceURL    string   `json:"source_url,omitempty"`
	CollectionID string   `json:"collection_id,omitempty"`
	HintURL      string   `json:"hint_url,omitempty"` // where memories.ai posts its own callback
}

const uploadColumns = `id, app_id, account_id, status, request, callback_url, metadata, until, expected_videos, expires_in, task, error,
	refusals, attempts, next_attempt_at, created_at, finished_at, traceparent`

// failUploads is the statement that ends the queued uploads of apps that were deleted. Those that are being sent end with their
// answer.
const failUploads = `
	update uploads
	set status = 'failed', error = '{"code": "app_deleted", "message": "the app was deleted"}', finished_at = clock_timestamp()
	where status = 'queued' and lease is null`

// CreateUpload queues an upload on its app's account, as of now, or returns the one that its idempotency key has queued within
// idempotencyKept: the answer to that request may have been lost. It returns ErrNotFound where the app was deleted.
func (s *Store) CreateUpload(ctx context.Context, u Upload) (created Upload, err error) {
	err = s.tx(ctx, "create upload", func(tx pgx.Tx) error {
		accounts, err := lockApps(ctx, tx, []uuid.UUID{u.AppID}, "for share")
		if err != nil {
			return err
		}
		account, ok := accounts[u.AppID]
		if !ok {
			return ErrNotFound
		}
		if u.IdempotencyKey != "" {
			_, err := tx.Exec(ctx, `
				update uploads
				set idempotency_key = null
				where app_id = $1 and idempotency_key = $2 and created_at < now() - $3::interval`,
				u.AppID, u.IdempotencyKey, idempotencyKept)
			if err != nil {
				return err
			}
		}
		created, err = one[Upload](ctx, tx, `
			insert into uploads (id, app_id, account_id, request, callback_url, metadata, until, expected_videos, expires_in,
				next_attempt_at, created_at, traceparent, idempotency_key)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $9, clock_timestamp(), $10, $11, nullif($12::text, ''))
			on conflict (app_id, idempotency_key) where idempotency_key is not null do nothing
			returning `+uploadColumns, newID(), u.AppID, account, u.Request, u.CallbackURL, orEmpty(u.Metadata), u.Until,
			u.ExpectedVideos, u.ExpiresIn, s.now(), u.Traceparent, u.IdempotencyKey)
		if errors.Is(err, ErrNotFound) {
			created, err = one[Upload](ctx, tx, `
				select `+uploadColumns+` from uploads where app_id = $1 and idempotency_key = $2`, u.AppID, u.IdempotencyKey)
			return err
		}
		if err != nil {
			return err
		}
		return s.ensureUploadJob(ctx, tx, account)
	})
	return created, err
}

// ensureUploadJob gives the account an upload job if it has none. The caller has inserted an upload in the same
// transaction. The lock makes a job that ends at the same time wait for it, and see it.
func (s *Store) ensureUploadJob(ctx context.Context, tx pgx.Tx, account uuid.UUID) error {
	var has bool
	err := tx.QueryRow(ctx, `select upload_job from accounts where id = $1 for no key update`, account).Scan(&has)
	if err != nil {
		return fmt.Errorf("read upload job: %w", err)
	}
	if has {
		return nil
	}
	if _, err := tx.Exec(ctx, `update accounts set upload_job = true where id = $1`, account); err != nil {
		return fmt.Errorf("claim upload job: %w", err)
	}
	return s.insertUploadJobs(ctx, tx, []uuid.UUID{account})
}
