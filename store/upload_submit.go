package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// An account with queued uploads has one upload job, which submits them one after the other. The job acquires the account's
// upload lease and notes it in an upload before it sends it. A submission has no other record until its answer is there: an
// upload that is queued and has the lease of another job was being sent when its job was killed. With the Datalake
// it is sent again, under the same idempotency key. With v1 nobody knows whether it was taken, so it is never sent again.

// UploadArgs is the job that submits the uploads of one account.
type UploadArgs struct {
	AccountID uuid.UUID `json:"account_id"`
}

// UploadLease is an upload job's hold on an account.
type UploadLease struct {
	ID      uuid.UUID
	Account *Account // with its key
}

// AcquireUploadLease makes the caller the only one that submits the account's uploads, and settles what the caller before
// has left. It returns ErrNotFound where the account was deleted.
func (s *Store) AcquireUploadLease(ctx context.Context, account uuid.UUID) (*UploadLease, error) {
	l := &UploadLease{ID: newID()}
	err := s.tx(ctx, "acquire upload lease", func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `update accounts a set upload_lease = $2 where a.id = $1 returning `+accountColumns, account, l.ID)
		a, err := one[Account](rows, err)
		if err != nil {
			return err
		}
		if a.Key, err = s.keys.Open("account.api_key", a.APIKey); err != nil {
			return fmt.Errorf("account %s: %w", a.Name, err)
		}
		l.Account = &a
		if a.API == AccountDatalake {
			_, err := tx.Exec(ctx, `update uploads set lease = null where account_id = $1 and status = 'queued' and lease is not null`, account)
			return err
		}
		rows, err = tx.Query(ctx, `
			select `+uploadColumns+`
			from uploads
			where account_id = $1 and status = 'queued' and lease is not null
			order by id
			for update`, account)
		lost, err := many[Upload](rows, err)
		if err != nil {
			return err
		}
		for i := range lost {
			why := TaskError{Code: UploadUnknown, Message: "memhook was ended while it was submitting this"}
			if err := s.finishUpload(ctx, tx, &lost[i], UploadUnknown, &why); err != nil {
				return err
			}
		}
		return nil
	})
	return l, err
}

// NextUpload is what an upload job is to do next.
type NextUpload struct {
	Lost   bool          // another job has the account
	Idle   bool          // nothing is queued: the job is to end
	Wait   time.Duration // until the caller should ask again; if zero, Upload is to be sent now
	Upload Upload
}

// TakeUpload takes the account's next upload to be sent, within its budget.
func (s *Store) TakeUpload(ctx context.Context, l *UploadLease) (next NextUpload, err error) {
	err = s.tx(ctx, "take upload", func(tx pgx.Tx) error {
		next = NextUpload{}
		// Locked, so that the upload that another transaction is queueing is seen or finds that the job has ended.
		var lease *uuid.UUID
		var wait float64
		err := tx.QueryRow(ctx, `
			select upload_lease, extract(epoch from next_upload_at - clock_timestamp())::float8
			from accounts
			where id = $1
			for no key update`, l.Account.ID).Scan(&lease, &wait)
		if errors.Is(err, pgx.ErrNoRows) || (err == nil && (lease == nil || *lease != l.ID)) {
			next.Lost = true
			return nil
		}
		if err != nil {
			return err
		}
		type due struct {
			Upload
			Wait float64 // seconds
		}
		rows, err := tx.Query(ctx, `
			select `+uploadColumns+`, extract(epoch from next_attempt_at - clock_timestamp())::float8 as wait
			from uploads
			where account_id = $1 and status = 'queued'
			order by next_attempt_at, id
			limit 1
			for update`, l.Account.ID)
		u, err := one[due](rows, err)
		if errors.Is(err, ErrNotFound) {
			next.Idle = true
			_, err = tx.Exec(ctx, `update accounts set upload_job = false, upload_lease = null where id = $1`, l.Account.ID)
			return err
		}
		if err != nil {
			return err
		}
		next.Wait = time.Duration(max(0, wait, u.Wait) * float64(time.Second))
		if next.Wait > 0 {
			return nil
		}
		next.Upload = u.Upload
		return s.claimUpload(ctx, tx, l, u.ID)
	})
	return next, err
}

// claimUpload notes that an upload is being sent, and takes a slot of its account's budget.
func (s *Store) claimUpload(ctx context.Context, tx pgx.Tx, l *UploadLease, id uuid.UUID) error {
	_, err := tx.Exec(ctx, `
		update accounts a
		set next_upload_at = greatest(a.next_upload_at, clock_timestamp()) + `+uploadIntervalOf("a")+`
		where a.id = $1`, l.Account.ID)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `update uploads set lease = $2, attempts = attempts + 1 where id = $1`, id, l.ID)
	return err
}

