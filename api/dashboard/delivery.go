package dashboard

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

func (d *dashboard) deliveries(r *http.Request) (*view, error) {
	data := listData[deliveryLine]{Filter: filters(r, "status", "app_id", "endpoint_id", "task", "since", "until")}
	f := store.DeliveryFilter{
		Scope: filterScope(data.Filter["app_id"]), Status: data.Filter["status"],
		EndpointID: filterID(data.Filter["endpoint_id"]), TaskID: filterID(data.Filter["task"]),
	}
	var err error
	if data.Rows, data.pager, err = d.deliveryPage(r, f); err != nil {
		return nil, err
	}
	if data.Apps, err = d.appNames(r); err != nil {
		return nil, err
	}
	return &view{template: "deliveries", Title: "Deliveries", Live: 3, Data: data}, nil
}

// deliveryPage reads the page of a list of deliveries that a request asks for.
func (s *site) deliveryPage(r *http.Request, f store.DeliveryFilter) ([]deliveryLine, pager, error) {
	id := func(d *store.Delivery) uuid.UUID { return d.ID }
	list, links, err := paged(r, id, whole(func(p store.Page) ([]store.Delivery, error) { return s.store.Deliveries(r.Context(), f, p) }))
	if err != nil {
		return nil, links, err
	}
	lines, err := s.deliveryLines(r, list)
	return lines, links, err
}

// deliveryLine is a delivery in a list, with what its last attempt said.
type deliveryLine struct {
	store.Delivery
	Last store.LastAttempt
}

func (s *site) deliveryLines(r *http.Request, deliveries []store.Delivery) ([]deliveryLine, error) {
	last, err := s.store.LastAttempts(r.Context(), deliveries)
	lines := make([]deliveryLine, len(deliveries))
	for i, del := range deliveries {
		lines[i] = deliveryLine{del, last[del.ID]}
	}
	return lines, err
}

type deliveryData struct {
	store.Delivery
	Event  store.Event
	Body   string   // of the webhook, indented
	Custom []string // names of the endpoint's own headers, whose values are secret
	Curl   string   // sends the body to the receiver, without a signature
}

// indented returns JSON with a line for each member; other text as it is.
func indented(text string) string {
	var b bytes.Buffer
	if json.Indent(&b, []byte(text), "", "  ") != nil {
		return text
	}
	return b.String()
}

// shellQuoted quotes a text for a POSIX shell.
func shellQuoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func curlOf(del store.Delivery, ev store.Event) string {
	return "curl -i " + shellQuoted(del.CallbackURL) + " \\\n  -H 'Content-Type: application/json' \\\n  -H 'webhook-id: " +
		webhook.EventID(ev.ID.String()) + "' \\\n  --data-binary " + shellQuoted(ev.Payload)
}

func (d *dashboard) delivery(r *http.Request) (*view, error) {
	del, err := d.store.Delivery(r.Context(), store.Everything(), pathID(r))
	if err != nil {
		return nil, err
	}
	data, err := d.details(r, del)
	return &view{template: "delivery", Title: "Delivery of " + del.EventType, Live: 2, Data: data}, err
}

// details reads what the page of a delivery shows beside it.
func (s *site) details(r *http.Request, del store.Delivery) (deliveryData, error) {
	scope := store.OfApp(del.AppID)
	ev, err := s.store.Event(r.Context(), scope, del.EventID)
	if err != nil {
		return deliveryData{}, err
	}
	data := deliveryData{Delivery: del, Event: ev, Body: indented(ev.Payload), Curl: curlOf(del, ev)}
	ep, err := s.store.Endpoint(r.Context(), scope, del.EndpointID)
	if errors.Is(err, store.ErrNotFound) { // it was deleted
		return data, nil
	}
	if err == nil {
		data.Custom, err = s.store.HeaderNames(&ep)
	}
	return data, err
}
