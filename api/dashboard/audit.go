package dashboard

import (
	"net/http"

	"github.com/memhook/memhook/store"
)

func (d *dashboard) auditLog(r *http.Request) (*view, error) {
	var data listData[store.AuditEntry]
	var err error
	if data.Rows, err = d.store.AuditLog(r.Context(), store.Everything(), cursor(r)); err != nil {
		return nil, err
	}
	if n := len(data.Rows); n > 0 {
		data.Next = next(r, n, data.Rows[n-1].ID)
	}
	data.Newest = newest(r)
	return &view{template: "audit", Title: "Audit", Live: 5, Data: data}, nil
}
