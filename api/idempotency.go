package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

const (
	headerIdempotency = "Idempotency-Key"
	headerReplayed    = "Idempotency-Replayed"
	maxIdempotencyKey = 255
	// idempotencyPatience is how long a repeated request waits for the first one to end.
	idempotencyPatience = 10 * time.Second
)

// idempotent is a middleware that answers a repeated POST with the same Idempotency-Key as it answered the first one.
func (s *server) idempotent(ctx huma.Context, next func(huma.Context)) {
	key := ctx.Header(headerIdempotency)
	if key == "" || ctx.Method() != http.MethodPost {
		next(ctx)
		return
	}
	if len(key) > maxIdempotencyKey || !printable(key) {
		refuse(ctx, invalid(FieldError{headerIdempotency, "must be at most 255 printable characters"}))
		return
	}
	url := ctx.URL()
	hash := sha256.New()
	_, _ = io.WriteString(hash, url.RequestURI()+"\n")
	_, _ = io.Copy(hash, ctx.BodyReader())
	s.answerOnce(ctx, key, hash.Sum(nil), next)
}

func (s *server) answerOnce(ctx huma.Context, key string, hash []byte, next func(huma.Context)) {
	app := callerOf(ctx.Context()).AppID
	pause := 10 * time.Millisecond
	for deadline := time.Now().Add(idempotencyPatience); ; pause = min(2*pause, 200*time.Millisecond) {
		claim, err := s.store.ClaimIdempotent(ctx.Context(), app, key, hash)
		switch {
		case err != nil:
			refuse(ctx, s.problemOf(ctx.Context(), err, ""))
			return
		case claim.Mine:
			r := &recorded{humaContext: ctx}
			next(r)
			s.keepAnswer(ctx.Context(), app, key, claim, r)
			return
		case claim.Differs:
			refuse(ctx, fieldProblem(http.StatusUnprocessableEntity, codeKeyReused,
				FieldError{headerIdempotency, "was used for another request within 24 hours; use a new key for each request"}))
			return
		case claim.Status != 0:
			replay(ctx, claim.Status, claim.Response)
			return
		case time.Now().After(deadline):
			ctx.SetHeader("Retry-After", "5")
			refuse(ctx, problemFor(http.StatusConflict, codeKeyInUse,
				"the first request with this Idempotency-Key is still being processed; try again in 5 s"))
			return
		}
		select {
		case <-ctx.Context().Done():
			return
		case <-time.After(pause):
		}
	}
}

// keepAnswer keeps the answer to a request. A 5xx is not kept, so that the request can be tried again.
func (s *server) keepAnswer(ctx context.Context, app uuid.UUID, key string, claim store.Idempotent, r *recorded) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	var err error
	if r.status == 0 || r.status >= http.StatusInternalServerError {
		err = s.store.ForgetIdempotent(ctx, app, key, claim)
	} else {
		err = s.store.FinishIdempotent(ctx, app, key, claim, r.status, r.out.Bytes())
	}
	if err != nil {
		s.log.Warn("cannot keep the answer to an idempotency key", "error", err)
	}
}

func replay(ctx huma.Context, status int, response []byte) {
	kind := "application/json"
	if status >= http.StatusBadRequest {
		kind = "application/problem+json"
	}
	if len(response) > 0 {
		ctx.SetHeader("Content-Type", kind)
	}
	ctx.SetHeader(headerReplayed, "true")
	ctx.SetStatus(status)
	_, _ = ctx.BodyWriter().Write(response)
}

// humaContext is [huma.Context] under a name that, embedded, does not hide its method Context.
type humaContext = huma.Context

// recorded keeps the answer to a request.
type recorded struct {
	humaContext

	status int
	out    bytes.Buffer
}

// SetStatus keeps the status.
func (r *recorded) SetStatus(status int) {
	r.status = status
	r.humaContext.SetStatus(status)
}

// Status returns the status that was set.
func (r *recorded) Status() int { return r.status }

// BodyWriter keeps the body.
func (r *recorded) BodyWriter() io.Writer { return io.MultiWriter(&r.out, r.humaContext.BodyWriter()) }
