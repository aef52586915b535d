package api

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// fieldBody is the field of problems that the body as a whole has.
const fieldBody = "body"

// fieldNames are the names of the fields that an operation takes and of those that it answers with.
type fieldNames struct{ takes, answers []string }

const metadataFields = "fields"

// nameFields fills in the names of each operation's fields, for problems about fields that it does not take.
func nameFields(doc *huma.OpenAPI) {
	names := func(content map[string]*huma.MediaType) []string {
		if media := content["application/json"]; media != nil && media.Schema != nil {
			return propertiesOf(doc.Components.Schemas, media.Schema)
		}
		return nil
	}
	for _, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Post, item.Patch} {
			if op == nil || op.RequestBody == nil {
				continue
			}
			known, ok := op.Metadata[metadataFields].(*fieldNames)
			if !ok {
				continue
			}
			known.takes = names(op.RequestBody.Content)
			for _, answer := range op.Responses {
				known.answers = append(known.answers, names(answer.Content)...)
			}
		}
	}
}

func propertiesOf(r huma.Registry, schema *huma.Schema) []string {
	if schema.Ref != "" {
		schema = r.SchemaFromRef(schema.Ref)
	}
	return slices.Sorted(maps.Keys(schema.Properties))
}

func fieldNamesOf(op *huma.Operation) fieldNames {
	if names, ok := op.Metadata[metadataFields].(*fieldNames); ok {
		return *names
	}
	return fieldNames{}
}

// unknown says what to do about a field that the operation does not take.
func (n fieldNames) unknown(name string) string {
	const text = "is not a field of this request"
	if near := meant(name, n.takes); near != "" {
		return text + near
	}
	if slices.Contains(n.answers, name) {
		return "is set by memhook and cannot be changed here; leave it out"
	}
	if len(n.takes) > 0 {
		return text + ", which takes " + strings.Join(n.takes, ", ")
	}
	return text
}

// durations are the fields that are texts in JSON, which many send as numbers.
var durations = []string{"expires_in", "overlap"}

const wantedTime = "must be a time such as 2026-01-02T15:04:05Z (RFC 3339), with Z or an offset such as +02:00"

// types word what a value must be. example is what a text or number in its place would be written as.
var types = []struct {
	from, to string
	example  func(v any) string
}{
	{"expected string", "must be a string", quoted},
	{"expected boolean", "must be true or false", unquoted},
	{"expected integer", "must be an integer", unquoted},
	{"expected number", "must be a number", unquoted},
	{"expected array", "must be an array", func(v any) string {
		if _, ok := v.(string); ok {
			return ": put it between [ and ]"
		}
		return ""
	}},
	{"expected object", "must be an object", nil},
}

func quoted(v any) string {
	switch v.(type) {
	case float64, bool:
		return fmt.Sprintf(`: write "%v"`, v)
	}
	return ""
}

func unquoted(v any) string {
	if _, ok := v.(string); ok {
		return ": write it without quotes"
	}
	return ""
}

// bounds word the rest of huma's messages, the number in them being $1.
var bounds = []struct {
	from *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`^expected string to be RFC 3339 date-time$`), wantedTime},
	{regexp.MustCompile(`^expected string to be RFC 4122 uuid.*`), "must be a UUID"},
	{regexp.MustCompile(`^expected length >= 1$`), "must not be empty"},
	{regexp.MustCompile(`^expected length >= (\d+)$`), "must have at least $1 characters"},
	{regexp.MustCompile(`^expected length <= (\d+)$`), "must have at most $1 characters"},
	{regexp.MustCompile(`^expected array length >= (\d+)$`), "must have at least $1 elements"},
	{regexp.MustCompile(`^expected array length <= (\d+)$`), "must have at most $1 elements"},
	{regexp.MustCompile(`^expected object with at most (\d+) properties$`), "must have at most $1 members"},
	{regexp.MustCompile(`^expected number >= (\S+)$`), "must be at least $1"},
	{regexp.MustCompile(`^expected number <= (\S+)$`), "must be at most $1"},
	{regexp.MustCompile(`^required query parameter is missing$`), "is required"},
	{regexp.MustCompile(`^invalid integer$`), "must be an integer"},
	{regexp.MustCompile(`^invalid float(ing value)?$`), "must be a number"},
	{regexp.MustCompile(`^invalid boolean$`), "must be true or false"},
}

// fieldError words one of huma's details. Where a property is missing, huma names the object that misses it.
func fieldError(d *huma.ErrorDetail, names fieldNames) FieldError {
	field := strings.TrimPrefix(strings.TrimPrefix(d.Location, "body."), "query.")
	if field == "" { // the whole of a batch's registration, which has no name inside it
		field = fieldBody
	}
	if rest, ok := strings.CutPrefix(d.Message, "expected required property "); ok {
		name, _, _ := strings.Cut(rest, " ")
		if field == fieldBody {
			return FieldError{name, "is required"}
		}
		return FieldError{field + "." + name, "is required"}
	}
	if rest, ok := strings.CutPrefix(d.Message, atField); ok {
		name, message, _ := strings.Cut(rest, " ")
		return FieldError{name, message}
	}
	return FieldError{field, messageOf(field, d, names)}
}

func messageOf(field string, d *huma.ErrorDetail, names fieldNames) string {
	if d.Message == "unexpected property" {
		return names.unknown(field)
	}
	if list, ok := strings.CutPrefix(d.Message, `expected value to be one of "`); ok {
		return oneOf(d.Value, strings.Split(strings.TrimSuffix(list, `"`), ", "))
	}
	for _, b := range bounds {
		if b.from.MatchString(d.Message) {
			return b.from.ReplaceAllString(d.Message, b.to) + notThis(d.Value)
		}
	}
	for _, t := range types {
		if d.Message != t.from {
			continue
		}
		if t.from == "expected string" && d.Value != nil {
			_, number := d.Value.(float64)
			switch {
			case slices.Contains(durations, field):
				return `must be a duration in quotes such as "24h", not ` + kindOf(d.Value)
			case field == "since" || field == "until" && number:
				return `must be a time in quotes such as "2026-01-02T15:04:05Z", not ` + kindOf(d.Value)
			}
		}
		example := ""
		if t.example != nil {
			example = t.example(d.Value)
		}
		return t.to + ", not " + kindOf(d.Value) + example
	}
	return d.Message
}

// oneOf says which values are possible and which one was probably meant.
func oneOf(given any, possible []string) string {
	text := "must be one of " + strings.Join(possible, ", ")
	word, ok := given.(string)
	if !ok {
		return text
	}
	if len(word) <= 40 && printable(word) {
		text += ", not " + strconv.Quote(word)
	}
	return text + meant(word, possible)
}

// notThis repeats a number that is out of bounds.
func notThis(v any) string {
	switch v.(type) {
	case float64, int, int64:
		return fmt.Sprintf(", not %v", v)
	}
	return ""
}

// kindOf names the kind of a JSON value. It never repeats a text, which can be a secret.
func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case float64:
		if math.Abs(v) < 1e15 {
			return "the number " + strconv.FormatFloat(v, 'f', -1, 64)
		}
		return "the number " + strconv.FormatFloat(v, 'g', -1, 64)
	case string:
		return "a string"
	case []any:
		return "an array"
	default:
		return "an object"
	}
}
