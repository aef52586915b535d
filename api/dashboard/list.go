package dashboard

import (
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// pageRows is the maximum number of rows that a list shows.
const pageRows = 50

// listData is a page of a list with its filters.
type listData[T any] struct {
	Rows   []T
	Filter map[string]string
	Apps   map[string]string // names by id
	Next   string            // the link to the next page
	Newest string            // the link to the first page; empty on it
}

// newest returns the link to the first page of a list, or "" on it.
func newest(r *http.Request) string {
	if r.URL.Query().Get("cursor") == "" {
		return ""
	}
	u := *r.URL
	q := u.Query()
	q.Del("cursor")
	u.RawQuery = q.Encode()
	return u.RequestURI()
}

// shown returns the URL of what a page shows, without what the last button did.
func shown(r *http.Request) string {
	u := *r.URL
	q := u.Query()
	q.Del("done")
	q.Del("problem")
	u.RawQuery = q.Encode()
	return u.RequestURI()
}

// cursor returns the page that a request asks for.
func cursor(r *http.Request) store.Page {
	p := store.Page{Limit: pageRows}
	if raw, err := base64.RawURLEncoding.DecodeString(r.URL.Query().Get("cursor")); err == nil && len(raw) == len(p.Before) {
		p.Before = uuid.UUID(raw)
	}
	return p
}

// next returns the link to the page after the one that ends with last.
func next(r *http.Request, rows int, last uuid.UUID) string {
	if rows < pageRows {
		return ""
	}
	return withQuery(r.URL.RequestURI(), "cursor", base64.RawURLEncoding.EncodeToString(last[:]))
}

// filters reads the named query parameters.
func filters(r *http.Request, names ...string) map[string]string {
	out := make(map[string]string, len(names))
	for _, name := range names {
		out[name] = strings.TrimSpace(strings.ReplaceAll(r.URL.Query().Get(name), "\x00", ""))
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
