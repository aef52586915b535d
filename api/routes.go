package api

import (
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/memhook/memhook/store"
)

// route is one operation of the API. statuses are the status of success and the problems that it has beside those that
// every operation has.
type route struct {
	method, path string
	handler      handler
	id, summary  string
	statuses     []int
}

const get, post, patch, del = http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete

// appRoutes are the operations under /v1, by tag.
func (s *server) appRoutes() map[string][]route {
	return map[string][]route{
		"tasks": {
			{post, "/tasks", do(s.createTask), "create-task", "Register a task", []int{201, 400, 413}},
			{post, "/tasks/batch", do(s.createTasks), "create-tasks", "Register up to 1,000 tasks", []int{200, 400, 413}},
			{get, "/tasks", do(s.listTasks), "list-tasks", "List tasks", []int{200}},
			{get, "/tasks/{id}", do(s.getTask), "get-task", "Get a task", []int{200, 404}},
			{del, "/tasks/{id}", do(s.cancelTask), "cancel-task", "Cancel a task", []int{204, 404, 409}},
			{get, "/hint-url", do(s.hintURL), "read-hint-url", "Get the hint URL for memories.ai", []int{200, 409}},
		},
		"uploads": {
			{post, "/uploads", do(s.createUpload), "create-upload", "Submit videos and follow their task", []int{202, 400, 413}},
			{get, "/uploads", do(s.listUploads), "list-uploads", "List uploads", []int{200}},
			{get, "/uploads/{id}", do(s.getUpload), "get-upload", "Get an upload", []int{200, 404}},
		},
		"events": {
			{get, "/tasks/{id}/events", do(s.listTaskEvents), "list-task-events", "List the events of a task", []int{200, 404}},
			{get, "/events", do(s.listEvents), "list-events", "List events (the feed)", []int{200}},
			{get, "/events/{id}", do(s.getEvent), "get-event", "Get an event", []int{200, 404}},
		},
		"endpoints": {
			{post, "/endpoints", do(s.createEndpoint), "create-endpoint", "Create an endpoint", []int{201, 409}},
			{get, "/endpoints", do(s.listEndpoints), "list-endpoints", "List endpoints", []int{200}},
			{get, "/endpoints/{id}", do(s.getEndpoint), "get-endpoint", "Get an endpoint", []int{200, 404}},
			{patch, "/endpoints/{id}", do(s.patchEndpoint), "update-endpoint", "Update an endpoint", []int{200, 404, 409}},
			{del, "/endpoints/{id}", do(s.deleteEndpoint), "delete-endpoint", "Delete an endpoint", []int{204, 404}},
			{get, "/endpoints/{id}/secret", do(s.endpointSecret), "get-endpoint-secret", "Get the signing secret of an endpoint", []int{200, 404}},
			{post, "/endpoints/{id}/secret/rotate", do(s.rotateSecret), "rotate-endpoint-secret", "Rotate the signing secret", []int{200, 404}},
			{post, "/endpoints/{id}/test", do(s.testEndpoint), "test-endpoint", "Send webhook.test now", []int{202, 404, 409}},
			{post, "/endpoints/{id}/enable", do(s.enableEndpoint), "enable-endpoint", "Enable an endpoint", []int{200, 404}},
			{post, "/endpoints/{id}/recover", do(s.recoverEndpoint), "recover-endpoint", "Resend failed deliveries", []int{202, 404}},
			{
				post, "/endpoints/{id}/portal", do(s.createPortal), "create-endpoint-portal", "Create a link to the portal of an endpoint",
				[]int{200, 404},
			},
			{
				get, "/endpoints/{id}/public-key", do(s.publicKey), "get-endpoint-public-key", "Get the public key of an endpoint",
				[]int{200, 404, 409},
			},
		},
		"deliveries": {
			{get, "/deliveries", do(s.listDeliveries), "list-deliveries", "List deliveries", []int{200}},
			{get, "/deliveries/{id}", do(s.getDelivery), "get-delivery", "Get a delivery with its attempts", []int{200, 404}},
			{post, "/deliveries/{id}/resend", do(s.resend), "resend-delivery", "Resend a delivery", []int{202, 404, 409}},
			{post, "/deliveries/resend", do(s.startResend), "resend-deliveries", "Resend all deliveries that match", []int{202, 404}},
			{get, "/resends/{id}", do(s.getResend), "get-resend", "Get the progress of a bulk resend", []int{200, 404}},
		},
		"search": {
			{get, "/search", do(s.search), "search", "Find tasks, deliveries, endpoints and uploads", []int{200}},
		},
	}
}

