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
		// What was being sent may have reached memories.ai only now.
		a, err := one[Account](ctx, tx, `
			update accounts a
			set upload_lease = $2, next_upload_at = case
				when exists (select 1 from uploads u where u.account_id = a.id and u.status = 'queued' and u.lease is not null)
					then greatest(a.next_upload_at, clock_timestamp() + `+uploadIntervalOf("a")+`)
				else a.next_upload_at end
			where a.id = $1
			returning `+accountColumns, account, l.ID)
		if err != nil {
			return err
		}
		if a.Key, err = s.keys.Open("account.api_key", a.APIKey); err != nil {
			return fmt.Errorf("account %s: %w", a.Name, err)
		}
		l.Account = &a
		if a.API == AccountDatalake {
			_, err := tx.Exec(ctx, `update uploads set lease = null where account_id = $1 and status = 'queued' and lease is not null`, account)
			if err == nil {
				_, err = tx.Exec(ctx, failUploads+` and account_id = $1 and app_id in (select id from apps where deleted_at is not null)`, account)
			}
			return err
		}
		lost, err := many[Upload](ctx, tx, `
			select `+uploadColumns+`
			from uploads
			where account_id = $1 and status = 'queued' and lease is not null
			order by id
			for update`, account)
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
	Stale  bool          // the account has another key or API by now: the caller should acquire its lease again
	Wait   time.Duration // until the caller should ask again; if zero, Upload is to be sent now
	Upload Upload
	Well   bool // memories.ai has taken another upload of the account since it refused this one
}

// TakeUpload takes the account's next upload to be sent, within its budget.
func (s *Store) TakeUpload(ctx context.Context, l *UploadLease) (next NextUpload, err error) {
	err = s.tx(ctx, "take upload", func(tx pgx.Tx) error {
		next = NextUpload{}
		// Locked, so that the upload that another transaction is queueing is seen or finds that the job has ended.
		var lease *uuid.UUID
		var wait float64
		err := tx.QueryRow(ctx, `
			select upload_lease, extract(epoch from next_upload_at - clock_timestamp())::float8, api_key <> $2 or api <> $3
			from accounts
			where id = $1
			for no key update`, l.Account.ID, l.Account.APIKey, l.Account.API).Scan(&lease, &wait, &next.Stale)
		if errors.Is(err, pgx.ErrNoRows) || (err == nil && (lease == nil || *lease != l.ID)) {
			next.Lost = true
			return nil
		}
		if err != nil || next.Stale {
			return err
		}
		type due struct {
			Upload
			Wait float64 // seconds
			Well bool
		}
		u, err := one[due](ctx, tx, `
			select `+uploadColumns+`, extract(epoch from next_attempt_at - clock_timestamp())::float8 as wait,
				coalesce(error ? 'taken_since', false) as well
			from uploads
			where account_id = $1 and status = 'queued'
			order by next_attempt_at, id
			limit 1
			for update`, l.Account.ID)
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
		next.Upload, next.Well = u.Upload, u.Well
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
// The account's next submission is a whole interval of its budget away, since this one may have reached memories.ai as late as
// now. It returns ErrConflict where another job has settled the upload: the caller was taken for dead.
func (s *Store) RecordUpload(ctx context.Context, l *UploadLease, id uuid.UUID, r UploadResult) error {
	settled := false
	err := s.tx(ctx, "record upload", func(tx pgx.Tx) error {
		// Apps before accounts before uploads, as in CreateUpload.
		var app uuid.UUID
		err := tx.QueryRow(ctx, `select app_id from uploads where id = $1`, id).Scan(&app)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		apps, err := lockApps(ctx, tx, []uuid.UUID{app}, "for share")
		if err != nil {
			return err
		}
		var pause time.Duration
		if r.Pause {
			pause = r.RetryIn
		}
		_, err = tx.Exec(ctx, `
			update accounts a
			set next_upload_at = greatest(a.next_upload_at, clock_timestamp() + greatest($2::interval, `+uploadIntervalOf("a")+`))
			where a.id = $1`, l.Account.ID, pause)
		if err != nil {
			return err
		}
		u, err := one[Upload](ctx, tx, `
			select `+uploadColumns+` from uploads where id = $1 and lease = $2 and status = 'queued' for update`, id, l.ID)
		if settled = errors.Is(err, ErrNotFound); settled {
			return nil // it was sent all the same, which the account's next submission must wait for
		}
		if err != nil {
			return err
		}
		_, exists := apps[app]
		switch {
		case !exists && (r.Status == UploadSubmitted || r.Status == UploadQueued):
			return setUploadStatus(ctx, tx, &u, UploadFailed, &TaskError{Code: "app_deleted", Message: "the app was deleted"})
		case r.Status == UploadSubmitted:
			return s.followUpload(ctx, tx, &u, r.TaskID)
		case r.Status == UploadQueued:
			// Another upload comes first then: what was refused may be this one alone.
			_, err := tx.Exec(ctx, `
				update uploads
				set lease = null, error = $2, next_attempt_at = clock_timestamp() + $3::interval, refusals = refusals + $4::boolean::int
				where id = $1`, u.ID, r.Error, r.RetryIn, r.Refused)
			return err
		}
		return s.finishUpload(ctx, tx, &u, r.Status, r.Error)
	})
	if err == nil && settled {
		err = conflict("another job has settled the upload")
	}
	return err
}

// followUpload registers the task of an upload that memories.ai has taken; the caller has locked its app. The task is polled on
// the account that has submitted it, whichever account the app has by now. The account's other uploads that were refused keep
// a note of it: they were not refused because memories.ai was down (see NextUpload).
func (s *Store) followUpload(ctx context.Context, tx pgx.Tx, u *Upload, taskID string) error {
	_, err := tx.Exec(ctx, `
		update uploads
		set error = error || '{"taken_since": true}'
		where account_id = $1 and status = 'queued' and refusals > 0 and not error ? 'taken_since' and id <> $2`, u.AccountID, u.ID)
	if err != nil {
		return err
	}
	regs := []Registration{{
		AppID: u.AppID, UpstreamID: taskID, UniqueID: "default", CallbackURL: u.CallbackURL, Metadata: u.Metadata, Until: u.Until,
		ExpectedVideos: u.ExpectedVideos, ExpiresIn: u.ExpiresIn, Traceparent: u.Traceparent,
	}}
	out := make([]Registered, 1)
	if err := s.registerLocked(ctx, tx, regs, map[uuid.UUID]uuid.UUID{u.AppID: u.AccountID}, regs, out); err != nil {
		return err
	}
	if out[0].Full {
		return s.finishUpload(ctx, tx, u, UploadFailed, &TaskError{Code: "too_many_callbacks", Message: ErrFull.Error()})
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
