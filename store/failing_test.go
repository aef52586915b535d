package store_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// failing lets one statement of a pool fail before it reaches the database: the one with the number that next is
// counted down from. It sees begin, commit, queries and copies alike.
type failing struct {
	left  atomic.Int64
	fired atomic.Bool
}

func (f *failing) arm(statement int) {
	f.fired.Store(false)
	f.left.Store(int64(statement))
}

func (f *failing) disarm() { f.left.Store(0) }

func (f *failing) start(ctx context.Context, sql string) context.Context {
	if strings.HasPrefix(sql, "rollback") || f.left.Load() <= 0 || f.left.Add(-1) != 0 {
		return ctx
	}
	f.fired.Store(true)
	failed, cancel := context.WithCancel(ctx)
	cancel()
	return failed
}

// Every operation tells of a statement that failed, whichever it is, changes nothing then (or no more than whole
// steps), and succeeds when it is called again.
func TestAStatementThatFails(t *testing.T) {
	t.Parallel()
	page := store.Page{Limit: 10}
	operations := []struct {
		name    string
		how     int
		call    func(context.Context, *world) error
		prepare string // SQL, before each call
	}{
		{"register a task", whole, func(ctx context.Context, w *world) error {
			_, err := w.RegisterTask(ctx, w.task("new", "https://new.example/"))
			return err
		}, ""},
		{"register a known and ready task for another endpoint", whole, func(ctx context.Context, w *world) error {
			_, err := w.RegisterTask(ctx, w.task("ready", "https://parking.example/"))
			return err
		}, ""},
		{"register on an idle account", whole, func(ctx context.Context, w *world) error {
			task := w.task("idle", "https://a.example/")
			task.AppID = w.idleApp.ID
			_, err := w.RegisterTask(ctx, task)
			return err
		}, ""},
		{"record a poll that shows videos", whole, func(ctx context.Context, w *world) error {
			_, err := w.RecordPoll(ctx, store.Poll{TaskID: w.waiting.ID, At: time.Now(), Videos: []store.Video{{ID: "PI-1"}}})
			return err
		}, ""},
		{"record a poll that shows nothing", whole, func(ctx context.Context, w *world) error {
			_, err := w.RecordPoll(ctx, store.Poll{TaskID: w.waiting.ID, At: time.Now(), Bare: true})
			return err
		}, ""},
		{"load a delivery", whole, func(ctx context.Context, w *world) error { _, err := w.LoadDeliveries(ctx, w.pending); return err }, ""},
		{"record a success", whole, func(ctx context.Context, w *world) error {
			return w.RecordAttempt(ctx, store.AttemptResult{DeliveryID: w.pending, EndpointID: w.endpoint.ID, At: time.Now(), Delivered: true, Healthy: true})
		}, ""},
		{"record a failure", whole, func(ctx context.Context, w *world) error {
			return w.RecordAttempt(ctx, store.AttemptResult{DeliveryID: w.pending, EndpointID: w.endpoint.ID, At: time.Now(), NextAttemptAt: new(time.Now())})
		}, ""},
		{"record the failure of a first attempt", whole, func(ctx context.Context, w *world) error {
			return w.RecordAttempt(ctx, store.AttemptResult{DeliveryID: w.pending, EndpointID: w.endpoint.ID, At: time.Now(), SharedJob: true, NextAttemptAt: new(time.Now())})
		}, ""},
		{"record that a receiver is gone", whole, func(ctx context.Context, w *world) error {
			return w.RecordAttempt(ctx, store.AttemptResult{DeliveryID: w.pending, EndpointID: w.endpoint.ID, At: time.Now(), Gone: true})
		}, ""},
		{"park a delivery", whole, func(ctx context.Context, w *world) error {
			return w.ParkDelivery(ctx, &store.Delivery{ID: w.pending, EndpointID: w.endpoint.ID})
		}, ""},
		{"release parked deliveries", whole, func(ctx context.Context, w *world) error {
			n, err := w.Release(ctx, []store.Room{{EndpointID: w.parking.ID, Places: 10}})
			if err == nil && n[w.parking.ID] == 0 {
				return fmt.Errorf("nothing was released")
			}
			return err
		}, ""},
		{"resend", whole, func(ctx context.Context, w *world) error { return w.Resend(ctx, store.OfApp(w.app.ID), w.delivered) }, ""},
		{"recover", whole, func(ctx context.Context, w *world) error {
			n, err := w.Recover(ctx, store.OfApp(w.app.ID), w.parking.ID, new(time.Now().Add(-time.Hour)))
			if err == nil && n != 2 { // one that had failed, and one that was parked
				return fmt.Errorf("%d will be sent", n)
			}
			return err
		}, ""},
		{"take a slot", whole, func(ctx context.Context, w *world) error {
			_, err := w.TakeSlot(ctx, store.SlotRequest{Account: w.account.ID, Lease: w.shift.ID, Any: true})
			return err
		}, ""},
		{"reserve a slot", whole, func(ctx context.Context, w *world) error { _, _, err := w.ReserveSlot(ctx, w.account.ID); return err }, ""},
		{"start a shift", steps, func(ctx context.Context, w *world) error { _, err := w.AcquireLease(ctx, w.account.ID); return err }, ""},
		{"end a shift", whole, func(ctx context.Context, w *world) error {
			_, err := w.ReleaseLease(ctx, w.shift, store.LeaseEnd{})
			return err
		}, ""},
		{"end the last shift", whole, func(ctx context.Context, w *world) error {
			_, err := w.ReleaseLease(ctx, w.shift, store.LeaseEnd{})
			return err
		}, `update tasks set polling = false`},
		{"look for urgent tasks", whole, func(ctx context.Context, w *world) error {
			_, err := w.UrgentAccounts(ctx, []uuid.UUID{w.account.ID})
			return err
		}, ""},
		{"record an account's trouble", whole, func(ctx context.Context, w *world) error {
			return w.SetBackoff(ctx, w.account.ID, w.shift.ID, store.Backoff{State: store.AccountRefused, Reason: "0401", Until: time.Now(), Count: 1})
		}, ""},
		{"expire tasks", whole, func(ctx context.Context, w *world) error {
			n, _, err := w.ExpireTasks(ctx, time.Time{}, 100)
			if err == nil && n == 0 {
				return fmt.Errorf("nothing expired")
			}
			return err
		}, `update tasks set expires_at = now() - interval '1 hour' where polling`},
		{"adopt orphans", steps, func(ctx context.Context, w *world) error {
			n, err := w.AdoptOrphans(ctx)
			if err == nil {
				_, err = w.CheckFeed(ctx)
			}
			if err == nil && n == 0 {
				return fmt.Errorf("no orphans")
			}
			return err
		}, `update river_job set state = 'cancelled', finalized_at = now() where kind like 'deliver%' and finalized_at is null; delete from river_job where kind = 'poll';
			update deliveries set retrying = true, next_attempt_at = now() - interval '10 s' where status = 'pending' and not parked`},
		{"purge", steps, func(ctx context.Context, w *world) error {
			_, err := w.Purge(ctx, -time.Hour)
			return err
		}, ""},
		{"succeed an instance", whole, func(ctx context.Context, w *world) error {
			next := w.instance
			next.ID = uuid.UUID{15: 9}
			n, err := w.RegisterInstance(ctx, next)
			if err == nil && n == 0 {
				return fmt.Errorf("no job was freed")
			}
			return err
		}, ""},
		{"beat", whole, func(ctx context.Context, w *world) error { return w.Heartbeat(ctx, w.instance) }, ""},
		{"reap instances", whole, func(ctx context.Context, w *world) error {
			n, err := w.ReapInstances(ctx)
			if err == nil && n == 0 {
				return fmt.Errorf("no job was freed")
			}
			return err
		}, `update instances set beat_at = 'epoch'`},
		{"leave", whole, func(ctx context.Context, w *world) error {
			_, err := w.DeregisterInstance(ctx, w.instance.ID)
			return err
		}, ""},
		{"list running jobs", whole, func(ctx context.Context, w *world) error { _, err := w.RunningJobs(ctx, w.instance.ID, 0); return err }, ""},
		{"reclaim jobs", whole, func(ctx context.Context, w *world) error {
			_, err := w.ReclaimJobs(ctx, w.instance.ID, []int64{1, 2, 3})
			return err
		}, ""},
		{"list instances", whole, func(ctx context.Context, w *world) error { _, err := w.Instances(ctx); return err }, ""},
		{"cancel a task", whole, func(ctx context.Context, w *world) error {
			return w.CancelTask(ctx, store.OfApp(w.app.ID), w.waiting.ID)
		}, ""},
		{"poll a task by hand", whole, func(ctx context.Context, w *world) error { return w.PollTask(ctx, store.Everything(), w.waiting.ID) }, ""},
		{"take a hint", whole, func(ctx context.Context, w *world) error {
			return w.HintTask(ctx, w.app.HintToken, []string{"waiting"}, nil)
		}, ""},
		{"read a task", whole, func(ctx context.Context, w *world) error {
			_, err := w.Task(ctx, store.OfApp(w.app.ID), w.ready.ID)
			return err
		}, ""},
		{"list tasks", whole, func(ctx context.Context, w *world) error {
			_, _, err := w.Tasks(ctx, store.TaskFilter{Scope: store.OfApp(w.app.ID)}, page)
			return err
		}, ""},
		{"list a task's events and deliveries", whole, func(ctx context.Context, w *world) error {
			if _, _, err := w.TaskEvents(ctx, w.ready.ID, uuid.Nil, 50); err != nil {
				return err
			}
			_, err := w.TaskDeliveries(ctx, w.ready.ID, 100)
			return err
		}, ""},
		{"list events", whole, func(ctx context.Context, w *world) error {
			_, _, err := w.Events(ctx, store.OfApp(w.app.ID), "", uuid.Nil, 10)
			return err
		}, ""},
		{"list deliveries", whole, func(ctx context.Context, w *world) error {
			_, err := w.Deliveries(ctx, store.DeliveryFilter{Scope: store.OfApp(w.app.ID), Status: store.DeliveryPending}, page)
			return err
		}, ""},
		{"read a delivery", whole, func(ctx context.Context, w *world) error {
			_, err := w.Delivery(ctx, store.OfApp(w.app.ID), w.delivered)
			return err
		}, ""},
		{"create an endpoint", whole, func(ctx context.Context, w *world) error {
			_, err := w.CreateEndpoint(ctx, w.app.ID, store.EndpointSettings{URL: new("https://created.example/"), Enabled: new(false)})
			return err
		}, ""},
		{"change an endpoint", whole, func(ctx context.Context, w *world) error {
			_, err := w.UpdateEndpoint(ctx, store.OfApp(w.app.ID), w.endpoint.ID, store.EndpointSettings{Description: new("changed")})
			return err
		}, ""},
		{"disable an endpoint", whole, func(ctx context.Context, w *world) error {
			_, err := w.UpdateEndpoint(ctx, store.Everything(), w.endpoint.ID, store.EndpointSettings{Enabled: new(false)})
			return err
		}, ""},
		{"delete an endpoint", whole, func(ctx context.Context, w *world) error {
			return w.DeleteEndpoint(ctx, store.OfApp(w.app.ID), w.parking.ID)
		}, ""},
		{"rotate a secret", whole, func(ctx context.Context, w *world) error {
			_, err := w.RotateSecret(ctx, store.OfApp(w.app.ID), w.endpoint.ID, time.Hour)
			return err
		}, ""},
		{"read secrets", whole, func(ctx context.Context, w *world) error {
			_, err := w.Secrets(ctx, store.OfApp(w.app.ID), w.endpoint.ID)
			return err
		}, ""},
		{"test an endpoint", whole, func(ctx context.Context, w *world) error {
			_, err := w.TestEndpoint(ctx, store.OfApp(w.app.ID), w.endpoint.ID)
			return err
		}, ""},
		{"read receivers", whole, func(ctx context.Context, w *world) error {
			_, err := w.Receivers(ctx, w.endpoint.ID, w.parking.ID)
			return err
		}, ""},
		{"look for parked deliveries", whole, func(ctx context.Context, w *world) error { _, err := w.Backlogged(ctx); return err }, ""},
		{"count parked deliveries", whole, func(ctx context.Context, w *world) error { _, err := w.Queued(ctx, w.parking.ID); return err }, ""},
		{"read an endpoint's health", whole, func(ctx context.Context, w *world) error {
			_, err := w.EndpointHealth(ctx, w.parking.ID, 10)
			return err
		}, ""},
		{"count endpoints", whole, func(ctx context.Context, w *world) error { _, _, _, err := w.EndpointCounts(ctx); return err }, ""},
		{"change an account", whole, func(ctx context.Context, w *world) error {
			_, err := w.UpdateAccount(ctx, w.account.ID, store.AccountChange{APIKey: new("sk-mavi-new")})
			return err
		}, ""},
		{"delete an account", whole, func(ctx context.Context, w *world) error { return w.DeleteAccount(ctx, w.spare.ID) }, ""},
		{"list accounts", whole, func(ctx context.Context, w *world) error { _, err := w.Accounts(ctx, page); return err }, ""},
		{"make the defaults", steps, func(ctx context.Context, w *world) error {
			return w.EnsureDefaults(ctx, store.Defaults{
				MemoriesKey: "sk-mavi-default", MemoriesAPI: store.AccountV1, RequestsPerSecond: 1, APIKey: "a key of sixteen characters",
			})
		}, ""},
		{"move an app", whole, func(ctx context.Context, w *world) error {
			_, err := w.UpdateApp(ctx, w.app.ID, new("moved"), &w.spare.ID)
			return err
		}, ""},
		{"delete an app", whole, func(ctx context.Context, w *world) error { return w.DeleteApp(ctx, w.app.ID) }, ""},
		{"list apps", whole, func(ctx context.Context, w *world) error { _, err := w.Apps(ctx, page); return err }, ""},
		{"make a key", whole, func(ctx context.Context, w *world) error {
			_, _, err := w.CreateKey(ctx, w.app.ID, "another", nil)
			return err
		}, ""},
		{"list keys", whole, func(ctx context.Context, w *world) error { _, err := w.Keys(ctx, w.app.ID, page); return err }, ""},
		{"revoke a key", whole, func(ctx context.Context, w *world) error { return w.RevokeKey(ctx, w.app.ID, w.key.ID) }, ""},
		{"authenticate", whole, func(ctx context.Context, w *world) error { _, err := w.Authenticate(ctx, w.plainKey); return err }, ""},
		{"note a key's use", whole, func(ctx context.Context, w *world) error {
			return w.TouchKeys(ctx, map[uuid.UUID]time.Time{w.key.ID: time.Now()})
		}, ""},
		{"claim an idempotency key", whole, func(ctx context.Context, w *world) error {
			c, err := w.ClaimIdempotent(ctx, w.app.ID, "key", []byte("hash"))
			if err == nil && !c.Mine {
				return fmt.Errorf("not mine")
			}
			return err
		}, ""},
		{"keep and forget an answer", steps, func(ctx context.Context, w *world) error {
			c, err := w.ClaimIdempotent(ctx, w.app.ID, uuid.NewString(), []byte("hash"))
			if err == nil {
				err = w.FinishIdempotent(ctx, w.app.ID, "key", c, 201, []byte("{}"))
			}
			if err == nil {
				err = w.ForgetIdempotent(ctx, w.app.ID, "key", c)
			}
			return err
		}, ""},
		{"keep the activity", steps, func(ctx context.Context, w *world) error {
			if _, err := w.RecordPoll(ctx, store.Poll{TaskID: w.waiting.ID, At: time.Now(), Bare: true}); err != nil {
				return err
			}
			return w.FlushActivity(ctx)
		}, ""},
		{"read the activity", whole, func(ctx context.Context, w *world) error { _, err := w.Activity(ctx, time.Now()); return err }, ""},
		{"read the statistics", whole, func(ctx context.Context, w *world) error { _, err := w.Stats(ctx, 10); return err }, ""},
		{"read the queues", whole, func(ctx context.Context, w *world) error {
			if _, err := w.QueueDepths(ctx); err != nil {
				return err
			}
			_, err := w.PausedQueues(ctx)
			return err
		}, ""},
		{"queue an upload", whole, func(ctx context.Context, w *world) error {
			_, err := w.CreateUpload(ctx, store.Upload{AppID: w.idleApp.ID, CallbackURL: "https://a.example/", Until: store.UntilDownloaded})
			return err
		}, ""},
		{"queue an upload under a key", whole, func(ctx context.Context, w *world) error {
			_, err := w.CreateUpload(ctx, store.Upload{
				AppID: w.idleApp.ID, CallbackURL: "https://a.example/", Until: store.UntilDownloaded, IdempotencyKey: "key",
			})
			return err
		}, ""},
		{"acquire the upload lease", whole, func(ctx context.Context, w *world) error {
			_, err := w.AcquireUploadLease(ctx, w.account.ID)
			return err
		}, ""},
		{"acquire the upload lease of the Datalake", whole, func(ctx context.Context, w *world) error {
			_, err := w.AcquireUploadLease(ctx, w.account.ID)
			return err
		}, `update accounts set api = 'datalake'`},
		{"take an upload", whole, func(ctx context.Context, w *world) error {
			next, err := w.TakeUpload(ctx, w.uploading)
			if err == nil && next.Upload.ID != w.queued.ID {
				return fmt.Errorf("taken: %+v", next)
			}
			return err
		}, `update accounts set next_upload_at = 'epoch'; update uploads set next_attempt_at = now() + interval '1 hour' where lease is not null`},
		{"take none of no uploads", whole, func(ctx context.Context, w *world) error {
			next, err := w.TakeUpload(ctx, w.uploading)
			if err == nil && !next.Idle {
				return fmt.Errorf("taken: %+v", next)
			}
			return err
		}, `delete from uploads`},
		{"record a submission", whole, func(ctx context.Context, w *world) error {
			return w.RecordUpload(ctx, w.uploading, w.sending.ID, store.UploadResult{Status: store.UploadSubmitted, TaskID: "submitted"})
		}, ""},
		{"record a refused submission", whole, func(ctx context.Context, w *world) error {
			return w.RecordUpload(ctx, w.uploading, w.sending.ID, store.UploadResult{Status: store.UploadFailed, Error: &store.TaskError{Code: "0001"}})
		}, ""},
		{"record a submission that is to be repeated", whole, func(ctx context.Context, w *world) error {
			again := store.UploadResult{Status: store.UploadQueued, Error: &store.TaskError{Code: "0429"}, RetryIn: time.Hour, Pause: true}
			return w.RecordUpload(ctx, w.uploading, w.sending.ID, again)
		}, ""},
		{"adopt poll and upload jobs", whole, func(ctx context.Context, w *world) error {
			n, err := w.AdoptJobs(ctx)
			for deadline := time.Now().Add(10 * time.Second); err == nil && n < 2; n, err = w.AdoptJobs(ctx) {
				if time.Now().After(deadline) { // until then a cancelled one of before may still hold the sweep's row
					return fmt.Errorf("%d adopted", n)
				}
			}
			return err
		}, `delete from river_job where kind in ('poll', 'upload')`},
		{"read an upload", whole, func(ctx context.Context, w *world) error {
			_, err := w.Upload(ctx, store.OfApp(w.app.ID), w.sending.ID)
			return err
		}, ""},
		{"list uploads with their tasks", whole, func(ctx context.Context, w *world) error {
			uploads, _, err := w.Uploads(ctx, store.UploadFilter{Scope: store.OfApp(w.app.ID)}, page)
			if err == nil {
				_, err = w.TasksOfUploads(ctx, uploads)
			}
			return err
		}, ""},
		{"read a task's upload", whole, func(ctx context.Context, w *world) error {
			_, err := w.UploadOfTask(ctx, w.waiting.ID)
			return err
		}, `update uploads set task = (select id from tasks where task_id = 'waiting') where lease is not null`},
		{"search", whole, func(ctx context.Context, w *world) error {
			_, err := w.Search(ctx, store.OfApp(w.app.ID), "waiting", 10)
			return err
		}, ""},
		{"check the keys", whole, func(ctx context.Context, w *world) error { return w.CheckKeys(ctx) }, ""},
		{"verify the keys", whole, func(ctx context.Context, w *world) error { return w.VerifyKeys(ctx) }, ""},
		{"rotate the keys", steps, func(ctx context.Context, w *world) error { return w.RotateKeys(ctx, func(int, int) {}) }, ""},
	}
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for statement := 1; ; statement++ {
				if _, err := w.plain.Exec(t.Context(), op.prepare); err != nil {
					t.Fatal(err)
				}
				before := w.state()
				w.failing.arm(statement)
				err := op.call(t.Context(), w)
				w.failing.disarm()
				if !w.failing.fired.Load() {
					if err != nil {
						t.Fatalf("with every statement: %v", err)
					}
					if statement == 1 {
						t.Fatal("it has no statement")
					}
					t.Logf("%d statements", statement-1)
					return
				}
				if err == nil {
					t.Fatalf("statement %d failed and nobody says so", statement)
				}
				if after := w.state(); op.how == whole && after != before {
					t.Fatalf("statement %d failed (%v) and something has changed:\n%s\n%s", statement, err, before, after)
				}
				if statement > 60 {
					t.Fatal("it never ends")
				}
			}
		})
	}
}