// UploadResult is what a submission has come to.
type UploadResult struct {
	Status  string        // UploadQueued: it is to be sent again
	TaskID  string        // of UploadSubmitted: memories.ai's id of the task
	Error   *TaskError    // of the others
	Refused bool          // memories.ai has refused the submission itself
	RetryIn time.Duration // of UploadQueued
	Pause   bool          // of UploadQueued: none of the account's uploads is to be sent before
}

// RecordUpload records what a submission has come to. The task of one that was taken is registered in the same transaction.
// It returns ErrConflict where another job has settled the upload: the caller was taken for dead.
func (s *Store) RecordUpload(ctx context.Context, l *UploadLease, id uuid.UUID, r UploadResult) error {
	return s.tx(ctx, "record upload", func(tx pgx.Tx) error {
		// Apps before uploads, as in CreateUpload.
		rows, err := tx.Query(ctx, `select `+uploadColumns+` from uploads where id = $1 and lease = $2 and status = 'queued'`, id, l.ID)
		u, err := one[Upload](rows, err)
		if errors.Is(err, ErrNotFound) {
			return conflict("another job has settled the upload")
		}
		if err != nil {
			return err
		}
		switch r.Status {
		case UploadSubmitted:
			return s.followUpload(ctx, tx, &u, r.TaskID)
		case UploadQueued:
			return retryUpload(ctx, tx, &u, r)
		}
		return s.finishUpload(ctx, tx, &u, r.Status, r.Error)
	})
}

// retryUpload puts an upload that memories.ai has not taken back into the queue.
func retryUpload(ctx context.Context, tx pgx.Tx, u *Upload, r UploadResult) error {
	if r.Pause { // the account first, as in TakeUpload
		_, err := tx.Exec(ctx, `
			update accounts set next_upload_at = greatest(next_upload_at, clock_timestamp() + $2::interval) where id = $1`, u.AccountID, r.RetryIn)
		if err != nil {
			return err
		}
	}
	// Another upload comes first then: what was refused may be this one alone.
	_, err := tx.Exec(ctx, `
		update uploads
		set lease = null, error = $2, next_attempt_at = clock_timestamp() + $3::interval, refusals = refusals + $4::boolean::int
		where id = $1`, u.ID, r.Error, r.RetryIn, r.Refused)
	return err
}

// followUpload registers the task of an upload that memories.ai has taken. The task is polled on the account that has
// submitted it, whichever account the app has by now.
func (s *Store) followUpload(ctx context.Context, tx pgx.Tx, u *Upload, taskID string) error {
	apps, err := lockApps(ctx, tx, []uuid.UUID{u.AppID}, "for share")
	if err != nil {
		return err
	}
	if _, ok := apps[u.AppID]; !ok {
		return setUploadStatus(ctx, tx, u, UploadFailed, &TaskError{Code: "app_deleted", Message: "the app was deleted"})
	}
	regs := []Registration{{
		AppID: u.AppID, UpstreamID: taskID, UniqueID: "default", CallbackURL: u.CallbackURL, Metadata: u.Metadata, Until: u.Until,
		ExpectedVideos: u.ExpectedVideos, ExpiresIn: u.ExpiresIn, Traceparent: u.Traceparent,
	}}
	out := make([]Registered, 1)
	if err := s.registerLocked(ctx, tx, regs, map[uuid.UUID]uuid.UUID{u.AppID: u.AccountID}, regs, out); err != nil {
		return err
	}
	u.TaskID = &out[0].Task.ID
	return setUploadStatus(ctx, tx, u, UploadSubmitted, nil)
}

// finishUpload ends an upload that has no task, and emits its event.
func (s *Store) finishUpload(ctx context.Context, tx pgx.Tx, u *Upload, status string, why *TaskError) error {
	if err := setUploadStatus(ctx, tx, u, status, why); err != nil {
		return err
	}
	return s.emitForUpload(ctx, tx, u)
}

func setUploadStatus(ctx context.Context, tx pgx.Tx, u *Upload, status string, why *TaskError) error {
	u.Status, u.Error = status, why
	return tx.QueryRow(ctx, `
		update uploads set status = $2, error = $3, task = $4, finished_at = clock_timestamp() where id = $1 returning finished_at`,
		u.ID, status, why, u.TaskID).Scan(&u.FinishedAt)
}
