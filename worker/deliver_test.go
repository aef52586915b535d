package worker

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// A bug that one delivery runs into is the end neither of the process nor of the deliveries beside it.
func TestAPanicIsAnErrorOfItsJob(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	bad, other := b.delivery(t), b.delivery(t)
	sender := b.cfg.Sender
	b.cfg.Sender = nil // sending panics
	err := b.workFirst(t.Context(), bad, uuid.New(), other)
	if err == nil || !strings.Contains(err.Error(), "panic") ||
		(!strings.Contains(err.Error(), bad.String()) && !strings.Contains(err.Error(), other.String())) {
		t.Errorf("got %v", err)
	}
	b.cfg.Sender = sender
	if err := b.workFirst(t.Context(), bad, other); err != nil || b.got.Load() != 2 {
		t.Errorf("the job that runs again: %v, %d requests", err, b.got.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.workFirst(ctx, b.delivery(t)); err == nil {
		t.Error("a worker that is stopped says that all is done")
	}
}

// A place that a bug kept would be missing until a restart, and with the last one the endpoint would get nothing.
func TestAPanicKeepsNoPlaceAtTheLimiter(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	id := b.delivery(t)
	sender := b.cfg.Sender
	b.cfg.Sender = nil // sending panics
	if err := b.workFirst(t.Context(), id); err == nil || !strings.Contains(err.Error(), "panic") {
		t.Fatalf("got %v, want a panic", err)
	}
	b.cfg.Sender = sender
	d, err := b.store.Delivery(t.Context(), store.Everything(), id)
	if err != nil {
		t.Fatal(err)
	}
	if n := b.limiters.of(d.EndpointID).window.inFlight; n != 0 {
		t.Errorf("%d places are taken", n)
	}
	if err := b.workFirst(t.Context(), id); err != nil || b.got.Load() != 1 {
		t.Errorf("the job that runs again: %v, %d requests", err, b.got.Load())
	}
}

// A payload that is too large to be kept while the delivery waits is read for the attempt, and arrives whole.
func TestALargePayloadArrivesWhole(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	var got atomic.Int64
	b.receiver.Store(new(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got.Store(r.ContentLength) })))
	task := b.register(t)
	videos := make([]store.Video, 10_000)
	for i := range videos {
		videos[i].ID = fmt.Sprintf("PI-%05d", i)
	}
	if _, err := b.store.RecordPoll(t.Context(), store.Poll{TaskID: task.ID, At: time.Now(), Videos: videos}); err != nil {
		t.Fatal(err)
	}
	list, err := b.store.TaskDeliveries(t.Context(), task.ID, 100)
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	loaded, err := b.store.LoadDeliveries(t.Context(), list[0].ID)
	if err != nil || loaded[0].Payload != "" || loaded[0].PayloadBytes < 100_000 {
		t.Fatalf("%v: %d bytes are loaded of %d", err, len(loaded[0].Payload), loaded[0].PayloadBytes)
	}
	if err := b.workFirst(t.Context(), list[0].ID); err != nil {
		t.Fatal(err)
	}
	if got.Load() != int64(loaded[0].PayloadBytes) {
		t.Errorf("%d bytes arrived of %d", got.Load(), loaded[0].PayloadBytes)
	}
}
