package api

import (
	"encoding/json"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
)

const jsonNull = "null"

// Nullable is a field of a PATCH: absent (its zero value), null, or a value.
type Nullable[T any] struct {
	Set   bool // it is null or has a value
	Value T    // T's zero value for null
}

func given[T any](v T) Nullable[T] { return Nullable[T]{true, v} }

// UnmarshalJSON is called unless the field is absent.
func (n *Nullable[T]) UnmarshalJSON(b []byte) error {
	n.Set = true
	if string(b) == jsonNull {
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

// NotNull is an optional field for which null means nothing: absent (its zero value) or a value.
type NotNull[T any] struct{ Nullable[T] }

// UnmarshalJSON is called unless the field is absent. It refuses null, which huma lets pass in every optional field.
func (n *NotNull[T]) UnmarshalJSON(b []byte) error {
	if string(b) == jsonNull {
		return &json.UnmarshalTypeError{Value: jsonNull, Type: reflect.TypeFor[T]()}
	}
	return n.Nullable.UnmarshalJSON(b)
}

// Schema returns T's schema.
func (NotNull[T]) Schema(r huma.Registry) *huma.Schema {
	return r.Schema(reflect.TypeFor[T](), true, "")
}

// orZero returns what p points to, or the zero value for nil.
func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// orNil returns the value, or nil for an absent field.
func (n Nullable[T]) orNil() *T {
	if !n.Set {
		return nil
	}
	return &n.Value
}
