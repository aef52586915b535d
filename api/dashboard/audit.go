package dashboard

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// auditLine is an entry of the audit log with what the page makes of it.
type auditLine struct {
	store.AuditEntry
	Page    string // of what was changed, or empty where it has none
	Kind    string // of it, such as endpoint
	Changed []changedField
}

type changedField struct{ Name, Before, After string }

func (d *dashboard) auditLog(r *http.Request) (*view, error) {
	data := listData[auditLine]{Filter: filters(r, "actor", "name", "action", "object", "since", "until")}
	f := store.AuditFilter{
		Scope: store.Everything(), Actor: data.Filter["actor"], Name: data.Filter["name"], Action: data.Filter["action"],
		Object: filterID(data.Filter["object"]),
	}
	entries, links, err := paged(r, func(e *store.AuditEntry) uuid.UUID { return e.ID }, whole(func(p store.Page) ([]store.AuditEntry, error) {
		return d.store.AuditLog(r.Context(), f, p)
	}))
	if err != nil {
		return nil, err
	}
	data.pager = links
	for _, e := range entries {
		data.Rows = append(data.Rows, lineOf(e))
	}
	return &view{template: "audit", Title: "Audit", Live: 5, Data: data}, nil
}

// pagesOf are the pages of what an entry's path names.
var pagesOf = map[string]string{
	"endpoints": "endpoint", "deliveries": "delivery", "tasks": "task", "accounts": "account", "apps": "app",
	"resends": "resend", "uploads": "upload",
}

func lineOf(e store.AuditEntry) auditLine {
	line := auditLine{AuditEntry: e}
	target := strings.Replace(e.Target, "/deliveries/resend", "/resends", 1) // as the API names it
	for part := range strings.SplitSeq(target, "/") {
		if kind, ok := pagesOf[part]; ok && e.Object != nil {
			line.Kind, line.Page = kind, "/admin/"+part+"/"+e.Object.String()
			break
		}
	}
	if e.Actor == store.ActorPortal && line.Page == "" && e.Object != nil {
		line.Kind, line.Page = "endpoint", "/admin/endpoints/"+e.Object.String()
	}
	for name, pair := range e.Changes {
		line.Changed = append(line.Changed, changedField{name, plain(pair[0]), plain(pair[1])})
	}
	slices.SortFunc(line.Changed, func(a, b changedField) int { return cmp.Compare(a.Name, b.Name) })
	return line
}

// plain writes a JSON value for people: a text without quotes, and – for nothing.
func plain(value json.RawMessage) string {
	var text string
	if json.Unmarshal(value, &text) == nil && !bytes.Equal(value, []byte("null")) {
		return cmp.Or(text, "(empty)")
	}
	if bytes.Equal(value, []byte("null")) {
		return "–"
	}
	return string(value)
}

// jobAction names what River's pages do by its path: pause-queue for /admin/jobs/api/queues/{name}/pause.
func jobAction(r *http.Request) string {
	kind, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/admin/jobs/api/"), "/")
	return path.Base(r.URL.Path) + "-" + strings.TrimSuffix(kind, "s")
}
