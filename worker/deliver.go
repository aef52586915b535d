package worker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/riverqueue/river"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

const (
	// slowDown is how long an endpoint that answers 429, 502, 503 or 504 without saying how long is left
	// alone, doubling with each failure in a row up to slowDownMax.
	slowDown, slowDownMax = time.Second, time.Minute
	// scheduleJitter spreads the retries of one moment: each delay is this much longer or shorter.
	scheduleJitter = 0.2
	// earlyBy is how much before its time a job may make its attempt: what the clocks of the database and
	// of this machine may differ.
	earlyBy = 50 * time.Millisecond
)

// firstWorker makes the first attempts of a group of deliveries, each for itself.
type firstWorker struct {
	river.WorkerDefaults[store.FirstArgs]
	*Worker
}

// Work makes the first attempt of each delivery that has had none. It may run again: a crash, or an error of ours,
// repeats those attempts that are not on disk.
func (w *firstWorker) Work(ctx context.Context, job *river.Job[store.FirstArgs]) error {
	defer w.working.enter(job.ID)()
	deliveries, err := w.cfg.Store.LoadDeliveries(ctx, job.Args.Deliveries...)
	if err != nil {
		return err
	}
	return w.makeFirst(ctx, deliveries)
}

// makeFirst makes the first attempts, beside each other, and gives an error if any of them is to be made again.
func (w *Worker) makeFirst(ctx context.Context, deliveries []*store.Delivery) error {
	// River's context is a chain of some ten, through which each look-up of each attempt would go.
	short, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	ctx = short
	var turns sync.WaitGroup
	failures := make(chan error, len(deliveries))
	for _, d := range deliveries {
		if d == nil || d.Status != store.DeliveryPending || d.Parked || d.Generation != 0 || d.AttemptCount != 0 {
			continue // done already, cancelled, or another job has it
		}
		turns.Add(1)
		turn := func() {
			defer turns.Done()
			defer func() {
				if bug := recover(); bug != nil { // as River does for a job's own goroutine
					failures <- fmt.Errorf("delivery %s: panic: %v\n%s", d.ID, bug, debug.Stack())
				}
			}()
			if _, err := w.attemptOrPark(ctx, d, jobKind{shared: true}); err != nil {
				failures <- err
			}
		}
		select {
		case w.turns <- turn:
		case <-ctx.Done():
			turns.Done()
			failures <- river.JobSnooze(0)
		}
	}
	turns.Wait()
	select {
	case err := <-failures:
		return err
	default:
		return nil
	}
}

// takeTurns makes first attempts that jobs hand over, one after the other. Going on with a stack that has grown already
// saves six per cent of their CPU.
func (w *Worker) takeTurns(ctx context.Context) {
	for {
		select {
		case turn := <-w.turns:
			turn()
		case <-ctx.Done():
			return
		}
	}
}

// deliverWorker makes one delivery's attempts.
type deliverWorker struct {
	river.WorkerDefaults[store.DeliverArgs]
	*Worker
}

// Work makes the delivery's next attempt if it is due and its endpoint takes it, and records what came
// of it before River hears: a crash in between repeats the attempt under the same webhook-id.
func (w *deliverWorker) Work(ctx context.Context, job *river.Job[store.DeliverArgs]) error {
	defer w.working.enter(job.ID)()
	found, err := w.cfg.Store.LoadDeliveries(ctx, job.Args.DeliveryID)
	if err != nil {
		return err
	}
	d := found[0]
	if d == nil || d.Status != store.DeliveryPending || d.Parked || d.Generation != job.Args.Generation {
		return nil // done already, cancelled, or another job has it
	}
	if due := d.NextAttemptAt; due != nil {
		if early := due.Sub(w.cfg.Now()); early > earlyBy {
			return river.JobSnooze(early)
		}
	}
	next, err := w.attemptOrPark(ctx, d, jobKind{released: job.Args.Released == d.AttemptCount+1})
	if err != nil || next == nil {
		return err
	}
	return river.JobSnooze(max(0, next.Sub(w.cfg.Now())))
}

// jobKind is what an attempt must know of the job that it is made for.
type jobKind struct {
	shared   bool // a job of first attempts, which has other deliveries
	released bool // the delivery was released from parking for this attempt
}

