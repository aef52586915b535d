package dashboard

import (
	"net/http"
	"slices"
	"time"

	"github.com/memhook/memhook/api/verdict"
	"github.com/memhook/memhook/store"
)

// A bulk resend or cancellation is shown twice before it is done: the list has a button that leads to a page with the count,
// and that page has the button that does it.

type newBulkData struct {
	Filter  map[string]string
	Matched int64
	More    bool // there are more than Matched
}

// countMost is how many deliveries are counted before a bulk resend. It takes milliseconds, unless the filter lets little through.
const countMost = 10_000

// bulkFilter reads what a bulk resend is to do from a page's or a form's parameters.
func bulkFilter(get func(string) string) (store.ResendFilter, error) {
	f := store.ResendFilter{
		Scope: filterScope(get("app_id")), Action: get("action"), Status: get("status"),
		EndpointID: filterID(get("endpoint_id")), EventType: get("event_type"),
	}
	statuses := map[string][]string{
		store.ActionResend: {store.DeliveryFailed, store.DeliveryPending, store.DeliveryDelivered}, store.ActionCancel: {store.DeliveryPending},
	}
	if !slices.Contains(statuses[f.Action], f.Status) {
		return f, badInput("Choose the status failed, pending or delivered to resend, or pending to cancel.")
	}
	for name, at := range map[string]*time.Time{"since": &f.Since, "until": &f.Until} {
		text := get(name)
		if text == "" {
			continue
		}
		t, err := time.Parse(formTime, text)
		if err != nil {
			return f, badInput("Times are written as 2026-01-31T15:04, in UTC.")
		}
		*at = t
	}
	return f, nil
}

var bulkFields = []string{"action", "status", "app_id", "endpoint_id", "event_type", "since", "until"}

func (d *dashboard) newBulk(r *http.Request) (*view, error) {
	data := newBulkData{Filter: filters(r, bulkFields...)}
	f, err := bulkFilter(func(name string) string { return data.Filter[name] })
	if err != nil {
		return nil, err
	}
	if data.Matched, err = d.store.CountResend(r.Context(), f, countMost+1); err != nil {
		return nil, err
	}
	data.More = data.Matched > countMost
	data.Matched = min(data.Matched, countMost)
	title := "Resend deliveries"
	if f.Action == store.ActionCancel {
		title = "Cancel deliveries"
	}
	return &view{template: "resend-new", Title: title, Data: data}, nil
}

func (d *dashboard) startBulk(r *http.Request) (to, done string, err error) {
	f, err := bulkFilter(func(name string) string { return formText(r, name) })
	if err != nil {
		return "", "", err
	}
	b, err := d.store.StartResend(r.Context(), f)
	return "/admin/resends/" + b.ID.String(), verdict.Count(b.Matched, "delivery") + " matched", err
}

func (d *dashboard) bulk(r *http.Request) (*view, error) {
	b, err := d.store.BulkResend(r.Context(), store.Everything(), pathID(r))
	if err != nil {
		return nil, err
	}
	title := "Resend"
	if b.Action == store.ActionCancel {
		title = "Cancellation"
	}
	return &view{template: "resend", Title: title, Live: 1, Data: b}, nil
}
