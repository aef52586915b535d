package api

import (
	"encoding/base64"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// PageInput are the query parameters of every list.
type PageInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"The maximum number of entries."`
	Cursor string `query:"cursor" doc:"The next_cursor of the previous page."`

	page store.Page // which the adapter reads from them
}

func (p *PageInput) readPage() error {
	p.page = store.Page{Limit: p.Limit + 1} // one more tells whether this page is the last
	if p.Cursor == "" {
		return nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(p.Cursor)
	if err != nil || len(raw) != len(p.page.Before) || uuid.UUID(raw) == uuid.Nil {
		return invalid(FieldError{"cursor", "must be the next_cursor of a page of this list"})
	}
	p.page.Before = uuid.UUID(raw)
	return nil
}

// List is a page of a list.
type List[T any] struct {
	Data       []T     `json:"data" nullable:"false" doc:"The entries of this page."`
	NextCursor *string `json:"next_cursor" doc:"The cursor of the next page; null on the last page."`
}

// listOf makes a page of a list's rows; id returns a row's id, which the cursor is made of. For cut and limit see [pageOf].
func listOf[R, T any](rows []R, cut bool, limit int, id func(*R) uuid.UUID, wire func(*R) T) *body[List[T]] {
	return pageOf(rows, cut, limit, func(row *R) string {
		last := id(row)
		return base64.RawURLEncoding.EncodeToString(last[:])
	}, wire)
}

// pageOf makes a page of at most limit rows; cursor returns the cursor of the page that follows a row. The page is the last one
// unless there are more rows than limit, or the store has cut them.
func pageOf[R, T any](rows []R, cut bool, limit int, cursor func(*R) string, wire func(*R) T) *body[List[T]] {
	more := cut || len(rows) > limit
	rows = rows[:min(limit, len(rows))]
	out := &body[List[T]]{List[T]{Data: wireAll(rows, wire)}}
	if more {
		out.Body.NextCursor = new(cursor(&rows[len(rows)-1]))
	}
	return out
}

// wireAll returns rows as clients see them.
func wireAll[R, T any](rows []R, wire func(*R) T) []T {
	out := make([]T, len(rows))
	for i := range rows {
		out[i] = wire(&rows[i])
	}
	return out
}

// IDInput is the path parameter of one entity.
type IDInput struct {
	ID string `path:"id" doc:"The id of the entity: a UUID, or evt_ and a UUID for an event. Any other text is the id of nothing (404)."`

	id uuid.UUID // which the adapter reads from it
}

func (in *IDInput) readID() (err error) {
	in.id, err = parseID(in.ID)
	return err
}

// noID is the error of a text in a path that is no id at all. It counts as [store.ErrNotFound].
type noID string

// Error repeats the text.
func (text noID) Error() string { return string(text) + " is not an id" }

// Is makes the text the id of nothing.
func (noID) Is(target error) bool { return target == store.ErrNotFound }

// parseID reads an id. What is not a UUID is not the id of anything.
func parseID(s string) (uuid.UUID, error) {
	id, err := uuid.Parse(s)
	if err != nil {
		return id, noID(s)
	}
	return id, nil
}

// optionalID reads a filter that may be absent.
func optionalID(field, s string) (uuid.UUID, error) {
	if s == "" {
		return uuid.Nil, nil
	}
	return requiredID(field, s)
}

// requiredID reads a field or parameter that refers to an entity. It refuses the zero UUID, with which the store's filters select all.
func requiredID(field, s string) (uuid.UUID, error) {
	id, err := uuid.Parse(s)
	switch {
	case err != nil:
		return id, invalid(FieldError{field, "must be an id (a UUID)" + notThisID(s)})
	case id == uuid.Nil:
		return id, invalid(FieldError{field, "must be an id (a UUID) other than the zero UUID"})
	}
	return id, nil
}

// notThisID says what a text is that stands where an id is wanted.
func notThisID(s string) string {
	if _, err := parseEventID(s); err == nil {
		return ", not that of an event"
	}
	return ""
}

// checkName refuses a name that PostgreSQL cannot store.
func checkName(name *string) error {
	if name != nil && !storable(*name) {
		return invalid(FieldError{"name", "must not contain the character NUL"})
	}
	return nil
}
