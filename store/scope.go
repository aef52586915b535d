package store

import "github.com/google/uuid"

// Scope limits what a method may read and change: one app's things, or every app's. The zero value matches nothing, so
// that a caller which forgets to say whose sees an empty list or [ErrNotFound], never another app's things.
type Scope struct {
	app uuid.UUID
	all bool
}

// OfApp is the scope of one app.
func OfApp(id uuid.UUID) Scope { return Scope{app: id} }

// Everything is the scope of an operator: all apps together.
func Everything() Scope { return Scope{all: true} }

// All reports whether the scope holds all apps.
func (s Scope) All() bool { return s.all }

// arg returns the scope as a parameter of a statement that says `($n::uuid is null or app_id = $n)`. No app has the
// zero id.
func (s Scope) arg() *uuid.UUID {
	if s.all {
		return nil
	}
	return &s.app
}
