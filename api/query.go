package api

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// checkQuery is a middleware that refuses a query that the operation cannot read as a whole: a mistyped filter would
// otherwise be ignored and the list hold more than was asked for.
func checkQuery(ctx huma.Context, next func(huma.Context)) {
	u := ctx.URL()
	if wrong := wrongParameters(u.RawQuery, ctx.Operation().Parameters); wrong != nil {
		refuse(ctx, invalid(wrong...))
		return
	}
	next(ctx)
}

func wrongParameters(query string, params []*huma.Param) (wrong []FieldError) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return []FieldError{{"query", "is not correctly percent-encoded (% is written %25, and & separates parameters): " + err.Error()}}
	}
	var known []string
	for _, p := range params {
		if p.In == "query" {
			known = append(known, p.Name)
		}
	}
	for name, all := range values {
		switch {
		case len(known) == 0:
			wrong = append(wrong, FieldError{printableName(name), "is unknown; this operation takes no query parameters"})
		case name == "":
			wrong = append(wrong, FieldError{"query", "has a value without a name; write name=value"})
		case !slices.Contains(known, name):
			text := "is unknown; this operation takes " + strings.Join(known, ", ") + meant(name, known)
			wrong = append(wrong, FieldError{printableName(name), text})
		case len(all) > 1:
			wrong = append(wrong, FieldError{name, fmt.Sprintf("is given %d times; give it once", len(all))})
		case !utf8.ValidString(all[0]):
			wrong = append(wrong, FieldError{name, "must be UTF-8 text, percent-encoded: %C3%A9 for é"})
		case strings.ContainsRune(all[0], 0):
			wrong = append(wrong, FieldError{name, "must not contain the character NUL (%00)"})
		}
	}
	slices.SortFunc(wrong, func(a, b FieldError) int { return strings.Compare(a.Field, b.Field) })
	return wrong
}

// printableName is a parameter's name as a problem can show it.
func printableName(name string) string {
	return strings.ToValidUTF8(name[:min(len(name), 100)], "\uFFFD")
}
