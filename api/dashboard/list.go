package dashboard

import (
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// pageRows is the maximum number of rows that a list shows.
const pageRows = 50

// listData is a page of a list with its filters.
type listData[T any] struct {
	pager
	Rows   []T
	Filter map[string]string
	Apps   map[string]string // names by id
}

// pager has the links to the pages beside one, or empty texts where there are none.
type pager struct{ Newest, Newer, Older string }

// cursor reads an id from a request's URL.
func cursor(r *http.Request, name string) (id uuid.UUID) {
	if raw, err := base64.RawURLEncoding.DecodeString(r.URL.Query().Get(name)); err == nil && len(raw) == len(id) {
		id = uuid.UUID(raw)
	}
	return id
}

// paged reads the page of a list that a request asks for, with the links to its neighbours. read returns the rows of a page, and
// whether it has fewer than were asked for because they are large. Towards the newest rows a page may have no full
// number of rows left: then it is the first page.
func paged[T any](r *http.Request, id func(*T) uuid.UUID, read func(store.Page) (rows []T, cut bool, err error)) ([]T, pager, error) {
	page := store.Page{Limit: pageRows, Before: cursor(r, "before"), After: cursor(r, "after")}
	page.Since, page.Until = filterTime(r, "since"), filterTime(r, "until")
	rows, cut, err := read(page)
	full := len(rows) == pageRows || cut
	if err == nil && page.After != uuid.Nil && !full {
		page.After, page.Before = uuid.Nil, uuid.Nil
		rows, cut, err = read(page)
		full = len(rows) == pageRows || cut
	}
	if err != nil {
		return nil, pager{}, err
	}
	var p pager
	u, q := *r.URL, r.URL.Query()
	q.Del("before")
	q.Del("after")
	u.RawQuery = q.Encode()
	base := u.RequestURI()
	link := func(name string, row *T) string {
		last := id(row)
		return withQuery(base, name, base64.RawURLEncoding.EncodeToString(last[:]))
	}
	if page.Before != uuid.Nil || page.After != uuid.Nil {
		p.Newest = base
	}
	if len(rows) > 0 && p.Newest != "" {
		p.Newer = link("after", &rows[0])
	}
	if len(rows) > 0 && (full || page.After != uuid.Nil) {
		p.Older = link("before", &rows[len(rows)-1])
	}
	return rows, p, nil
}

// whole makes a reader for [paged] of one that never cuts a page.
func whole[T any](read func(store.Page) ([]T, error)) func(store.Page) ([]T, bool, error) {
	return func(p store.Page) ([]T, bool, error) {
		rows, err := read(p)
		return rows, false, err
	}
}

// filterTime reads a time in UTC, as the fields of forms send it. What is no time is no bound.
func filterTime(r *http.Request, name string) time.Time {
	t, err := time.Parse(formTime, r.URL.Query().Get(name))
	if err != nil || t.Year() < 2000 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}

// formTime is how forms send times.
const formTime = "2006-01-02T15:04"

// maxText is how many characters a page takes of a field.
const maxText = 1000

// storable returns a text trimmed, cut to a number of characters, and without what PostgreSQL cannot store.
func storable(text string, most int) string {
	runes := []rune(strings.TrimSpace(store.Storable(text)))
	return string(runes[:min(len(runes), most)])
}

// filters reads the named query parameters.
func filters(r *http.Request, names ...string) map[string]string {
	out := make(map[string]string, len(names))
	for _, name := range names {
		out[name] = storable(r.URL.Query().Get(name), maxText)
	}
	return out
}

// filterID reads a filter that is an id. What is not an id matches nothing rather than everything.
func filterID(s string) uuid.UUID {
	if s == "" {
		return uuid.Nil
	}
	id, err := uuid.Parse(s)
	if err != nil || id == uuid.Nil {
		return uuid.Max
	}
	return id
}

// filterScope reads the filter by app: everything where it is absent.
func filterScope(s string) store.Scope {
	if s == "" {
		return store.Everything()
	}
	return store.OfApp(filterID(s))
}

// appNames returns the apps' names by id, for lists.
func (d *dashboard) appNames(r *http.Request) (map[string]string, error) {
	apps, err := d.store.Apps(r.Context(), store.Page{Limit: 500})
	if err != nil {
		return nil, err
	}
	names := make(map[string]string, len(apps))
	for _, a := range apps {
		names[a.ID.String()] = a.Name
	}
	return names, nil
}
