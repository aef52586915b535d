package dashboard

import (
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/api/verdict"
	"github.com/memhook/memhook/store"
)

// uploadLine is an upload in a list, or on its page, with its task.
type uploadLine struct {
	store.Upload
	Task *store.Task // nil if it has none, or the task was deleted
}

// whatMost is how many characters of a URL stand in a line.
const whatMost = 100

// What is submitted, in a few words.
func (l uploadLine) What() string {
	what, others := l.Request.SourceURL, 0
	if urls := l.Request.URLs; len(urls) > 0 {
		what, others = urls[0], len(urls)-1
	}
	if runes := []rune(what); len(runes) > whatMost {
		what = string(runes[:whatMost]) + "…"
	}
	if others > 0 {
		what += " and " + verdict.Count(others, "other")
	}
	return what
}

// NextAttempt is when it may be submitted, nil unless it is queued.
func (l uploadLine) NextAttempt() *time.Time {
	if l.Status != store.UploadQueued {
		return nil
	}
	return &l.NextAttemptAt
}

func (d *dashboard) uploadLines(r *http.Request, uploads []store.Upload) ([]uploadLine, error) {
	tasks, err := d.store.TasksOfUploads(r.Context(), uploads)
	lines := make([]uploadLine, len(uploads))
	for i, u := range uploads {
		lines[i].Upload = u
		if u.TaskID != nil {
			lines[i].Task = tasks[*u.TaskID]
		}
	}
	return lines, err
}

func (d *dashboard) uploads(r *http.Request) (*view, error) {
	data := listData[uploadLine]{Filter: filters(r, "status", "app_id", "since", "until")}
	f := store.UploadFilter{Scope: filterScope(data.Filter["app_id"]), Status: data.Filter["status"]}
	list, links, err := paged(r, func(u *store.Upload) uuid.UUID { return u.ID }, func(p store.Page) ([]store.Upload, bool, error) {
		return d.store.Uploads(r.Context(), f, p)
	})
	if err != nil {
		return nil, err
	}
	data.pager = links
	if data.Rows, err = d.uploadLines(r, list); err != nil {
		return nil, err
	}
	if data.Apps, err = d.appNames(r); err != nil {
		return nil, err
	}
	return &view{template: "uploads", Title: "Uploads", Live: 3, Data: data}, nil
}

type uploadData struct {
	uploadLine
	Account store.Account
}

func (d *dashboard) upload(r *http.Request) (*view, error) {
	u, err := d.store.Upload(r.Context(), store.Everything(), pathID(r))
	if err != nil {
		return nil, err
	}
	lines, err := d.uploadLines(r, []store.Upload{u})
	if err != nil {
		return nil, err
	}
	data := uploadData{uploadLine: lines[0]}
	data.Account, err = d.accountOrDeleted(r, u.AccountID)
	return &view{template: "upload", Title: "Upload", Live: 2, Data: data}, err
}