// attemptOrPark makes an attempt of a delivery, or parks it where its endpoint takes none now. job says what
// its job knows. next is when the next attempt is due; nil where there is none, or where the delivery was parked.
func (w *Worker) attemptOrPark(ctx context.Context, d *store.Delivery, job jobKind) (next *time.Time, err error) {
	gate, rec, err := w.gates.enter(ctx, d.EndpointID, job.released)
	if err != nil {
		return nil, err
	}
	if gate == nil {
		return nil, w.cfg.Store.ParkDelivery(ctx, store.Parking{DeliveryID: d.ID, EndpointID: d.EndpointID, Generation: d.Generation})
	}
	result := w.attempt(ctx, gate, d, rec)
	result.Released, result.SharedJob = job.released, job.shared
	if ctx.Err() != nil && !result.Delivered {
		// The worker was stopped in the middle: this says nothing of the receiver. The next one tries again.
		return nil, river.JobSnooze(0)
	}
	// The receiver has it: that must reach the disk even when the worker is being stopped.
	if err := w.cfg.Store.RecordAttempt(context.WithoutCancel(ctx), result); err != nil {
		return nil, err
	}
	if result.Delivered {
		w.metrics.latency.Observe(result.Latency.Seconds())
	}
	if !result.Delivered || !result.Healthy {
		gate.changed()
	}
	return result.NextAttemptAt, nil
}

// attempt posts the delivery once and leaves the gate, even where a bug ends it.
func (w *Worker) attempt(ctx context.Context, gate *gate, d *store.Delivery, rec *store.Receiver) (r store.AttemptResult) {
	defer func() { gate.leave(r) }()
	ctx, span := traced(ctx, d.Traceparent, "attempt", trace.SpanKindProducer)
	defer span.End()
	resp := w.cfg.Sender.Send(ctx, webhook.Request{
		Traceparent: traceparent(ctx, span), URL: rec.URL, ID: webhook.EventID(d.EventID.String()), Body: []byte(d.Payload), Secrets: rec.Secrets, SigningKey: rec.SigningKey, Headers: rec.CustomHeaders,
	})
	r = judge(w.cfg.Schedule, d, rec, resp)
	w.metrics.attempts.WithLabelValues(resp.Class()).Inc()
	if span.IsRecording() {
		span.SetAttributes(attribute.String("memhook.delivery", d.ID.String()), attribute.String("memhook.event", d.EventID.String()), attribute.String("memhook.event_type", d.EventType),
			attribute.Int("memhook.attempt", d.AttemptCount+1), attribute.Int("http.response.status_code", resp.Status))
		if !r.Delivered {
			span.SetStatus(codes.Error, resp.Class())
		}
	}
	w.log.Debug("attempt", "delivery", d.ID, "event", d.EventID, "type", d.EventType, "task", d.TaskID, "endpoint", d.EndpointID,
		"number", d.AttemptCount+1, "delivered", r.Delivered, "status", resp.Status, "error", resp.Err, "details", resp.Details(), "took", resp.Duration)
	return r
}

// judge decides what a response means for its delivery and its endpoint.
func judge(schedule []time.Duration, d *store.Delivery, rec *store.Receiver, resp webhook.Response) store.AttemptResult {
	at := resp.SentAt.Add(resp.Duration)
	r := store.AttemptResult{
		DeliveryID: d.ID, EndpointID: d.EndpointID, Generation: d.Generation, At: resp.SentAt, Duration: resp.Duration,
		Delivered: resp.OK(), Latency: at.Sub(d.CreatedAt), ResponseHeaders: resp.Headers(), Healthy: rec.Healthy(), Blameless: resp.ProxyFailed(),
	}
	if resp.Status != 0 {
		body := webhook.Printable(resp.Body)
		r.ResponseStatus, r.ResponseBody = &resp.Status, &body
	}
	if resp.Err != nil {
		text := webhook.Printable([]byte(resp.Err.Error()))
		r.Error = &text
	}
	if r.Delivered {
		return r
	}
	if r.Gone = resp.Status == http.StatusGone; r.Gone {
		return r
	}
	delay, left := retryDelay(schedule, d.AttemptCount-d.RoundStart)
	if asked := asksFor(resp); asked > 0 {
		r.Hold = asked
		delay = max(delay, asked)
	} else if slows(resp.Status) {
		// Never beyond the delivery's own retry, which is what the schedule promises.
		r.Hold = min(slowDown<<min(rec.Failures, 10), slowDownMax, max(delay, slowDown))
	}
	if left {
		next := at.Add(delay)
		r.NextAttemptAt = &next
	}
	return r
}

// retryDelay gives the time until the attempt after the one that has just failed, made being how many
// there were before it in this round; left is false when there is none.
func retryDelay(schedule []time.Duration, made int) (delay time.Duration, left bool) {
	if made >= len(schedule) {
		return 0, false
	}
	d := float64(schedule[made])
	return time.Duration(d * (1 - scheduleJitter + 2*scheduleJitter*rand.Float64())), true
}

// asksFor gives the time for which a receiver that is overloaded asks to be left alone.
func asksFor(resp webhook.Response) time.Duration {
	if resp.Status == http.StatusTooManyRequests || resp.Status == http.StatusServiceUnavailable {
		return resp.RetryAfter()
	}
	return 0
}

func slows(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}
