package dashboard

import (
	"html/template"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/memhook/memhook/store"
)

// stripAttempts is the number of attempts that the strip of an endpoint shows.
const stripAttempts = 100

func (d *dashboard) endpoints(r *http.Request) (*view, error) {
	data := listData[store.Endpoint]{Filter: filters(r, "app_id")}
	var err error
	if data.Rows, err = d.store.Endpoints(r.Context(), filterScope(data.Filter["app_id"]), cursor(r)); err != nil {
		return nil, err
	}
	if data.Apps, err = d.appNames(r); err != nil {
		return nil, err
	}
	if n := len(data.Rows); n > 0 {
		data.Next = next(r, n, data.Rows[n-1].ID)
	}
	return &view{template: "endpoints", Title: "Endpoints", Live: 3, Data: data}, nil
}

type endpointData struct {
	store.Endpoint
	store.Health
	Strip     template.HTML
	App       string
	Headers   []string
	Recovered int // deliveries taken up by the last recovery; Queued of them still wait
	Sent      int
}

func (d *dashboard) endpoint(r *http.Request) (*view, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	ep, err := d.store.Endpoint(r.Context(), store.Everything(), id)
	if err != nil {
		return nil, err
	}
	h, err := d.store.EndpointHealth(r.Context(), id, stripAttempts)
	if err != nil {
		return nil, err
	}
	data := endpointData{Endpoint: ep, Health: h, Strip: strip(h.Recent)}
	if app, err := d.store.App(r.Context(), ep.AppID); err == nil {
		data.App = app.Name
	}
	if data.Headers, err = d.store.HeaderNames(&ep); err != nil {
		return nil, err
	}
	if n, err := strconv.Atoi(r.URL.Query().Get("recovered")); err == nil && n > 0 {
		data.Recovered, data.Sent = n, max(0, n-h.Queued)
	}
	return &view{template: "endpoint", Title: "Endpoint", Live: 2, Data: data}, nil
}

func (d *dashboard) testEndpoint(r *http.Request) (to, done string, err error) {
	id, err := pathID(r)
	if err != nil {
		return "", "", err
	}
	delivery, err := d.store.TestEndpoint(r.Context(), store.Everything(), id)
	return "/admin/deliveries/" + delivery.String(), "webhook.test was sent to the queue", err
}

func (d *dashboard) setEnabled(r *http.Request) (to, done string, err error) {
	id, err := pathID(r)
	if err != nil {
		return "", "", err
	}
	verb := chi.URLParam(r, "verb")
	_, err = d.store.EnableEndpoint(r.Context(), store.Everything(), id, verb == "enable")
	return "/admin/endpoints/" + id.String(), "The endpoint was " + verb + "d", err
}

func (d *dashboard) recoverEndpoint(r *http.Request) (to, done string, err error) {
	id, err := pathID(r)
	if err != nil {
		return "", "", err
	}
	hours, err := strconv.ParseFloat(r.PostFormValue("hours"), 64)
	if err != nil || !(hours > 0 && hours <= 24*365) {
		return "", "", badInput("Hours must be a number from 0.1 to 8760.")
	}
	n, err := d.store.Recover(r.Context(), store.Everything(), id, time.Now().Add(-time.Duration(hours*float64(time.Hour))))
	to = withQuery("/admin/endpoints/"+id.String(), "recovered", strconv.Itoa(n))
	return to, count(n, "failed delivery") + " taken up again", err
}
