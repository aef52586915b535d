package worker

import (
	"encoding/json"
	"fmt"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

// EncodeEvent returns an event as the body of its webhooks. The store calls it as its [store.Encode].
func EncodeEvent(ev store.Event) ([]byte, error) {
	var data any
	switch {
	case ev.Task != nil:
		data = wireTask(ev)
	case ev.Upload != nil:
		data = wireUpload(ev.Upload)
	case ev.Endpoint != nil:
		ep := webhook.Endpoint{ID: ev.Endpoint.ID.String(), URL: ev.Endpoint.URL}
		if ev.Type == store.EventEndpointDisabled && ev.Endpoint.DisabledReason != nil {
			ep.Reason = *ev.Endpoint.DisabledReason
		}
		data = ep
	default:
		return nil, fmt.Errorf("event %s has neither a task nor an endpoint nor an upload", ev.Type)
	}
	// This is webhook.Event, whose raw data would have to be encoded and then scanned again.
	return json.Marshal(struct {
		Type      string       `json:"type"`
		Timestamp webhook.Time `json:"timestamp"`
		Data      any          `json:"data"`
	}{ev.Type, webhook.Time{Time: ev.CreatedAt}, data})
}

// wireTask returns the event's task as receivers see it.
func wireTask(ev store.Event) webhook.Task {
	t := ev.Task
	out := webhook.Task{
		ID: t.ID.String(), TaskID: t.UpstreamID, UniqueID: t.UniqueID, Metadata: t.Metadata, Added: ev.Added,
		VideoIDs: make([]string, len(t.Videos)), Videos: make([]webhook.Video, len(t.Videos)),
		RegisteredAt: webhook.Time{Time: t.CreatedAt}, DetectedAt: webhook.Time{Time: ev.CreatedAt},
	}
	if out.Metadata == nil {
		out.Metadata = map[string]string{}
	}
	for i, v := range t.Videos {
		out.VideoIDs[i] = v.ID
		out.Videos[i] = webhook.Video{VideoID: v.ID, Status: v.Status, Cause: v.Cause, Name: v.Name, URL: v.URL, Duration: v.Duration}
	}
	if ev.Error != nil {
		out.Error = &webhook.Error{Code: ev.Error.Code, Message: ev.Error.Message}
	}
	return out
}

// wireUpload returns an upload as receivers see it.
func wireUpload(u *store.Upload) webhook.Upload {
	out := webhook.Upload{
		ID: u.ID.String(), Status: u.Status, URLs: u.Request.URLs, SourceURL: u.Request.SourceURL, Metadata: u.Metadata,
		CreatedAt: webhook.Time{Time: u.CreatedAt},
	}
	if out.Metadata == nil {
		out.Metadata = map[string]string{}
	}
	if u.Error != nil {
		out.Error = webhook.Error{Code: u.Error.Code, Message: u.Error.Message}
	}
	return out
}
