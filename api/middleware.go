package api

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"

	"github.com/go-chi/chi/v5/middleware"
	"github.com/google/uuid"
)

// requestID assigns each request an id, which appears in the answer's header, in problems and in the log.
func requestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := uuid.Must(uuid.NewV7()).String()
		w.Header().Set("X-Request-Id", id)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), ctxRequestID, id)))
	})
}

func requestIDOf(ctx context.Context) string {
	id, _ := ctx.Value(ctxRequestID).(string)
	return id
}

// clientIP determines the client's address: the peer's, or the one that a trusted proxy reports.
func clientIP(proxies []netip.Prefix) func(http.Handler) http.Handler {
	if len(proxies) == 0 {
		return middleware.ClientIPFromRemoteAddr
	}
	networks := make([]string, len(proxies))
	for i, p := range proxies {
		networks[i] = p.String()
	}
	return middleware.ClientIPFromXFF(networks...)
}

// boundURL refuses targets longer than any operation needs.
func boundURL(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.RequestURI) > maxURL {
			writeProblem(w, r, problemFor(http.StatusRequestURITooLong, codeURLTooLong, "the URL is longer than 8 KiB"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// recovered turns a panic into a 500 and a line in the log.
func (s *server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler { //nolint:errorlint // compared as net/http does
				panic(v)
			}
			s.log.Error("panic", "value", fmt.Sprint(v), "request_id", requestIDOf(r.Context()), "stack", string(debug.Stack()))
			writeProblem(w, r, problemFor(http.StatusInternalServerError, codeInternal, internalDetail))
		}()
		next.ServeHTTP(w, r)
	})
}
