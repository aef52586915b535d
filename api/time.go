package api

import (
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Time is a time as answers show it: UTC with six digits of a second, always. PostgreSQL keeps as many.
type Time struct{ time.Time }

// MarshalJSON writes "2006-01-02T15:04:05.000000Z".
func (t Time) MarshalJSON() ([]byte, error) {
	return t.UTC().AppendFormat(nil, `"2006-01-02T15:04:05.000000Z"`), nil
}

// Schema is that of a time.Time.
func (Time) Schema(r huma.Registry) *huma.Schema {
	return huma.SchemaFromType(r, reflect.TypeFor[time.Time]())
}

func wireTime(t time.Time) Time { return Time{t} }

// wireTimeOf is wireTime for what may be absent.
func wireTimeOf(t *time.Time) *Time {
	if t == nil {
		return nil
	}
	return &Time{*t}
}
