package worker

import (
	"encoding/json"
	"fmt"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

// EncodeEvent writes an event as the body of its webhooks. It is the store's [store.Encode].
func EncodeEvent(ev store.Event) ([]byte, error) {
	var data any
	switch {
	case ev.Task != nil:
		data = wireTask(ev)
	case ev.Endpoint != nil:
		ep := webhook.Endpoint{ID: ev.Endpoint.ID.String(), URL: ev.Endpoint.URL}
		if ev.Type == store.EventEndpointDisabled && ev.Endpoint.DisabledReason != nil {
			ep.Reason = *ev.Endpoint.DisabledReason
		}
		data = ep
	default:
		return nil, fmt.Errorf("%s is about nothing", ev.Type)
	}
	// As webhook.Event, whose raw data would be encoded and then read once more.
	return json.Marshal(struct {
		Type      string       `json:"type"`
		Timestamp webhook.Time `json:"timestamp"`
		Data      any          `json:"data"`
	}{ev.Type, webhook.Time{Time: ev.CreatedAt}, data})
}

func wireTask(ev store.Event) webhook.Task {
	t := ev.Task
	out := webhook.Task{
		ID: t.ID.String(), TaskID: t.UpstreamID, UniqueID: t.UniqueID, VideoIDs: make([]string, len(t.Videos)), Videos: make([]webhook.Video, len(t.Videos)),
		Metadata: t.Metadata, RegisteredAt: webhook.Time{Time: t.CreatedAt}, DetectedAt: webhook.Time{Time: ev.CreatedAt}, Added: ev.Added,
	}
	if out.Metadata == nil {
		out.Metadata = map[string]string{}
	}
	for i, v := range t.Videos {
		out.VideoIDs[i] = v.ID
		out.Videos[i] = webhook.Video{VideoID: v.ID, Status: v.Status}
	}
	if ev.Error != nil {
		out.Error = &webhook.Error{Code: ev.Error.Code, Message: ev.Error.Message}
	}
	return out
}
