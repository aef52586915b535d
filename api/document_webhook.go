package api

import (
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/memhook/memhook/webhook"
)

// The data of the events as the document shows them.
type (
	// WebhookTask is the data of task.ready, task.indexed and task.expired.
	WebhookTask struct {
		ID           uuid.UUID         `json:"id" doc:"The id of the task in memhook."`
		TaskID       string            `json:"task_id" doc:"The task id of memories.ai."`
		UniqueID     string            `json:"unique_id" doc:"The unique_id of the upload."`
		VideoIDs     []string          `json:"video_ids" nullable:"false" doc:"In the order in which they were first seen."`
		Videos       []Video           `json:"videos" nullable:"false" doc:"The videos with their status, in the order of video_ids."`
		Metadata     map[string]string `json:"metadata" doc:"As registered."`
		RegisteredAt Time              `json:"registered_at" doc:"The first registration."`
		DetectedAt   Time              `json:"detected_at" doc:"When memhook saw it."`
	}
	// WebhookTaskUpdated is the data of task.updated.
	WebhookTaskUpdated struct {
		WebhookTask
		Added []string `json:"added" nullable:"false" doc:"The new elements of video_ids."`
	}
	// WebhookTaskFailed is the data of task.failed.
	WebhookTaskFailed struct {
		WebhookTask
		Error TaskError `json:"error" doc:"Why memories.ai refuses the task."`
	}
	// WebhookUpload is the data of upload.failed and upload.unknown.
	WebhookUpload struct {
		ID        uuid.UUID         `json:"id" doc:"The id of the upload."`
		Status    string            `json:"status" enum:"failed,unknown" doc:"What has become of the upload."`
		URLs      []string          `json:"urls,omitempty" nullable:"false" doc:"As submitted."`
		SourceURL string            `json:"source_url,omitempty" doc:"As submitted."`
		Metadata  map[string]string `json:"metadata" doc:"As submitted."`
		CreatedAt Time              `json:"created_at" doc:"When the upload was queued."`
		Error     TaskError         `json:"error" doc:"Why there is no task."`
	}
	// WebhookEndpoint is the data of the events of endpoints and of webhook.test.
	WebhookEndpoint struct {
		ID     uuid.UUID `json:"id" doc:"The id of the endpoint."`
		URL    string    `json:"url" doc:"The URL of the endpoint."`
		Reason string    `json:"reason,omitempty" doc:"Only in endpoint.disabled."`
	}
)

// documentedWebhooks are the events that memhook sends.
var documentedWebhooks = []struct {
	eventType, name, summary string
	data                     reflect.Type
}{
	{webhook.TaskReady, "TaskReady", "The task's videos are available.", reflect.TypeFor[WebhookTask]()},
	{webhook.TaskUpdated, "TaskUpdated", "More videos were added within the settle window.", reflect.TypeFor[WebhookTaskUpdated]()},
	{webhook.TaskIndexed, "TaskIndexed", "Every video of the task is indexed.", reflect.TypeFor[WebhookTask]()},
	{webhook.TaskFailed, "TaskFailed", "memories.ai keeps refusing the task, or the task failed there.", reflect.TypeFor[WebhookTaskFailed]()},
	{webhook.TaskExpired, "TaskExpired", "The task expired before its videos were available.", reflect.TypeFor[WebhookTask]()},
	{webhook.UploadFailed, "UploadFailed", "memories.ai refuses the submission.", reflect.TypeFor[WebhookUpload]()},
	{
		webhook.UploadUnknown, "UploadUnknown", "The answer to the submission was lost; memories.ai may have accepted it.",
		reflect.TypeFor[WebhookUpload](),
	},
	{webhook.EndpointFailing, "EndpointFailing", "The breaker of another endpoint of the app opened.", reflect.TypeFor[WebhookEndpoint]()},
	{webhook.EndpointDisabled, "EndpointDisabled", "Another endpoint of the app was disabled.", reflect.TypeFor[WebhookEndpoint]()},
	{webhook.EndpointRecovered, "EndpointRecovered", "Another endpoint of the app works again.", reflect.TypeFor[WebhookEndpoint]()},
	{webhook.Test, "WebhookTest", "Sent on request.", reflect.TypeFor[WebhookEndpoint]()},
}

// anyWebhook names the schema of the body of any webhook.
const anyWebhook = "Webhook"

// documentWebhooks adds the schema of each webhook's body and one of them all, and returns the entries of the document.
func documentWebhooks(r huma.Registry) map[string]*huma.PathItem {
	entries := make(map[string]*huma.PathItem)
	whole := &huma.Schema{
		Description:   "The body of a webhook. More types may be added: accept and ignore those that you do not know.",
		Discriminator: &huma.Discriminator{PropertyName: "type", Mapping: make(map[string]string)},
	}
	for _, w := range documentedWebhooks {
		name := w.name + "Event"
		ref := schemaPrefix + name
		r.Map()[name] = &huma.Schema{
			Type: huma.TypeObject, Description: w.summary, Required: []string{"type", "timestamp", "data"},
			Properties: map[string]*huma.Schema{
				"type":      {Type: huma.TypeString, Enum: []any{w.eventType}, Description: "The type of the event."},
				"timestamp": {Type: huma.TypeString, Format: "date-time", Description: "When it happened."},
				"data":      {Ref: r.Schema(w.data, true, "").Ref, Description: "What it happened to."},
			},
		}
		whole.OneOf = append(whole.OneOf, &huma.Schema{Ref: ref})
		whole.Discriminator.Mapping[w.eventType] = ref
		entries[w.eventType] = webhookEntry(w.eventType, w.summary, ref)
	}
	r.Map()[anyWebhook] = whole
	return entries
}

func webhookEntry(eventType, summary, ref string) *huma.PathItem {
	header := func(name, doc string) *huma.Param {
		return &huma.Param{Name: name, In: "header", Required: true, Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	return &huma.PathItem{Post: &huma.Operation{
		OperationID: eventType, Summary: summary, Tags: []string{"webhooks"},
		Description: "Signed as the Standard Webhooks specification says. Delivered at least once: deduplicate by webhook-id.",
		Parameters: []*huma.Param{
			header(webhook.HeaderID, "The id of the event. It is the same for every attempt and every resend."),
			header(webhook.HeaderTimestamp, "The time of this attempt in Unix seconds."),
			header(webhook.HeaderSignature,
				"Signatures of {id}.{timestamp}.{body}, separated by spaces: v1,<base64 HMAC-SHA256> for each active secret, "+
					"and v1a,<base64 ed25519>."),
		},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Ref: ref}}}},
		Responses: map[string]*huma.Response{"2XX": {
			Description: "Accepted. Any other status, including redirects, is a failure and is retried; 410 disables the endpoint.",
		}},
	}}
}
