package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

var tracer = otel.Tracer("github.com/memhook/memhook/api")

// observed is a middleware that counts each request, makes a span of it as part of the caller's trace where it sends one, and
// logs a line without its query, which can hold private data.
func (s *server) observed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		ctx := otel.GetTextMapPropagator().Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := tracer.Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		if span.IsRecording() { // or else tasks would be part of a trace that nobody records
			r = r.WithContext(ctx)
		}
		ww := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		next.ServeHTTP(ww, r)
		took, route, id := time.Since(start), "unknown", requestIDOf(ctx)
		if rc := chi.RouteContext(ctx); rc != nil && rc.RoutePattern() != "" {
			route = r.Method + " " + rc.RoutePattern()
		}
		s.counts.requests.WithLabelValues(route, strconv.Itoa(max(ww.Status(), http.StatusOK))).Inc()
		s.counts.duration.WithLabelValues(route).Observe(took.Seconds())
		span.SetName(route)
		span.SetAttributes(attribute.Int("http.response.status_code", ww.Status()), attribute.String("memhook.request_id", id))
		s.log.Debug("request", "method", r.Method, "path", loggedPath(r.URL.Path), "status", ww.Status(), "bytes", ww.BytesWritten(),
			"took", took, "client", middleware.GetClientIP(ctx), "request_id", id)
	})
}

// loggedPath hides the token of a hint URL: whoever knows it can cause polls.
func loggedPath(path string) string {
	const hints = "/v1/hints/"
	if strings.HasPrefix(path, hints) {
		return hints + "…"
	}
	return path
}

// traceparent returns the trace that a request is part of, as W3C's header; nil where there is none.
func traceparent(ctx context.Context) *string {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return nil
	}
	carrier := propagation.MapCarrier{}
	otel.GetTextMapPropagator().Inject(ctx, carrier)
	value := carrier.Get("traceparent")
	return &value
}