// adminRoutes are the operations under /admin/v1. What apps have too is the same handler with the operator's scope.
func (s *server) adminRoutes() []route {
	list := []route{
		{post, "/accounts", operator(s.createAccount), "admin-create-account", "Create an account", []int{201, 409}},
		{get, "/accounts", operator(s.listAccounts), "admin-list-accounts", "List accounts", []int{200}},
		{patch, "/accounts/{id}", operator(s.patchAccount), "admin-update-account", "Update an account", []int{200, 404, 409}},
		{del, "/accounts/{id}", operator(s.deleteAccount), "admin-delete-account", "Delete an account", []int{204, 404, 409}},
		{post, "/apps", operator(s.createApp), "admin-create-app", "Create an app", []int{201, 404, 409}},
		{get, "/apps", operator(s.listApps), "admin-list-apps", "List apps", []int{200}},
		{patch, "/apps/{id}", operator(s.patchApp), "admin-update-app", "Update an app", []int{200, 404, 409}},
		{del, "/apps/{id}", operator(s.deleteApp), "admin-delete-app", "Delete an app", []int{204, 404}},
		{post, "/apps/{id}/keys", operator(s.createKey), "admin-create-key", "Create an API key", []int{201, 404}},
		{get, "/apps/{id}/keys", operator(s.listKeys), "admin-list-keys", "List the API keys of an app", []int{200, 404}},
		{del, "/apps/{id}/keys/{key_id}", operator(s.revokeKey), "admin-revoke-key", "Revoke an API key", []int{204, 404}},
		{get, "/tasks", filterByApp(do(s.listTasks)), "admin-list-tasks", "List the tasks of all apps", []int{200}},
		{get, "/tasks/{id}", do(s.getTask), "admin-get-task", "Get a task of any app", []int{200, 404}},
		{post, "/tasks/{id}/poll", do(s.pollTask), "admin-poll-task", "Poll a task at the next slot", []int{202, 404, 409}},
		{get, "/uploads", filterByApp(do(s.listUploads)), "admin-list-uploads", "List the uploads of all apps", []int{200}},
		{get, "/uploads/{id}", do(s.getUpload), "admin-get-upload", "Get an upload of any app", []int{200, 404}},
		{get, "/events", filterByApp(do(s.listEvents)), "admin-list-events", "List the events of all apps (the feed)", []int{200}},
		{get, "/endpoints", filterByApp(do(s.listEndpoints)), "admin-list-endpoints", "List the endpoints of all apps", []int{200}},
		{get, "/endpoints/{id}", do(s.getEndpoint), "admin-get-endpoint", "Get an endpoint of any app", []int{200, 404}},
		{post, "/endpoints/{id}/enable", do(s.enableEndpoint), "admin-enable-endpoint", "Enable an endpoint", []int{200, 404}},
		{post, "/endpoints/{id}/disable", do(s.disableEndpoint), "admin-disable-endpoint", "Disable an endpoint", []int{200, 404}},
		{post, "/endpoints/{id}/recover", do(s.recoverEndpoint), "admin-recover-endpoint", "Resend failed deliveries", []int{202, 404}},
		{get, "/deliveries", filterByApp(do(s.listDeliveries)), "admin-list-deliveries", "List the deliveries of all apps", []int{200}},
		{get, "/deliveries/{id}", do(s.getDelivery), "admin-get-delivery", "Get a delivery of any app with its attempts", []int{200, 404}},
		{post, "/deliveries/{id}/resend", do(s.resend), "admin-resend-delivery", "Resend a delivery", []int{202, 404, 409}},
		{
			post, "/deliveries/resend", filterByApp(do(s.startResend)), "admin-resend-deliveries", "Resend all deliveries that match",
			[]int{202, 404},
		},
		{get, "/resends/{id}", do(s.getResend), "admin-get-resend", "Get the progress of a bulk resend", []int{200, 404}},
		{get, "/search", filterByApp(do(s.search)), "admin-search", "Find tasks, deliveries, endpoints and uploads of all apps", []int{200}},
		{get, "/audit", filterByApp(do(s.listAudit)), "admin-list-audit", "List who changed what", []int{200}},
		{get, "/stats", operator(s.stats), "admin-stats", "Get the state of the whole service", []int{200}},
	}
	for what, queues := range store.Pausable {
		list = append(list,
			route{post, "/" + what + "/pause", operator(s.setPaused(queues, true)), "admin-pause-" + what, "Pause " + what, []int{204}},
			route{post, "/" + what + "/resume", operator(s.setPaused(queues, false)), "admin-resume-" + what, "Resume " + what, []int{204}})
	}
	return list
}

