package webhook

import (
	"encoding/json"
	"time"
)

// The event types.
const (
	TaskReady         = "task.ready"
	TaskUpdated       = "task.updated"
	TaskIndexed       = "task.indexed"
	TaskFailed        = "task.failed"
	TaskExpired       = "task.expired"
	UploadFailed      = "upload.failed"
	UploadUnknown     = "upload.unknown"
	EndpointFailing   = "endpoint.failing"
	EndpointDisabled  = "endpoint.disabled"
	EndpointRecovered = "endpoint.recovered"
	Test              = "webhook.test"
)

// EventID writes an event's id as the outside knows it, the webhook-id.
func EventID(id string) string { return "evt_" + id }

// Event is the body of a webhook. Data is a [Task] for task.*, an [Upload] for upload.*, an [Endpoint] for endpoint.* and webhook.test.
type Event struct {
	Type      string          `json:"type"`
	Timestamp Time            `json:"timestamp"`
	Data      json.RawMessage `json:"data"`
}

// Task is the data of the task.* events.
type Task struct {
	ID           string            `json:"id"`
	TaskID       string            `json:"task_id"`
	UniqueID     string            `json:"unique_id"`
	VideoIDs     []string          `json:"video_ids"`
	Videos       []Video           `json:"videos"`
	Metadata     map[string]string `json:"metadata"`
	RegisteredAt Time              `json:"registered_at"`
	DetectedAt   Time              `json:"detected_at"`
	Added        []string          `json:"added,omitempty"` // of task.updated: what is new in VideoIDs
	Error        *Error            `json:"error,omitempty"` // of task.failed
}

// Video is one video of a task. What memories.ai does not tell is nil. Status is UNPARSE, PARSE, FAILED, or another word
// of memories.ai's.
type Video struct {
	VideoID  string   `json:"video_id"`
	Status   *string  `json:"status"`
	Cause    *string  `json:"cause"` // why it failed
	Name     *string  `json:"name"`
	URL      *string  `json:"url"` // where it was taken from
	Duration *float64 `json:"duration_seconds"`
}

// Error is why memories.ai refuses a task.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Upload is the data of the upload.* events: a submission that memories.ai refuses, or whose answer was lost.
type Upload struct {
	ID        string            `json:"id"`
	Status    string            `json:"status"` // failed or unknown
	URLs      []string          `json:"urls,omitempty"`
	SourceURL string            `json:"source_url,omitempty"`
	Metadata  map[string]string `json:"metadata"`
	CreatedAt Time              `json:"created_at"`
	Error     Error             `json:"error"`
}

// Endpoint is the data of the endpoint.* events and of webhook.test.
type Endpoint struct {
	ID     string `json:"id"`
	URL    string `json:"url"`
	Reason string `json:"reason,omitempty"` // of endpoint.disabled
}

// Time is a time that is written in UTC with milliseconds.
type Time struct{ time.Time }

// MarshalJSON writes "2006-01-02T15:04:05.000Z".
func (t Time) MarshalJSON() ([]byte, error) {
	return t.UTC().AppendFormat(nil, `"2006-01-02T15:04:05.000Z"`), nil
}
