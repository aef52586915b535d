package dashboard

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/go-chi/chi/v5/middleware"
	"riverqueue.com/riverui"

	"github.com/memhook/memhook/internal/warnings"
	"github.com/memhook/memhook/store"
)

// River's pages, under /admin/jobs, show its jobs and queues and can change them.

// riverPolicy is the policy of River's pages. Their scripts set styles and compile schemas.
const riverPolicy = "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; " +
	"img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"

// startJobs returns the handler of River's pages. Its background work ends with ctx.
func startJobs(ctx context.Context, cfg Config) (http.Handler, error) {
	jobs, err := riverui.NewHandler(&riverui.HandlerOpts{
		Endpoints: riverui.NewEndpoints(cfg.Store.Jobs(), nil), Prefix: "/admin/jobs", Logger: warnings.Only(cfg.Logger),
	})
	if err != nil {
		return nil, err
	}
	return jobs, jobs.Start(ctx)
}

// jobPages serves River's pages, and enters in the audit log what they change.
func (d *dashboard) jobPages(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Security-Policy", riverPolicy)
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		d.jobs.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "the body could not be read or is too large", http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	r, e := d.auditing(r, jobAction(r))
	var jobs struct {
		IDs json.RawMessage `json:"ids"`
	}
	if json.Unmarshal(body, &jobs) == nil && jobs.IDs != nil {
		e.Changes = store.Changes{"ids": {json.RawMessage("null"), jobs.IDs}}
	}
	answer := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
	d.jobs.ServeHTTP(answer, r)
	if answer.Status() < http.StatusBadRequest {
		d.audit(r, e)
	}
}
