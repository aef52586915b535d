package api

import (
	"encoding/json"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
)

// Nullable is a field of a PATCH: absent (its zero value), null, or a value.
type Nullable[T any] struct {
	Set   bool // it is null or has a value
	Value T    // T's zero value for null
}

// given returns a field that has a value.
func given[T any](v T) Nullable[T] { return Nullable[T]{true, v} }

// UnmarshalJSON is called unless the field is absent.
func (n *Nullable[T]) UnmarshalJSON(b []byte) error {
	n.Set = true
	if string(b) == "null" {
		return nil
	}
	return json.Unmarshal(b, &n.Value)
}

// Schema returns T's schema, which allows null.
func (n Nullable[T]) Schema(r huma.Registry) *huma.Schema {
	s := *r.Schema(reflect.TypeFor[T](), true, "")
	s.Nullable = true
	return &s
}

// orNil returns the value, or nil for an absent field.
func (n Nullable[T]) orNil() *T {
	if !n.Set {
		return nil
	}
	return &n.Value
}
