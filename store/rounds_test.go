package store_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// entered is a context that tells when somebody begins to wait for it, as [store.Batcher.Do] does once its call is queued.
type entered struct {
	context.Context

	once sync.Once
	done func()
}

func (e *entered) Done() <-chan struct{} {
	e.once.Do(e.done)
	return e.Context.Done()
}

// inOneBatch makes calls that share a batch: a batch before theirs waits for a row until all are queued. first is that batch's
// call, which must need the row.
func inOneBatch(t *testing.T, b *bundle, table string, row uuid.UUID, first func(context.Context), calls ...func(context.Context)) {
	t.Helper()
	tx := begin(t, b)
	if _, err := tx.Exec(t.Context(), `select from `+table+` where id = $1 for update`, row); err != nil {
		t.Fatal(err)
	}
	var all, queued sync.WaitGroup
	all.Go(func() { first(t.Context()) })
	waitForLock(t, b.pool)
	for _, call := range calls {
		queued.Add(1)
		all.Go(func() { call(&entered{Context: t.Context(), done: queued.Done}) })
	}
	queued.Wait()
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	all.Wait()
}

// Polls of one task that are recorded in one batch, such as one from before a takeover that is answered late, all count, and
// each caller hears that the task is still to be polled.
func TestPollsOfOneTaskInABatchAreAllRecorded(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	other, task := b.register("other", "https://a.example/").Task, b.register("task", "https://a.example/").Task
	record := func(id uuid.UUID, videos ...store.Video) func(context.Context) {
		return func(ctx context.Context) {
			p := store.Poll{TaskID: id, At: time.Now(), Bare: true, Videos: videos}
			polled, err := b.RecordPoll(ctx, p)
			if err != nil || !polled.Polling || polled.Target.ID != id {
				t.Errorf("a poll of %v was answered with %+v, %v", id, polled, err)
			}
		}
	}
	inOneBatch(t, b, "tasks", other.ID, record(other.ID),
		record(task.ID), record(task.ID), record(task.ID, store.Video{ID: "PI-1"}), record(task.ID, store.Video{ID: "PI-1"}))
	if n := b.count(`select polls from tasks where id = $1`, task.ID); n != 4 {
		t.Errorf("%d polls are recorded, want 4", n)
	}
	if n := b.count(`select count(*) from events where task = $1 and type = 'task.ready'`, task.ID); n != 1 {
		t.Errorf("%d events, want one", n)
	}
}

// Attempts of one delivery that are recorded in one batch are all kept.
func TestAttemptsOfOneDeliveryInABatchAreAllRecorded(t *testing.T) {
	t.Parallel()
	b, deliveries := announced(t, 2)
	record := func(d store.Delivery) func(context.Context) {
		return func(ctx context.Context) {
			next := time.Now().Add(time.Hour)
			err := b.RecordAttempt(ctx, store.AttemptResult{DeliveryID: d.ID, EndpointID: d.EndpointID, At: time.Now(), NextAttemptAt: &next})
			if err != nil {
				t.Error(err)
			}
		}
	}
	inOneBatch(t, b, "deliveries", deliveries[0].ID, record(deliveries[0]), record(deliveries[1]), record(deliveries[1]), record(deliveries[1]))
	if n := b.count(`select count(distinct number) from attempts where delivery_id = $1`, deliveries[1].ID); n != 3 {
		t.Errorf("%d attempts are recorded, want 3", n)
	}
}
