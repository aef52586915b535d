package api

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
)

var humaSet sync.Once

// setHuma makes huma's own errors look like ours, and lets a field have one name: encoding/json takes a name in any case, also
// beside the right one, whose value alone huma would check. huma has no other place for either.
func setHuma() {
	humaSet.Do(func() {
		huma.ValidateStrictCasing = true
		huma.NewErrorWithContext = newProblem
		huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
			return newProblem(nil, status, msg, errs...)
		}
	})
}

func newProblem(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
	id, names := "", fieldNames{}
	if ctx != nil {
		id, names = requestIDOf(ctx.Context()), fieldNamesOf(ctx.Operation())
	}
	var wrong []FieldError
	for _, err := range errs {
		if own, ok := errors.AsType[*Problem](err); ok {
			own.RequestID = id
			return own
		}
		if d, ok := errors.AsType[*huma.ErrorDetail](err); ok {
			wrong = append(wrong, fieldError(d, names))
		}
	}
	slices.SortStableFunc(wrong, func(a, b FieldError) int { return strings.Compare(a.Field, b.Field) }) // huma's order is that of a map
	switch {
	case len(wrong) > 0 && status == http.StatusUnprocessableEntity && strings.HasPrefix(wrong[0].Message, unreadable):
		status = http.StatusBadRequest
	case len(wrong) > 0:
	case status == http.StatusBadRequest && msg == "request body is required":
		wrong = []FieldError{{fieldBody, "is missing; send a JSON object"}}
	}
	p := problemFor(status, codeOf(status), msg, wrong...)
	if len(wrong) > 0 {
		p.Detail = fieldsDetail(wrong)
	}
	p.RequestID = id
	return p
}

// codeOf returns the code of one of huma's own problems.
func codeOf(status int) string {
	switch status {
	case http.StatusRequestEntityTooLarge:
		return codeTooLarge
	case http.StatusUnprocessableEntity:
		return codeInvalid
	case http.StatusInternalServerError:
		return codeInternal
	default:
		return strings.ReplaceAll(strings.ToLower(http.StatusText(status)), " ", "-")
	}
}
