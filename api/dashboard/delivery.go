package dashboard

import (
	"net/http"

	"github.com/memhook/memhook/store"
)

func (d *dashboard) deliveries(r *http.Request) (*view, error) {
	data := listData[store.Delivery]{Filter: filters(r, "status", "app_id", "endpoint_id", "task")}
	f := store.DeliveryFilter{
		Scope: filterScope(data.Filter["app_id"]), Status: data.Filter["status"],
		EndpointID: filterID(data.Filter["endpoint_id"]), TaskID: filterID(data.Filter["task"]),
	}
	var err error
	if data.Rows, err = d.store.Deliveries(r.Context(), f, cursor(r)); err != nil {
		return nil, err
	}
	if data.Apps, err = d.appNames(r); err != nil {
		return nil, err
	}
	if n := len(data.Rows); n > 0 {
		data.Next = next(r, n, data.Rows[n-1].ID)
	}
	return &view{template: "deliveries", Title: "Deliveries", Live: 3, Data: data}, nil
}

type deliveryData struct {
	store.Delivery
	Event store.Event
}

func (d *dashboard) delivery(r *http.Request) (*view, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	del, err := d.store.Delivery(r.Context(), store.Everything(), id)
	if err != nil {
		return nil, err
	}
	ev, err := d.store.Event(r.Context(), store.Everything(), del.EventID)
	if err != nil {
		return nil, err
	}
	return &view{template: "delivery", Title: "Delivery of " + del.EventType, Live: 2, Data: deliveryData{del, ev}}, nil
}

func (d *dashboard) resend(r *http.Request) (to, done string, err error) {
	id, err := pathID(r)
	if err == nil {
		err = d.store.Resend(r.Context(), store.Everything(), id)
	}
	return "/admin/deliveries/" + id.String(), "The delivery is sent again under the same webhook-id", err
}
