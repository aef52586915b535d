package dashboard

import (
	"context"
	"html/template"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/api/verdict"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

// stripAttempts is the number of attempts that the strip of an endpoint shows.
const stripAttempts = 100

// rotateOverlap is how long the old secret signs beside a new one.
const rotateOverlap = 24 * time.Hour

func (d *dashboard) endpoints(r *http.Request) (*view, error) {
	data := endpointsData{listData: listData[store.Endpoint]{Filter: filters(r, "app_id", "state")}}
	f := store.EndpointFilter{Scope: filterScope(data.Filter["app_id"]), Troubled: data.Filter["state"] == "failing"}
	var err error
	id := func(e *store.Endpoint) uuid.UUID { return e.ID }
	data.Rows, data.pager, err = paged(r, id, whole(func(p store.Page) ([]store.Endpoint, error) {
		return d.store.Endpoints(r.Context(), f, p)
	}))
	if err != nil {
		return nil, err
	}
	if data.Apps, err = d.appNames(r); err != nil {
		return nil, err
	}
	if data.Success, err = d.successes(r, data.Rows); err != nil {
		return nil, err
	}
	return &view{template: "endpoints", Title: "Endpoints", Live: 3, Data: data}, nil
}

// endpointsData is the list with how each endpoint did in the last day, by id.
type endpointsData struct {
	listData[store.Endpoint]
	Success map[string]successLine
}

type successLine struct {
	Share string
	Spark template.HTML
}

func (d *dashboard) successes(r *http.Request, endpoints []store.Endpoint) (map[string]successLine, error) {
	now, ids := time.Now(), make([]uuid.UUID, len(endpoints))
	for i, ep := range endpoints {
		ids[i] = ep.ID
	}
	since := now.UTC().Truncate(time.Hour).Add(-23 * time.Hour)
	attempts, err := d.store.EndpointActivity(r.Context(), ids, since, time.Hour)
	lines := make(map[string]successLine, len(attempts))
	for id, list := range attempts {
		var good, bad int64
		for _, a := range list {
			good, bad = good+a.Delivered, bad+a.Failed
		}
		lines[id.String()] = successLine{success(good, bad), sparkline(list, now)}
	}
	return lines, err
}

type endpointData struct {
	store.Endpoint
	store.Health
	Charts    chartsData
	Strip     template.HTML
	App       string
	Headers   []string
	PublicKey string // verifies the v1a signatures, where they are sent
	Recovered int    // deliveries taken up by the last recovery; Queued of them still wait
	Sent      int
}

func (d *dashboard) endpoint(r *http.Request) (*view, error) {
	id := pathID(r)
	ep, err := d.store.Endpoint(r.Context(), store.Everything(), id)
	if err != nil {
		return nil, err
	}
	h, err := d.store.EndpointHealth(r.Context(), id, stripAttempts)
	if err != nil {
		return nil, err
	}
	data := endpointData{Endpoint: ep, Health: h, Strip: strip(h.Recent)}
	if data.Charts, err = d.endpointCharts(r, id); err != nil {
		return nil, err
	}
	app, err := d.store.App(r.Context(), ep.AppID)
	if err != nil {
		return nil, err
	}
	data.App = app.Name
	if data.Headers, err = d.store.HeaderNames(&ep); err != nil {
		return nil, err
	}
	if data.PublicKey, err = d.publicKey(r, &ep); err != nil {
		return nil, err
	}
	if n, err := strconv.Atoi(r.URL.Query().Get("recovered")); err == nil && n > 0 {
		data.Recovered, data.Sent = n, max(0, n-h.Queued)
	}
	return &view{template: "endpoint", Title: "Endpoint", Live: 2, Data: data}, nil
}

// publicKey returns the public key of an endpoint that is sent v1a signatures, or "".
func (s *site) publicKey(r *http.Request, ep *store.Endpoint) (string, error) {
	if !ep.Signs(store.SignatureEd25519) {
		return "", nil
	}
	key, err := s.store.PublicKey(r.Context(), store.OfApp(ep.AppID), ep.ID)
	if err != nil {
		return "", err
	}
	return webhook.FormatPublicKey(key), nil
}

// endpointCharts draws the attempts at an endpoint. They are counted in steps of 5 minutes.
func (d *dashboard) endpointCharts(r *http.Request, id uuid.UUID) (chartsData, error) {
	now, span := time.Now(), timespanOf(r)
	if span.step < 5*time.Minute {
		span.bars, span.step = 12, 5*time.Minute
	}
	attempts, err := d.store.EndpointActivity(r.Context(), []uuid.UUID{id}, span.start(now), span.step)
	if err != nil {
		return chartsData{}, err
	}
	minutes := make([]store.Minute, len(attempts[id]))
	for i, a := range attempts[id] {
		minutes[i] = store.Minute{Minute: a.At, Deliveries: a.Delivered, FailedAttempts: a.Failed}
	}
	slots := span.fold(minutes, now)
	return chartsData{Choices: span.choices(r), Span: span, Figures: []chart{attemptBars(span, slots, now)}, Table: figures(slots)}, nil
}

func (d *dashboard) testEndpoint(r *http.Request) (to, done string, err error) {
	delivery, err := d.store.TestEndpoint(r.Context(), store.Everything(), pathID(r))
	return "/admin/deliveries/" + delivery.String(), "webhook.test was sent to the queue", err
}

// updateEndpoint changes what an operator may want to: its description and its rate limit.
func (d *dashboard) updateEndpoint(r *http.Request) (to, done string, err error) {
	set := store.EndpointSettings{Description: new(formText(r, "description")), RateLimit: new(0.0)}
	switch limit, err := formRate(r, "rate_limit", "Deliveries per second", 10_000); {
	case err != nil:
		return "", "", err
	case limit != nil:
		set.RateLimit = limit
	}
	ep, err := d.store.UpdateEndpoint(r.Context(), store.Everything(), pathID(r), set)
	return "/admin/endpoints/" + ep.ID.String(), "The endpoint was updated", err
}

func (d *dashboard) retryEndpoint(r *http.Request) (to, done string, err error) {
	id := pathID(r)
	n, err := d.store.Recover(r.Context(), store.Everything(), id, nil)
	to = withQuery("/admin/endpoints/"+id.String(), "recovered", strconv.Itoa(n))
	return to, verdict.Count(n, "waiting delivery") + " sent as the endpoint takes them", err
}

func (d *dashboard) rotateSecret(ctx context.Context, scope store.Scope, id uuid.UUID) error {
	_, err := d.store.RotateSecret(ctx, scope, id, rotateOverlap)
	return err
}

func (d *dashboard) deleteEndpoint(r *http.Request) (to, done string, err error) {
	return "/admin/endpoints", "The endpoint was deleted", d.store.DeleteEndpoint(r.Context(), store.Everything(), pathID(r))
}

func (d *dashboard) setEnabled(on bool) func(context.Context, store.Scope, uuid.UUID) error {
	return func(ctx context.Context, scope store.Scope, id uuid.UUID) error {
		_, err := d.store.UpdateEndpoint(ctx, scope, id, store.EndpointSettings{Enabled: &on})
		return err
	}
}

func (d *dashboard) recoverEndpoint(r *http.Request) (to, done string, err error) {
	since, err := formHours(r)
	if err != nil {
		return "", "", err
	}
	id := pathID(r)
	n, err := d.store.Recover(r.Context(), store.Everything(), id, &since)
	to = withQuery("/admin/endpoints/"+id.String(), "recovered", strconv.Itoa(n))
	return to, verdict.Count(n, "failed delivery") + " sent again as the endpoint takes them", err
}

// formHours reads the field of a form that says for how many hours to look back.
func formHours(r *http.Request) (since time.Time, err error) {
	hours, err := strconv.ParseFloat(r.PostFormValue("hours"), 64)
	if err != nil || !(hours >= 0.1 && hours <= 24*365) {
		return since, badInput("Hours must be a number from 0.1 to 8760.")
	}
	return time.Now().Add(-time.Duration(hours * float64(time.Hour))), nil
}
