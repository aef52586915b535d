package api

import (
	"errors"
	"net/http"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
)

var problems sync.Once

// setProblems makes huma's own errors look like ours. huma has no other place for it.
func setProblems() {
	problems.Do(func() {
		huma.NewErrorWithContext = newProblem
		huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
			return newProblem(nil, status, msg, errs...)
		}
	})
}

// newProblem makes the problem of one of huma's errors.
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
	if kind, ok := unknownMediaType(p.Errors); ok {
		p = problemFor(http.StatusUnsupportedMediaType, codeOf(http.StatusUnsupportedMediaType),
			"send the body as Content-Type: application/json; "+kind+" is not supported")
		p.RequestID = requestIDOf(ctx.Context())
		return p
	}
	switch {
	case len(p.Errors) > 0:
		p.Detail = fieldsDetail(p.Errors)
	case status == http.StatusBadRequest && msg == "request body is required":
		p.Detail = "the request has no body; send a JSON object"
	case status == http.StatusRequestEntityTooLarge:
		p.Detail = "the body is larger than 1 MiB"
	case status == http.StatusRequestTimeout:
		p.Detail = "the body did not arrive within " + bodyTimeout.String()
	}
	return p
}

// unknownMediaType returns the media type that a request's body was refused for.
func unknownMediaType(fields []FieldError) (kind string, ok bool) {
	for _, f := range fields {
		if kind, ok := strings.CutPrefix(f.Message, huma.ErrUnknownContentType.Error()+": "); ok {
			return kind, true
		}
	}
	return "", false
}

// wording turns huma's messages into predicates of the field, the most specific first.
var wording = []struct{ from, to string }{
	{"unexpected property", "is not a field of this request"},
	{"required query parameter is missing", "is required"},
	{"expected value to be one of", "must be one of"},
	{"expected string to be RFC 4122 uuid", "must be a UUID"},
	{"expected string to be RFC 3339 date-time", "must be a time such as 2026-01-02T15:04:05Z (RFC 3339)"},
	{"expected array length", "must have a number of elements"},
	{"expected object with", "must have"},
	{"expected length", "must have a length"},
	{"expected number >", "must be >"},
	{"expected number <", "must be <"},
	{"expected boolean", "must be true or false"},
	{"expected integer", "must be an integer"},
	{"invalid integer", "must be an integer"},
	{"expected array", "must be an array"},
	{"expected object", "must be an object"},
	{"expected ", "must be a "},
}

// fieldError words one of huma's details. Where a property is missing, huma names the object that misses it.
func fieldError(location, message string) FieldError {
	field := strings.TrimPrefix(strings.TrimPrefix(location, "body."), "query.")
	if rest, ok := strings.CutPrefix(message, "expected required property "); ok {
		name, _, _ := strings.Cut(rest, " ")
		if field == "body" || field == "" {
			return FieldError{name, "is required"}
		}
		return FieldError{field + "." + name, "is required"}
	}
	if field == "" { // the whole of a batch's registration, which has no name inside it
		field = "body"
	}
	for _, w := range wording {
		if rest, ok := strings.CutPrefix(message, w.from); ok {
			if strings.HasSuffix(w.from, "uuid") { // what the parser says of it explains no more
				rest = ""
			}
			return FieldError{field, w.to + rest}
		}
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
