package worker

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

// attempt sends the delivery once.
func (w *Worker) attempt(ctx context.Context, d *store.Delivery, payload []byte, rec *store.Receiver) store.AttemptResult {
	ctx, span := traced(ctx, d.Traceparent, "attempt", trace.SpanKindProducer)
	defer span.End()
	resp := w.cfg.Sender.Send(ctx, webhook.Request{
		URL: rec.CallbackURL(d.Suffix), ID: webhook.EventID(d.EventID.String()), Body: payload, Traceparent: traceparent(ctx, span),
		Secrets: w.secretsFor(d, rec), SigningKeys: rec.SigningKeys, Headers: rec.CustomHeaders,
	})
	r := resultOf(w.cfg.Schedule, d, rec, resp)
	w.metrics.attempts.WithLabelValues(resp.Class()).Inc()
	if span.IsRecording() {
		span.SetAttributes(attribute.String("memhook.delivery", d.ID.String()), attribute.String("memhook.event", d.EventID.String()),
			attribute.String("memhook.event_type", d.EventType), attribute.Int("memhook.attempt", d.AttemptCount+1),
			attribute.Int("http.response.status_code", resp.Status))
		if !r.Delivered {
			span.SetStatus(codes.Error, resp.Class())
		}
	}
	w.log.Debug("attempt", "delivery", d.ID, "event", d.EventID, "type", d.EventType, "task", d.TaskID, "endpoint", d.EndpointID,
		"number", d.AttemptCount+1, "delivered", r.Delivered, "status", resp.Status, "error", resp.Err,
		"details", resp.Details(), "took", resp.Duration)
	return r
}

// secretsFor returns the secrets that sign the delivery: the endpoint's, and those of merged endpoints that had its suffix.
func (w *Worker) secretsFor(d *store.Delivery, rec *store.Receiver) [][]byte {
	if len(d.MergedSecrets) == 0 {
		return rec.Secrets
	}
	merged, err := w.cfg.Store.OpenSecrets(d.MergedSecrets)
	if err != nil {
		w.log.Error("cannot open the secrets of a merged endpoint: its receiver cannot verify",
			"delivery", d.ID, "endpoint", d.EndpointID, "error", err)
	}
	secrets := slices.Clone(rec.Secrets)
	for _, secret := range merged {
		if !slices.ContainsFunc(secrets, func(s []byte) bool { return bytes.Equal(s, secret) }) {
			secrets = append(secrets, secret)
		}
	}
	return secrets
}

// resultOf returns what a response means for the delivery and its endpoint: whether it was delivered, when the next
// attempt is due (nil: never), and for how long the endpoint is held.
func resultOf(schedule []time.Duration, d *store.Delivery, rec *store.Receiver, resp webhook.Response) store.AttemptResult {
	at := resp.SentAt.Add(resp.Duration)
	r := store.AttemptResult{
		DeliveryID: d.ID, EndpointID: d.EndpointID, Generation: d.Generation, At: resp.SentAt, Duration: resp.Duration,
		Delivered: resp.OK(), Latency: at.Sub(d.CreatedAt), ResponseHeaders: resp.Headers(), Blameless: resp.ProxyFailed(),
		Test: d.EventType == store.EventTest, Healthy: rec.Healthy() && d.EventType != store.EventTest,
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
	var delay time.Duration
	before := d.AttemptCount - d.RoundStart // attempts of this round before this one
	if before < len(schedule) {
		delay = time.Duration(float64(schedule[before]) * (1 - scheduleJitter + 2*scheduleJitter*rand.Float64()))
	}
	switch resp.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		if r.Hold = resp.RetryAfter(); r.Hold > 0 {
			delay = max(delay, r.Hold)
		} else if rec.Breaker == store.BreakerClosed { // an open one has its own times
			// At most until the delivery's own retry, which the schedule promises.
			r.Hold = min(holdMin<<min(rec.Failures, 10), holdMax, max(delay, holdMin))
		}
	}
	if before < len(schedule) {
		next := at.Add(delay)
		r.NextAttemptAt = &next
	}
	return r
}
