package worker

import (
	"context"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// A bug that one delivery runs into is the end neither of the process nor of the deliveries beside it.
func TestAPanicIsAnErrorOfItsJob(t *testing.T) {
	t.Parallel()
	w := &Worker{firstAttempts: make(chan func())} // without limiters: each attempt panics
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go w.runFirstAttempts(ctx)
	bad := &store.Delivery{ID: uuid.New(), Status: store.DeliveryPending}
	done := &store.Delivery{ID: uuid.New(), Status: store.DeliveryDelivered}
	err := w.attemptFirst(ctx, []*store.Delivery{nil, done, bad, bad})
	if err == nil || !strings.Contains(err.Error(), bad.ID.String()) || !strings.Contains(err.Error(), "panic") {
		t.Errorf("got %v", err)
	}
	if err := w.attemptFirst(ctx, []*store.Delivery{nil, done}); err != nil {
		t.Errorf("nothing to do: %v", err)
	}
	cancel()
	if err := w.attemptFirst(ctx, []*store.Delivery{bad}); err == nil {
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
	if n := b.limiters.of(d.EndpointID).inFlight; n != 0 {
		t.Errorf("%d places are taken", n)
	}
	if err := b.workFirst(t.Context(), id); err != nil || b.got.Load() != 1 {
		t.Errorf("the job that runs again: %v, %d requests", err, b.got.Load())
	}
}