// descriptions are the descriptions of operations in the document, by id.
var descriptions = map[string]string{
	"create-task": "Registers a task of memories.ai and a callback URL that receives its events. Repeating a registration answers 200. " +
		"Registering a known task with another callback URL adds a subscription (201); what the task already has, such as its metadata, " +
		"does not change. A new subscriber receives at once the events that the task has already had. Registering a task that failed, " +
		"expired or was cancelled starts it anew.",
	"create-tasks": "Registers each task as create-task does, in one transaction. Results are in the order of registrations.",
	"create-upload": "Submits videos to memories.ai within the account's budget of submissions, and registers the task that comes of " +
		"it, as create-task does. Answers at once; get the upload to see what became of it. If memories.ai refuses the submission, the " +
		"callback URL receives upload.failed; if its answer is lost, upload.unknown. With the Datalake a submission whose answer is lost " +
		"is repeated safely; with v1 it is never repeated.",
	"list-uploads": "Newest first. memories.ai cannot be asked whether it accepted an upload that is unknown. Check there " +
		"whether the video has arrived: if so, register its task with create-task; if not, create another upload.",
	"list-tasks": "Newest first.",
	"cancel-task": "Stops polling the task. A task that has ended already answers 409. With purge=true the task is deleted, " +
		"whatever its status, with all that is stored of it; what is in flight may still be delivered. The answer to a request with an " +
		"Idempotency-Key is kept, encrypted, for the 24 hours of the key, and is given again to its repetition.",
	"read-hint-url":       "Requires the setting MEMHOOK_PUBLIC_URL; without it the answer is 409.",
	"list-task-events":    "Oldest first.",
	"list-events":         feed,
	"create-endpoint":     "Registering a task with an unknown callback URL creates an endpoint too.",
	"list-endpoints":      "Newest first.",
	"delete-endpoint":     "Deletes its subscriptions too and cancels its pending deliveries.",
	"get-endpoint-secret": "The receiver verifies the v1 signatures with it.",
	"get-endpoint-public-key": "The receiver verifies the v1a signatures with it. An endpoint whose signatures do not include v1a " +
		"answers 409. The key is rotated with the secret.",
	"create-endpoint-portal": "The link opens the endpoint's own pages for your customer, without a sign-in: " +
		"its deliveries and their attempts, resend, " +
		"recover, and its secret. It shows nothing else of the app. It ends at expires_at, with the API key that made it, and with the endpoint.",
	"rotate-endpoint-secret": "During the overlap both secrets sign. The answer takes a second; by then all instances sign with the new one.",
	"test-endpoint":          "Sends it even while the breaker is open. Answers with the delivery. Get the delivery to see its attempts.",
	"enable-endpoint": "Closes its breaker and sends at once, within its cap and rate, what has waited for it, also where the endpoint " +
		"is enabled and well.",
	"recover-endpoint": "Sends again every delivery of the endpoint that has failed since a time, and at once what still waits for it.",
	"list-deliveries":  "Newest first, without their attempts.",
	"resend-deliveries": "Counts the deliveries that match and sends them again in the background, within the caps and rates of their " +
		"endpoints. With dry_run it only counts.",
	"get-resend":              "Kept for a week after it has finished.",
	"search":                  searched,
	"admin-resend-deliveries": "As resend-deliveries, across apps.",
	"admin-search":            searched,
	"admin-list-audit":        "Newest first. Kept for 400 days. Registrations of tasks are not in it.",
	"resend-delivery":         "Sends it under the same webhook-id and starts the retry schedule anew.",

	"admin-update-account": "A new API key or budget takes effect at once. The state active ends a backoff: " +
		"memories.ai is asked again at once.",
	"admin-delete-account":   "An account that apps use answers 409.",
	"admin-delete-app":       "Its keys stop working, its endpoints are deleted, and its waiting tasks and pending deliveries are cancelled.",
	"admin-create-key":       "Only this answer contains the key.",
	"admin-revoke-key":       "The key stops working within one second.",
	"admin-list-tasks":       "Newest first.",
	"admin-list-uploads":     "Newest first.",
	"admin-list-events":      feed,
	"admin-list-endpoints":   "Newest first.",
	"admin-disable-endpoint": "Its deliveries wait until it is enabled.",
	"admin-recover-endpoint": "Sends again every delivery of the endpoint that has failed since a time, and at once what still waits for it.",
	"admin-list-deliveries":  "Newest first, without their attempts.",
	"admin-pause-polling":    "Stops all polls and submissions to memories.ai, on all instances. No task and no upload is lost.",
	"admin-pause-deliveries": "Pauses deliveries on all instances. No event is lost.",
}

