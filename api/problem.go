package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/memhook/memhook/store"
)

// The codes that clients can rely on.
const (
	codeInvalid       = "invalid-request" // 422: a field is wrong; errors names it
	codeBadRequest    = "bad-request"     // 400: not even JSON
	codeUnauthorized  = "unauthorized"
	codeNotFound      = "not-found"
	codeConflict      = "conflict"
	codeTooLarge      = "body-too-large"
	codeKeyReused     = "idempotency-key-reused"
	codeRateLimited   = "rate-limited" // 429: Retry-After says when
	codeAdminDisabled = "admin-disabled"
	codeUnavailable   = "unavailable" // 503: try again soon
	codeInternal      = "internal"
)

// Problem is an error as clients get it (RFC 9457), with a stable code.
type Problem struct {
	Type      string       `json:"type" example:"about:blank" doc:"Always about:blank: code tells problems apart."`
	Title     string       `json:"title" doc:"The status in words."`
	Status    int          `json:"status" doc:"The HTTP status."`
	Code      string       `json:"code" example:"invalid-request" doc:"What went wrong, for programs. Stable."`
	Detail    string       `json:"detail" doc:"What went wrong, for people."`
	Errors    []FieldError `json:"errors,omitempty" doc:"The fields that are wrong."`
	RequestID string       `json:"request_id,omitempty" doc:"Names this request in the service's log."`
}

// FieldError names one field that is wrong.
type FieldError struct {
	Field   string `json:"field" example:"callback_url" doc:"The field, as a path in the body or a parameter's name."`
	Message string `json:"message" doc:"What is wrong with it."`
}

// Error makes a Problem an error.
func (p *Problem) Error() string { return p.Code + ": " + p.Detail }

// GetStatus gives the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType gives the media type of problems.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

func problemFor(status int, code, detail string, fields ...FieldError) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail, Errors: fields}
}

// invalid is the problem of fields that are wrong.
func invalid(fields ...FieldError) *Problem {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Field + " " + f.Message
	}
	return problemFor(http.StatusUnprocessableEntity, codeInvalid, strings.Join(names, "; "), fields...)
}

// newProblem is how huma makes its own errors, so that they look like ours.
func newProblem(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
	p := problemFor(status, codeOf(status), msg)
	if ctx != nil {
		p.RequestID = requestIDOf(ctx.Context())
	}
	for _, err := range errs {
		if own, ok := errors.AsType[*Problem](err); ok {
			own.RequestID = p.RequestID
			return own
		}
		var d huma.ErrorDetailer
		if errors.As(err, &d) {
			detail := d.ErrorDetail()
			p.Errors = append(p.Errors, fieldError(detail.Location, detail.Message))
		}
	}
	if status == http.StatusUnprocessableEntity && len(p.Errors) > 0 {
		p.Detail = invalid(p.Errors...).Detail
	}
	return p
}

// fieldError names the field of one of huma's details, which names the object that misses a property.
func fieldError(location, message string) FieldError {
	field := strings.TrimPrefix(strings.TrimPrefix(location, "body."), "query.")
	if rest, ok := strings.CutPrefix(message, "expected required property "); ok {
		name, _, _ := strings.Cut(rest, " ")
		if field == "body" || field == "" {
			return FieldError{name, "is required"}
		}
		return FieldError{field + "." + name, "is required"}
	}
	return FieldError{field, message}
}

func codeOf(status int) string {
	switch status {
	case http.StatusBadRequest:
		return codeBadRequest
	case http.StatusUnauthorized:
		return codeUnauthorized
	case http.StatusNotFound:
		return codeNotFound
	case http.StatusConflict:
		return codeConflict
	case http.StatusRequestEntityTooLarge:
		return codeTooLarge
	case http.StatusUnprocessableEntity:
		return codeInvalid
	case http.StatusTooManyRequests:
		return codeRateLimited
	case http.StatusServiceUnavailable:
		return codeUnavailable
	case http.StatusInternalServerError:
		return codeInternal
	default:
		return strings.ReplaceAll(strings.ToLower(http.StatusText(status)), " ", "-")
	}
}

// fail maps an error of the store to a problem. It is the only place that does.
func (s *server) fail(ctx context.Context, err error) error {
	p := s.problemOf(ctx, err)
	p.RequestID = requestIDOf(ctx)
	return p
}

func (s *server) problemOf(ctx context.Context, err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return problemFor(http.StatusNotFound, codeNotFound, "there is no such thing here")
	case errors.Is(err, store.ErrConflict):
		return problemFor(http.StatusConflict, codeConflict, err.Error())
	case isNUL(err):
		return invalid(FieldError{"body", "must not contain the character NUL"})
	case ctx.Err() != nil:
		return problemFor(http.StatusServiceUnavailable, codeUnavailable, "the request was given up")
	case store.IsAway(err):
		s.log.Warn("the database is away", "error", err, "request_id", requestIDOf(ctx))
		return problemFor(http.StatusServiceUnavailable, codeUnavailable, "the database is not reachable; try again")
	default:
		s.log.Error("request failed", "error", err, "request_id", requestIDOf(ctx))
		return problemFor(http.StatusInternalServerError, codeInternal, "something went wrong; the log knows more by the request_id")
	}
}

// isNUL tells whether the database refused a text for the one character that it cannot store.
func isNUL(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "22021"
}

func writeProblem(w http.ResponseWriter, r *http.Request, p *Problem) {
	p.RequestID = requestIDOf(r.Context())
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
