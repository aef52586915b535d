package api

import (
	"encoding/base64"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// PageInput are the query parameters of every list.
type PageInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"How many at most."`
	Cursor string `query:"cursor" doc:"next_cursor of the page before."`
}

func (p PageInput) page() (store.Page, error) {
	page := store.Page{Limit: p.Limit}
	if p.Cursor == "" {
		return page, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(p.Cursor)
	if err != nil || len(raw) != len(page.Before) {
		return page, invalid(FieldError{"cursor", "is not a next_cursor of this list"})
	}
	page.Before = uuid.UUID(raw)
	return page, nil
}

// List is a page of a list.
type List[T any] struct {
	Data       []T     `json:"data" nullable:"false"`
	NextCursor *string `json:"next_cursor" doc:"The cursor of the next page; null on the last."`
}

type listOutput[T any] struct {
	Body List[T]
}

// listOf makes a page of a list's rows; id gives a row's id.
func listOf[R, T any](rows []R, limit int, id func(*R) uuid.UUID, wire func(*R) T) *listOutput[T] {
	out := &listOutput[T]{Body: List[T]{Data: make([]T, len(rows))}}
	for i := range rows {
		out.Body.Data[i] = wire(&rows[i])
	}
	if len(rows) == limit && limit > 0 {
		last := id(&rows[len(rows)-1])
		cursor := base64.RawURLEncoding.EncodeToString(last[:])
		out.Body.NextCursor = &cursor
	}
	return out
}

// IDInput is the path parameter of one thing.
type IDInput struct {
	ID string `path:"id" doc:"Its id."`
}

// id reads the parameter; what is no UUID is no thing's id either.
func (in IDInput) id() (uuid.UUID, error) { return parseID(in.ID) }

func parseID(s string) (uuid.UUID, error) {
	id, err := uuid.Parse(s)
	if err != nil {
		return id, store.ErrNotFound
	}
	return id, nil
}

// optionalID reads a filter that may be absent.
func optionalID(field, s string) (uuid.UUID, error) {
	if s == "" {
		return uuid.Nil, nil
	}
	id, err := uuid.Parse(s)
	if err != nil {
		return id, invalid(FieldError{field, "is not an id"})
	}
	return id, nil
}

// scopeFilter reads an operator's filter by app: everything where it is absent.
func scopeFilter(s string) (store.Scope, error) {
	if s == "" {
		return store.Everything(), nil
	}
	app, err := optionalID("app_id", s)
	return store.OfApp(app), err
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}
