package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/memhook/memhook/store"
)

// The codes that clients can rely on.
const (
	codeInvalid       = "invalid-request" // 422: a field is wrong; errors names it
	codeBadRequest    = "bad-request"     // 400: the body is not JSON
	codeUnauthorized  = "unauthorized"
	codeNotFound      = "not-found"
	codeConflict      = "conflict"
	codeNoPublicURL   = "no-public-url" // 409
	codeTooLarge      = "body-too-large"
	codeURLTooLong    = "url-too-long" // 414
	codeMethod        = "method-not-allowed"
	codeTimeout       = "request-timeout" // 408: the body came too slowly
	codeMediaType     = "unsupported-media-type"
	codeWebhook       = "webhook-loop" // 400: the request is a webhook
	codeKeyReused     = "idempotency-key-reused"
	codeKeyInUse      = "idempotency-key-in-use" // 409: try again soon
	codeRateLimited   = "rate-limited"           // 429: Retry-After says when to try again
	codeAdminDisabled = "admin-disabled"
	codeUnavailable   = "unavailable" // 503: try again soon
	codeNotReady      = "not-ready"   // 503, of /readyz
	codeInternal      = "internal"
)

// codes are all of them. A test holds that the document and the code know the same.
var codes = []string{
	codeInvalid, codeBadRequest, codeUnauthorized, codeNotFound, codeConflict, codeNoPublicURL, codeTooLarge, codeURLTooLong, codeMethod,
	codeTimeout, codeMediaType, codeWebhook, codeKeyReused, codeKeyInUse, codeRateLimited, codeAdminDisabled, codeUnavailable, codeNotReady,
	codeInternal,
}

// internalDetail is all that a client learns of a fault of ours.
const internalDetail = "an unexpected error occurred; the service's log explains it under this request_id"

// Problem is an error as clients receive it (RFC 9457), with a stable code.
type Problem struct {
	Type      string       `json:"type" example:"about:blank" doc:"Always about:blank; use code to tell problems apart."`
	Title     string       `json:"title" doc:"The name of the HTTP status."`
	Status    int          `json:"status" doc:"The HTTP status."`
	Code      string       `json:"code" example:"invalid-request" doc:"What went wrong, for programs. Stable."`
	Detail    string       `json:"detail" doc:"What went wrong and what to do, for people."`
	Errors    []FieldError `json:"errors,omitempty" doc:"The fields that are wrong."`
	RequestID string       `json:"request_id,omitempty" doc:"Identifies this request in the service's log."`
}

// FieldError names one field that is wrong.
type FieldError struct {
	Field   string `json:"field" example:"callback_url" doc:"The path of the field in the body, or the name of the parameter."`
	Message string `json:"message" doc:"What is wrong with it."`
}

// Error makes a Problem an error.
func (p *Problem) Error() string { return p.Code + ": " + p.Detail }

// GetStatus returns the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType returns the media type of problems.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

func problemFor(status int, code, detail string, fields ...FieldError) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail, Errors: fields}
}

// invalid is the problem of fields that are wrong.
func invalid(fields ...FieldError) *Problem {
	return problemFor(http.StatusUnprocessableEntity, codeInvalid, fieldsDetail(fields), fields...)
}

func fieldsDetail(fields []FieldError) string {
	texts := make([]string, len(fields))
	for i, f := range fields {
		texts[i] = f.Field + " " + f.Message
	}
	return strings.Join(texts, "; ")
}

// missing is the problem of a field that refers to something that does not exist.
func missing(field, kind string) *Problem {
	f := FieldError{field, "refers to no existing " + kind}
	return problemFor(http.StatusNotFound, codeNotFound, f.Field+" "+f.Message, f)
}

// problemOf maps an error to its problem. It is the only place that does. subject is what the path identifies.
func (s *server) problemOf(ctx context.Context, err error, subject string) *Problem {
	p, ok := errors.AsType[*Problem](err)
	if !ok {
		p = s.problemOfStore(ctx, err, subject)
	}
	p.RequestID = requestIDOf(ctx)
	return p
}

func (s *server) problemOfStore(ctx context.Context, err error, subject string) *Problem {
	var noHeader store.NoHeaderError
	switch {
	case errors.Is(err, store.ErrNotFound):
		return problemFor(http.StatusNotFound, codeNotFound, notFoundDetail(err, subject, scopeOf(ctx)))
	case errors.Is(err, store.ErrConflict):
		return problemFor(http.StatusConflict, codeConflict, store.ConflictReason(err))
	case errors.As(err, &noHeader):
		return invalid(FieldError{"headers." + noHeader.Name, "needs a value: " + masked + " stands for the stored one, and none is stored"})
	case errors.Is(err, store.ErrFull):
		return invalid(FieldError{"callback_url", "is one too many: " + store.ErrFull.Error()})
	case store.IsUnstorable(err):
		return invalid(FieldError{"body", "must be UTF-8 text without the character NUL"})
	case errors.Is(err, store.ErrSearchTimeout):
		return problemFor(http.StatusServiceUnavailable, codeUnavailable, store.ErrSearchTimeout.Error()+"; search for more of the text")
	case ctx.Err() != nil:
		return problemFor(http.StatusServiceUnavailable, codeUnavailable, "the client cancelled the request, or the service is stopping")
	case store.IsUnavailable(err):
		s.log.Warn("the database is unavailable", "error", err, "request_id", requestIDOf(ctx))
		return problemFor(http.StatusServiceUnavailable, codeUnavailable, "the database cannot be reached; try again in a few seconds")
	default:
		s.log.Error("request failed", "error", err, "request_id", requestIDOf(ctx))
		return problemFor(http.StatusInternalServerError, codeInternal, internalDetail)
	}
}

// notFoundDetail is the same for what does not exist and for what belongs to another app.
func notFoundDetail(err error, subject string, scope store.Scope) string {
	if subject == "" {
		return "nothing with this id exists"
	}
	text := "no " + subject + " has this id: "
	none, malformed := errors.AsType[noID](err)
	_, noEvent := parseEventID(string(none))
	given := printableName(string(none))
	switch {
	case !malformed && scope.All():
		return text + "it never existed or has been deleted"
	case !malformed:
		return text + "it never existed, has been deleted, or belongs to another app"
	case noEvent == nil:
		return text + given + " is the id of an event; get it at /events/" + given + ", or find what belongs to it at /search?q=" + given
	case subject == "task":
		return text + given + " is not an id of memhook, which is a UUID; find a task by its id at memories.ai with /tasks?task_id=" +
			url.QueryEscape(given)
	case subject == "event":
		return text + given + " is not evt_ followed by a UUID"
	default:
		return text + given + " is not a UUID"
	}
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