const searched = "A prefix of three characters will do, of an id (also of a webhook-id) one of six digits. A prefix of a metadata value " +
	"is looked for in the 10,000 newest tasks, a whole value in all. Returns at most 20 of each."

const feed = "Oldest first. To catch up by pulling, pass the id of the last event that you have as `after`; next_cursor is that id " +
	"while there are more events, and `cursor` takes it as in every list. Events are in the order in which they were stored, so that " +
	"none appears behind one that you have seen."

// operations registers everything that stands in the OpenAPI document.
func (s *server) operations(api huma.API) {
	s.registry = api.OpenAPI().Components.Schemas
	v1 := huma.NewGroup(api, "/v1")
	v1.UseMiddleware(refuseWebhooks, s.authenticated, s.limited, checkQuery, checkMedia, readBody, s.idempotent, s.audited)
	v1.UseSimpleModifier(func(op *huma.Operation) {
		op.Security = []map[string][]string{{"apiKey": {}}}
		if op.Method == post {
			op.Parameters = append(op.Parameters, &huma.Param{
				Name: headerIdempotency, In: "header", Schema: &huma.Schema{Type: huma.TypeString, MaxLength: new(maxIdempotencyKey)},
				Description: "For 24 hours, repeating the request with this key gets the same answer again. " +
					"Another request with this key answers 422 idempotency-key-reused.",
			})
		}
		documentProblems(op, http.StatusUnauthorized, http.StatusTooManyRequests)
	})
	for tag, routes := range s.appRoutes() {
		s.register(v1, tag, routes)
	}
	admin := huma.NewGroup(api, "/admin/v1")
	admin.UseMiddleware(refuseWebhooks, s.administrator, checkQuery, checkMedia, readBody, s.audited)
	admin.UseSimpleModifier(func(op *huma.Operation) {
		op.Security = []map[string][]string{{"adminToken": {}}}
		documentProblems(op, http.StatusUnauthorized)
	})
	s.register(admin, "admin", s.adminRoutes())
	documentHints(api)
	openAnswers(api.OpenAPI())
	nameFields(api.OpenAPI())
}

func (s *server) register(api huma.API, tag string, routes []route) {
	for _, r := range routes {
		op := huma.Operation{
			Method: r.method, Path: r.path, OperationID: r.id, Summary: r.summary, Description: descriptions[r.id], Tags: []string{tag},
			DefaultStatus: r.statuses[0], Errors: r.statuses[1:], MaxBodyBytes: maxBody + 1, BodyReadTimeout: -1, // see readBody
			Metadata: map[string]any{metadataFields: &fieldNames{}},
		}
		switch r.id {
		case "create-task":
			op.Responses = repeatedRegistration()
		case "create-tasks":
			op.SkipValidateBody = true // each registration is checked by itself
		}
		r.handler(s, api, op)
	}
}

// documentProblems documents the problems that any operation can answer with, beside its own.
func documentProblems(op *huma.Operation, statuses ...int) {
	for _, status := range statuses {
		op.Responses[strconv.Itoa(status)] = &huma.Response{Description: http.StatusText(status), Content: problemContent()}
	}
	op.Responses["default"] = &huma.Response{Description: "Any other problem. Its code says which.", Content: problemContent()}
}

func problemContent() map[string]*huma.MediaType {
	return map[string]*huma.MediaType{"application/problem+json": {Schema: &huma.Schema{Ref: schemaPrefix + "Problem"}}}
}
