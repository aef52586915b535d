package worker

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

var tracer = otel.Tracer("github.com/memhook/memhook/worker")

// traced starts a span that goes on with a trace which was kept in the database; without one there is none.
// The span links to what the queue kept it waiting for: its parent.
func traced(ctx context.Context, traceparent *string, name string, kind trace.SpanKind) (context.Context, trace.Span) {
	if traceparent == nil {
		return ctx, noop.Span{}
	}
	ctx = otel.GetTextMapPropagator().Extract(ctx, propagation.MapCarrier{"traceparent": *traceparent})
	return tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithLinks(trace.LinkFromContext(ctx))) //nolint:spancheck // the caller ends it
}

// traceparent gives a span that [traced] has started in ctx as W3C's header; nil where it has started none.
func traceparent(ctx context.Context, span trace.Span) *string {
	if !span.SpanContext().IsValid() {
		return nil
	}
	carrier := propagation.MapCarrier{}
	otel.GetTextMapPropagator().Inject(ctx, carrier)
	value := carrier.Get("traceparent")
	return &value
}
