package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

func (b *bundle) upload(url string) store.Upload {
	b.t.Helper()
	u, err := b.CreateUpload(b.t.Context(), store.Upload{
		AppID: b.app.ID, CallbackURL: "https://a.example/hook?q=1", Until: store.UntilDownloaded, ExpiresIn: time.Hour,
		Metadata: map[string]string{"order": "42"}, Request: store.UploadRequest{URLs: []string{url}},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return u
}

func (b *bundle) uploadLease() *store.UploadLease {
	b.t.Helper()
	l, err := b.AcquireUploadLease(b.t.Context(), b.account.ID)
	if err != nil {
		b.t.Fatal(err)
	}
	return l
}

func (b *bundle) take(l *store.UploadLease) store.NextUpload {
	b.t.Helper()
	next, err := b.TakeUpload(b.t.Context(), l)
	if err != nil {
		b.t.Fatal(err)
	}
	return next
}

func (b *bundle) uploaded(id uuid.UUID) store.Upload {
	b.t.Helper()
	u, err := b.Upload(b.t.Context(), store.OfApp(b.app.ID), id)
	if err != nil {
		b.t.Fatal(err)
	}
	return u
}

const liveUploadJobs = `select count(*) from river_job where kind = 'upload' and state in ('available', 'scheduled', 'running')`

func TestAnUploadBecomesATask(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	first, second := b.upload("https://example.com/1"), b.upload("https://example.com/2")
	if n := b.count(liveUploadJobs); n != 1 {
		t.Errorf("%d upload jobs of one account", n)
	}
	l := b.uploadLease()
	next := b.take(l)
	if next.Upload.ID != first.ID || next.Wait != 0 || next.Upload.Request.URLs[0] != "https://example.com/1" {
		t.Fatalf("the first: %+v", next)
	}
	if again := b.take(l); again.Wait < 59*time.Second || again.Wait > time.Minute {
		t.Errorf("the next within the minute: %+v", again)
	}
	if err := b.RecordUpload(t.Context(), l, first.ID, store.UploadResult{Status: store.UploadSubmitted, TaskID: "task-1"}); err != nil {
		t.Fatal(err)
	}
	u := b.uploaded(first.ID)
	task, err := b.Task(t.Context(), store.OfApp(b.app.ID), *u.TaskID)
	if err != nil || u.Status != store.UploadSubmitted || task.UpstreamID != "task-1" || task.Metadata["order"] != "42" ||
		task.Subscriptions[0].URL != "https://a.example/hook?q=1" || b.count(livePollJobs) != 1 {
		t.Errorf("%+v became %+v, %v", u, task, err)
	}
	if _, err := b.UpdateAccount(t.Context(), b.account.ID, store.AccountChange{UploadsPerMinute: new(6000.)}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.pool.Exec(t.Context(), `update accounts set next_upload_at = now()`); err != nil {
		t.Fatal(err)
	}
	if next = b.take(l); next.Upload.ID != second.ID {
		t.Fatalf("the second: %+v", next)
	}
	retry := store.UploadResult{Status: store.UploadQueued, Error: &store.TaskError{Code: "0429"}, RetryIn: time.Hour, Pause: true}
	if err := b.RecordUpload(t.Context(), l, second.ID, retry); err != nil {
		t.Fatal(err)
	}
	third := b.upload("https://example.com/3")
	if next = b.take(l); next.Wait < 59*time.Minute {
		t.Errorf("another upload while the account pauses: %+v", next)
	}
	if _, err := b.pool.Exec(t.Context(), `update accounts set next_upload_at = now() - interval '1 s'`); err != nil {
		t.Fatal(err)
	}
	if next = b.take(l); next.Upload.ID != third.ID {
		t.Errorf("after the pause: %+v", next)
	}
	if err := b.RecordUpload(t.Context(), l, third.ID, store.UploadResult{Status: store.UploadFailed, Error: &store.TaskError{Code: "0001"}}); err != nil {
		t.Fatal(err)
	}
	if n := b.count(`select count(*) from deliveries where event_type = 'upload.failed' and suffix = '?q=1'`); n != 1 {
		t.Errorf("%d deliveries of upload.failed", n)
	}
	if err := b.DeleteAccount(t.Context(), b.account.ID); !errors.Is(err, store.ErrConflict) {
		t.Errorf("delete an account with uploads: %v", err)
	}
	if err := b.DeleteApp(t.Context(), b.app.ID); err != nil {
		t.Fatal(err)
	}
	if u := b.uploaded(second.ID); u.Status != store.UploadFailed {
		t.Errorf("a queued upload of a deleted app: %+v", u)
	}
	if next = b.take(l); !next.Idle {
		t.Errorf("nothing is left: %+v", next)
	}
	if next = b.take(l); !next.Lost {
		t.Errorf("a job that has ended: %+v", next)
	}
	// They are purged by their end, however long they have waited for it.
	const uploads = `select count(*) from uploads`
	b.exec(`update uploads set id = overlay(id::text placing left(id_at(now() - interval '2 h')::text, 13) from 1 for 13)::uuid`)
	if _, err := b.Purge(t.Context(), time.Hour); err != nil || b.count(uploads) != 3 {
		t.Errorf("%d uploads before their time, %v", b.count(uploads), err)
	}
	b.exec(`update uploads set finished_at = now() - interval '61 min'`)
	if _, err := b.Purge(t.Context(), time.Hour); err != nil || b.count(uploads) != 0 {
		t.Errorf("%d uploads after their time, %v", b.count(uploads), err)
	}
}

// A task that is expunged leaves nothing of the upload of which it came.
func TestAnExpungedTaskLeavesNoUpload(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	u, other := b.upload("https://videos.example/secret"), b.upload("https://videos.example/2")
	l := b.uploadLease()
	b.take(l)
	if err := b.RecordUpload(t.Context(), l, u.ID, store.UploadResult{Status: store.UploadSubmitted, TaskID: "task-1"}); err != nil {
		t.Fatal(err)
	}
	if err := b.ExpungeTask(t.Context(), store.OfApp(b.app.ID), *b.uploaded(u.ID).TaskID); err != nil {
		t.Fatal(err)
	}
	if n := b.count(`select count(*) from uploads where id = $1`, u.ID); n != 0 {
		t.Error("the upload is left")
	}
	if n := b.count(`select count(*) from uploads where id = $1`, other.ID); n != 1 {
		t.Error("another upload is gone")
	}
}

// The job of an account is killed while it sends.
func TestAnUploadThatWasBeingSent(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	listening, err := b.CreateEndpoint(t.Context(), b.app.ID, store.EndpointSettings{
		URL: new("https://listening.example/"), EventTypes: &[]string{store.EventUploadUnknown},
	})
	if err != nil {
		t.Fatal(err)
	}
	u := b.upload("https://example.com/1")
	killed := b.uploadLease()
	b.take(killed)
	l := b.uploadLease()
	if got := b.uploaded(u.ID); got.Status != store.UploadUnknown || got.Error == nil {
		t.Errorf("with v1: %+v", got)
	}
	if n := b.count(`select count(*) from deliveries where event_type = 'upload.unknown'`); n != 2 {
		t.Errorf("%d deliveries, want one for the callback URL and one for the endpoint %s that asks", n, listening.ID)
	}
	accepted := store.UploadResult{Status: store.UploadSubmitted, TaskID: "late"}
	if err := b.RecordUpload(t.Context(), killed, u.ID, accepted); !errors.Is(err, store.ErrConflict) {
		t.Errorf("the job that was taken for dead records: %v", err)
	}
	if next := b.take(killed); !next.Lost {
		t.Errorf("the job that was taken for dead goes on: %+v", next)
	}
	if next := b.take(l); !next.Idle {
		t.Errorf("sent again: %+v", next)
	}

	_, err = b.UpdateAccount(t.Context(), b.account.ID, store.AccountChange{API: new(store.AccountDatalake)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.pool.Exec(t.Context(), `update accounts set next_upload_at = 'epoch'`); err != nil {
		t.Fatal(err)
	}
	u = b.upload("https://example.com/2")
	if n := b.count(liveUploadJobs); n != 2 { // nobody works here: the first is still in the queue
		t.Errorf("%d jobs, want a second one after the first had nothing to do", n)
	}
	b.take(b.uploadLease())
	l = b.uploadLease()
	if _, err := b.pool.Exec(t.Context(), `update accounts set next_upload_at = 'epoch'`); err != nil {
		t.Fatal(err)
	}
	if next := b.take(l); next.Upload.ID != u.ID || next.Upload.Attempts != 1 {
		t.Errorf("the Datalake is asked again: %+v", next)
	}
	if _, err := b.pool.Exec(t.Context(), `delete from river_job`); err != nil {
		t.Fatal(err)
	}
	if n, err := b.AdoptJobs(t.Context()); n != 1 || err != nil || b.count(liveUploadJobs) != 1 {
		t.Errorf("adopted %d, %v", n, err)
	}
}

// due makes all uploads due, as if the account's last submission had begun long ago.
func (b *bundle) due() {
	b.t.Helper()
	if _, err := b.pool.Exec(b.t.Context(), `update accounts set next_upload_at = 'epoch'`); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.pool.Exec(b.t.Context(), `update uploads set next_attempt_at = 'epoch'`); err != nil {
		b.t.Fatal(err)
	}
}

// The next submission is an interval after the end of the one before: that may have reached memories.ai as late as then,
// whatever became of it and whoever sends the next one.
func TestSubmissionsKeepTheirDistance(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*bundle, *store.UploadLease, uuid.UUID) (*store.UploadLease, error){
		"taken": func(b *bundle, l *store.UploadLease, id uuid.UUID) (*store.UploadLease, error) {
			return l, b.RecordUpload(b.t.Context(), l, id, store.UploadResult{Status: store.UploadSubmitted, TaskID: "task"})
		},
		"to be repeated": func(b *bundle, l *store.UploadLease, id uuid.UUID) (*store.UploadLease, error) {
			return l, b.RecordUpload(b.t.Context(), l, id, store.UploadResult{Status: store.UploadQueued, Error: &store.TaskError{Code: "x"}})
		},
		"failed": func(b *bundle, l *store.UploadLease, id uuid.UUID) (*store.UploadLease, error) {
			return l, b.RecordUpload(b.t.Context(), l, id, store.UploadResult{Status: store.UploadFailed, Error: &store.TaskError{Code: "x"}})
		},
		"the job was killed": func(b *bundle, _ *store.UploadLease, _ uuid.UUID) (*store.UploadLease, error) {
			return b.uploadLease(), nil
		},
		"the job was taken for dead": func(b *bundle, l *store.UploadLease, id uuid.UUID) (*store.UploadLease, error) {
			next := b.uploadLease()
			b.due()
			err := b.RecordUpload(b.t.Context(), l, id, store.UploadResult{Status: store.UploadSubmitted, TaskID: "task"})
			if !errors.Is(err, store.ErrConflict) {
				return nil, fmt.Errorf("recorded: %w", err)
			}
			return next, nil
		},
	} {
		b := newBundle(t)
		u := b.upload("https://example.com/1")
		b.upload("https://example.com/2")
		l := b.uploadLease()
		if next := b.take(l); next.Upload.ID != u.ID {
			t.Fatalf("%s: %+v", name, next)
		}
		b.due()
		l, err := end(b, l, u.ID)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if next := b.take(l); next.Wait < 50*time.Second || next.Wait > time.Minute {
			t.Errorf("%s: the next is sent after %s", name, next.Wait)
		}
	}
}

// An upload that is being sent when its app is deleted is not sent again.
func TestAnUploadOfADeletedAppIsNotRepeated(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*bundle, *store.UploadLease, uuid.UUID) error{
		"refused for now": func(b *bundle, l *store.UploadLease, id uuid.UUID) error {
			again := store.UploadResult{Status: store.UploadQueued, Error: &store.TaskError{Code: "0429"}, RetryIn: time.Second, Pause: true}
			return b.RecordUpload(b.t.Context(), l, id, again)
		},
		"the job was killed": func(b *bundle, _ *store.UploadLease, _ uuid.UUID) error { b.uploadLease(); return nil },
	} {
		b := newBundle(t)
		if _, err := b.UpdateAccount(t.Context(), b.account.ID, store.AccountChange{API: new(store.AccountDatalake)}); err != nil {
			t.Fatal(err)
		}
		u := b.upload("https://example.com/1")
		l := b.uploadLease()
		b.due()
		b.take(l)
		if err := b.DeleteApp(t.Context(), b.app.ID); err != nil {
			t.Fatal(err)
		}
		if err := end(b, l, u.ID); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := b.uploaded(u.ID); got.Status != store.UploadFailed || got.Error.Code != "app_deleted" || got.FinishedAt == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// An upload that was refused is told whether memories.ai has taken another since.
func TestARefusedUploadKnowsWhetherOthersAreTaken(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	first, second := b.upload("https://example.com/1"), b.upload("https://example.com/2")
	third, fourth := b.upload("https://example.com/3"), b.upload("https://example.com/4")
	const version = `select xmin::text::bigint from uploads where id = $1`
	var rewritten bool // the first, by the last step's outcome
	l := b.uploadLease()
	taken := store.UploadResult{Status: store.UploadSubmitted, TaskID: "task"}
	refused := store.UploadResult{Status: store.UploadQueued, Error: &store.TaskError{Code: "0001", Message: "no"}, Refused: true}
	step := func(want store.Upload, well bool, r store.UploadResult) {
		t.Helper()
		b.due()
		if _, err := b.pool.Exec(t.Context(), `update uploads set next_attempt_at = now() + interval '1 hour' where id <> $1`, want.ID); err != nil {
			t.Fatal(err)
		}
		next := b.take(l)
		if next.Upload.ID != want.ID || next.Well != well {
			t.Fatalf("%+v", next)
		}
		before := b.count(version, first.ID)
		if err := b.RecordUpload(t.Context(), l, want.ID, r); err != nil {
			t.Fatal(err)
		}
		rewritten = b.count(version, first.ID) != before
	}
	step(first, false, refused)
	step(second, false, refused)
	step(first, false, refused)
	step(second, false, taken)
	if u := b.uploaded(first.ID); u.Error == nil || u.Error.Code != "0001" || u.Error.Message != "no" || u.Refusals != 2 {
		t.Errorf("%+v", u)
	}
	step(first, true, refused)
	step(first, false, refused)
	if step(third, false, taken); !rewritten {
		t.Error("the refused upload has no note")
	}
	if step(fourth, false, taken); rewritten {
		t.Error("the refused upload was given its note again")
	}
}

// An upload job whose account has another key or API by now must read the account again.
func TestAnUploadIsNotSentWithAReplacedKey(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]store.AccountChange{"key": {APIKey: new("sk-mavi-2")}, "api": {API: new(store.AccountDatalake)}} {
		b := newBundle(t)
		b.upload("https://example.com/1")
		l := b.uploadLease()
		if _, err := b.UpdateAccount(t.Context(), b.account.ID, change); err != nil {
			t.Fatal(err)
		}
		b.due()
		if next := b.take(l); !next.Stale || next.Upload.ID != uuid.Nil {
			t.Errorf("%s: %+v", name, next)
		}
		if next := b.take(b.uploadLease()); next.Stale || next.Upload.ID == uuid.Nil {
			t.Errorf("%s, read again: %+v", name, next)
		}
	}
}

// A key queues one upload within its 24 hours, however often the answer is lost and whoever else uses the same key.
func TestAnIdempotencyKeyQueuesOneUpload(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	queue := func(app uuid.UUID, key string) uuid.UUID {
		t.Helper()
		u, err := b.CreateUpload(t.Context(), store.Upload{
			AppID: app, CallbackURL: "https://a.example/", Until: store.UntilDownloaded, ExpiresIn: time.Hour, IdempotencyKey: key,
			Request: store.UploadRequest{URLs: []string{"https://example.com/1"}},
		})
		if err != nil {
			t.Error(err)
		}
		return u.ID
	}
	ids := make([]uuid.UUID, 20)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() { ids[i] = queue(b.app.ID, "key") })
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("one key has queued %s and %s", ids[0], id)
		}
	}
	other, err := b.CreateApp(t.Context(), "other", b.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	theirs := queue(other.ID, "key")
	if theirs == ids[0] || queue(b.app.ID, "another key") == ids[0] {
		t.Error("another app's or another key's upload is the same one")
	}
	if first := queue(b.app.ID, ""); first == queue(b.app.ID, "") {
		t.Error("two uploads without a key are one")
	}
	b.exec(`update uploads set created_at = created_at - interval '24 h'`)
	if queue(b.app.ID, "key") == ids[0] {
		t.Error("the key counts for more than a day")
	}
	if _, err := b.Purge(t.Context(), 48*time.Hour); err != nil {
		t.Fatal(err)
	}
	if n := b.count(`select count(*) from uploads where idempotency_key is not null`); n != 1 || b.count(`select count(*) from uploads`) != 6 {
		t.Errorf("%d uploads have a key, want the one of today", n)
	}
}

// A request whose answer was lost can be repeated at once under its key. Another one cannot take the key over.
func TestAForgottenAnswerLeavesTheKeyToItsRequest(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	claim := func(hash string) store.Idempotent {
		t.Helper()
		c, err := b.ClaimIdempotent(t.Context(), b.app.ID, "key", []byte(hash))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := claim("request")
	if again := claim("request"); !c.Mine || again.Mine {
		t.Fatalf("claimed %+v beside %+v", again, c)
	}
	if err := b.ForgetIdempotent(t.Context(), b.app.ID, "key", c); err != nil {
		t.Fatal(err)
	}
	if other := claim("another request"); other.Mine || !other.Differs {
		t.Errorf("another request: %+v", other)
	}
	if again := claim("request"); !again.Mine {
		t.Errorf("the same request: %+v", again)
	}
}
