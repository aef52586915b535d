package worker

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

var tracer = otel.Tracer("github.com/memhook/memhook/worker")

// traced starts a span that continues the trace whose traceparent the database kept; without one it returns a span that
// records nothing. The span also links to its parent, because the queue has kept it waiting. The caller ends it.
func traced(ctx context.Context, traceparent *string, name string, kind trace.SpanKind) (context.Context, trace.Span) {
	if traceparent == nil {
		return ctx, noop.Span{}
	}
	ctx = otel.GetTextMapPropagator().Extract(ctx, propagation.MapCarrier{"traceparent": *traceparent})
	link := trace.WithLinks(trace.LinkFromContext(ctx))
	return tracer.Start(ctx, name, trace.WithSpanKind(kind), link) //nolint:spancheck // the caller ends it
}

// traceparent returns the W3C header of a span that [traced] has started in ctx; nil if it has started none.
func traceparent(ctx context.Context, span trace.Span) *string {
	if !span.SpanContext().IsValid() {
		return nil
	}
	carrier := propagation.MapCarrier{}
	otel.GetTextMapPropagator().Inject(ctx, carrier)
	value := carrier.Get("traceparent")
	return &value
}
