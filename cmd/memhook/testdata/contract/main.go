// Command contract drives every operation of a running memhook through the client that oapi-codegen makes
// of the served document, and checks every answer, errors included, against that document. The test builds
// it with the generated client beside it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// checker sends requests, checks the answers and remembers which operations were driven.
type checker struct {
	validator validator.Validator
	routes    map[string]string // "GET /v1/tasks/{id}" → operation
	driven    map[string]bool
	wrong     []string
}

func (c *checker) RoundTrip(r *http.Request) (*http.Response, error) {
	var sent []byte
	if r.Body != nil {
		sent, _ = io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(sent))
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return resp, err
	}
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp, err
	}
	operation := c.operation(r)
	c.driven[operation] = true
	again := func() io.ReadCloser { return io.NopCloser(bytes.NewReader(got)) }
	resp.Body, r.Body = again(), io.NopCloser(bytes.NewReader(sent))
	if ok, errs := c.validator.ValidateHttpResponse(r, resp); !ok {
		for _, e := range errs {
			c.wrong = append(c.wrong, fmt.Sprintf("%s answered %d: %s: %s: %v\n  %s", operation, resp.StatusCode, e.Message, e.Reason, e.SchemaValidationErrors, got))
		}
	}
	if strings.Contains(string(got), `"$schema"`) {
		c.wrong = append(c.wrong, operation+": the answer has a $schema")
	}
	if resp.StatusCode >= 400 && resp.Header.Get("Content-Type") != "application/problem+json" {
		c.wrong = append(c.wrong, fmt.Sprintf("%s answered %d as %s", operation, resp.StatusCode, resp.Header.Get("Content-Type")))
	}
	if resp.StatusCode >= 500 {
		c.wrong = append(c.wrong, fmt.Sprintf("%s answered %d: %s", operation, resp.StatusCode, got))
	}
	resp.Body = again()
	return resp, nil
}

func (c *checker) operation(r *http.Request) string {
	best := ""
	for route, operation := range c.routes {
		method, path, _ := strings.Cut(route, " ")
		if method == r.Method && matches(path, r.URL.Path) && (best == "" || !strings.Contains(path, "{")) {
			best = operation
		}
	}
	return best
}

func matches(pattern, path string) bool {
	a, b := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] && !strings.HasPrefix(a[i], "{") {
			return false
		}
	}
	return true
}

func newChecker(raw []byte) (*checker, error) {
	doc, err := libopenapi.NewDocument(raw)
	if err != nil {
		return nil, err
	}
	v, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if ok, errs := v.ValidateDocument(); !ok {
		return nil, fmt.Errorf("the document is not valid: %v", errs)
	}
	c := &checker{validator: v, routes: make(map[string]string), driven: make(map[string]bool)}
	var parsed struct {
		Paths map[string]map[string]struct{ OperationID string }
	}
	if err := json.Unmarshal(raw, &parsed); err != nil {
		return nil, err
	}
	for path, methods := range parsed.Paths {
		for method, op := range methods {
			c.routes[strings.ToUpper(method)+" "+path] = op.OperationID
		}
	}
	return c, nil
}

func run(ctx context.Context) error {
	base, callback := os.Getenv("BASE"), os.Getenv("CALLBACK")
	raw, err := os.ReadFile(os.Getenv("DOCUMENT"))
	if err != nil {
		return err
	}
	c, err := newChecker(raw)
	if err != nil {
		return err
	}
	with := func(token string) (*Client, error) {
		return NewClient(base, WithHTTPClient(&http.Client{Transport: c}), WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			return nil
		}))
	}
	app, err := with(os.Getenv("API_KEY"))
	if err != nil {
		return err
	}
	admin, err := with(os.Getenv("ADMIN_TOKEN"))
	if err != nil {
		return err
	}
	nobody, err := with("")
	if err != nil {
		return err
	}
	d := &driver{ctx: ctx, app: app, admin: admin, nobody: nobody, callback: callback}
	d.customers()
	d.operators()
	d.refusals()

	var missing []string
	for _, operation := range c.routes {
		if !c.driven[operation] {
			missing = append(missing, operation)
		}
	}
	sort.Strings(missing)
	if len(missing) > 0 {
		d.wrongf("not driven: %s", strings.Join(missing, ", "))
	}
	if wrong := append(c.wrong, d.wrong...); len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "\n"))
	}
	fmt.Printf("%d operations driven\n", len(c.routes))
	return nil
}

type driver struct {
	ctx                context.Context
	app, admin, nobody *Client
	callback           string
	wrong              []string
}

func (d *driver) wrongf(format string, args ...any) {
	d.wrong = append(d.wrong, fmt.Sprintf(format, args...))
}

// want reads an answer of which the status must be as wanted.
func (d *driver) want(status int, what string) func(*http.Response, error) map[string]any {
	return func(resp *http.Response, err error) map[string]any {
		if err != nil {
			d.wrongf("%s: %v", what, err)
			return map[string]any{}
		}
		defer func() { _ = resp.Body.Close() }()
		got, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != status {
			d.wrongf("%s: %d, want %d: %s", what, resp.StatusCode, status, got)
		}
		out := make(map[string]any)
		_ = json.Unmarshal(got, &out)
		return out
	}
}

func text(m map[string]any, name string) string {
	s, _ := m[name].(string)
	return s
}

func first(m map[string]any) map[string]any {
	list, _ := m["data"].([]any)
	if len(list) == 0 {
		return map[string]any{}
	}
	entry, _ := list[0].(map[string]any)
	return entry
}

func ptr[T any](v T) *T { return &v }

// customers does what an app does.
func (d *driver) customers() {
	ctx, app := d.ctx, d.app
	key := "contract-1"
	metadata := map[string]string{"order": "42"}
	body := NewTask{TaskId: "contract-task", CallbackUrl: d.callback, Metadata: &metadata}
	task := d.want(201, "register")(app.CreateTask(ctx, &CreateTaskParams{IdempotencyKey: &key}, body))
	d.want(201, "register with the same key")(app.CreateTask(ctx, &CreateTaskParams{IdempotencyKey: &key}, body))
	body.TaskId = "another"
	d.want(422, "register another with the same key")(app.CreateTask(ctx, &CreateTaskParams{IdempotencyKey: &key}, body))
	d.want(200, "register a batch")(app.CreateTasksWithBody(ctx, nil, "application/json", strings.NewReader(
		`{"tasks":[{"task_id":"contract-task","callback_url":"`+d.callback+`"},{"task_id":"contract-2","callback_url":"`+d.callback+`"},{"task_id":7},{"task_id":"x","callback_url":"ftp://x"}]}`)))
	id := text(task, "id")
	d.want(200, "list tasks")(app.ListTasks(ctx, &ListTasksParams{Status: ptr(ListTasksParamsStatus("waiting")), Limit: ptr(int64(10))}))
	d.want(200, "read a task")(app.GetTask(ctx, id))

	d.uploads()
	ready := d.until("an event", func() map[string]any {
		return d.want(200, "a task's events")(d.taskEvents(id))
	})
	d.want(200, "read an event")(app.GetEvent(ctx, text(first(ready), "id")))
	d.want(200, "the feed")(app.ListEvents(ctx, &ListEventsParams{Limit: ptr(int64(5))}))
	deliveries := d.until("a delivery", func() map[string]any {
		return d.want(200, "list deliveries")(app.ListDeliveries(ctx, &ListDeliveriesParams{Task: &id}))
	})
	delivery := text(first(deliveries), "id")
	d.want(202, "resend")(app.ResendDelivery(ctx, delivery, nil))
	d.until("an attempt", func() map[string]any {
		got := d.want(200, "read a delivery")(app.GetDelivery(ctx, delivery))
		return map[string]any{"data": got["attempts"]}
	})

	d.findAndResend()
	headers := map[string]string{"X-Gateway": "open"}
	endpoint := d.want(201, "create an endpoint")(app.CreateEndpoint(ctx, nil, NewEndpoint{Url: d.callback + "/second", Headers: &headers}))
	ep := text(endpoint, "id")
	d.want(409, "create it again")(app.CreateEndpoint(ctx, nil, NewEndpoint{Url: d.callback + "/second"}))
	d.want(200, "list endpoints")(app.ListEndpoints(ctx, nil))
	d.want(200, "read an endpoint")(app.GetEndpoint(ctx, ep))
	d.want(200, "change an endpoint")(app.UpdateEndpoint(ctx, ep, EndpointPatch{Description: ptr("second"), RateLimit: ptr(50.0)}))
	d.want(200, "its secret")(app.GetEndpointSecret(ctx, ep))
	d.want(200, "rotate it")(app.RotateEndpointSecret(ctx, ep, nil, RotateEndpointSecretJSONRequestBody{Overlap: ptr("1h")}))
	d.want(200, "rotate it without a word")(app.RotateEndpointSecretWithBody(ctx, ep, nil, "application/json", http.NoBody))
	d.portal(ep)
	tested := d.want(202, "test it")(app.TestEndpoint(ctx, ep, nil))
	if _, there := tested["attempts"].([]any); !there {
		d.wrongf("a delivery without attempts has no list of them: %v", tested)
	}
	d.want(200, "enable it")(app.EnableEndpoint(ctx, ep, nil))
	d.want(202, "recover it")(app.RecoverEndpoint(ctx, ep, nil, RecoverEndpointJSONRequestBody{Since: time.Now().Add(-time.Hour)}))
	d.publicKey(ep)
	hint := d.want(200, "the hint URL")(app.ReadHintUrl(ctx))
	url := text(hint, "url")
	d.want(204, "a hint")(d.nobody.HintWithBody(ctx, url[strings.LastIndex(url, "/")+1:], "application/json", strings.NewReader(`{"taskId":"contract-task"}`)))
	d.want(204, "delete an endpoint")(app.DeleteEndpoint(ctx, ep))
	never := d.want(201, "register")(app.CreateTask(ctx, nil, NewTask{TaskId: "never", CallbackUrl: d.callback}))
	d.want(204, "cancel")(d.cancel(text(never, "id")))
	d.want(409, "cancel again")(d.cancel(text(never, "id")))
}

// until repeats a call until its list is not empty.
func (d *driver) until(what string, call func() map[string]any) map[string]any {
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		got := call()
		if list, _ := got["data"].([]any); len(list) > 0 {
			return got
		}
		if time.Now().After(deadline) {
			d.wrongf("no %s came", what)
			return got
		}
	}
}

// operators does what the operator does.
func (d *driver) operators() {
	ctx, admin := d.ctx, d.admin
	account := d.want(201, "create an account")(admin.AdminCreateAccount(ctx, NewAccount{Name: "contract", ApiKey: "sk-mavi-contract"}))
	id := text(account, "id")
	d.want(409, "create it again")(admin.AdminCreateAccount(ctx, NewAccount{Name: "contract", ApiKey: "sk-mavi-contract"}))
	d.want(200, "list accounts")(admin.AdminListAccounts(ctx, nil))
	d.want(200, "change an account")(admin.AdminUpdateAccount(ctx, id, AccountPatch{RequestsPerSecond: ptr(2.5)}))
	made := d.want(201, "create an app")(admin.AdminCreateApp(ctx, NewApp{Name: "contract", AccountId: id}))
	app := text(made, "id")
	d.want(200, "list apps")(admin.AdminListApps(ctx, nil))
	d.want(200, "change an app")(admin.AdminUpdateApp(ctx, app, AppPatch{Name: ptr("renamed")}))
	key := d.want(201, "make a key")(admin.AdminCreateKey(ctx, app, NewKey{Name: ptr("laptop"), RateLimit: ptr(1.0)}))
	d.want(201, "make a key without a word")(admin.AdminCreateKeyWithBody(ctx, app, "application/json", http.NoBody))
	d.want(200, "list keys")(admin.AdminListKeys(ctx, app, nil))
	limited, err := NewClient(d.app.Server, WithHTTPClient(d.app.Client), WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+text(key, "key"))
		return nil
	}))
	if err != nil {
		d.wrongf("%v", err)
		return
	}
	d.want(200, "the first within the limit")(limited.ListTasks(ctx, nil))
	d.want(429, "the second beyond it")(limited.ListTasks(ctx, nil))
	d.want(204, "revoke a key")(admin.AdminRevokeKey(ctx, app, text(key, "id")))

	tasks := d.want(200, "list tasks")(admin.AdminListTasks(ctx, &AdminListTasksParams{TaskId: ptr("contract-task")}))
	task := text(first(tasks), "id")
	d.want(200, "read a task")(admin.AdminGetTask(ctx, task))
	d.want(202, "poll a task")(admin.AdminPollTask(ctx, task))
	deliveries := d.want(200, "list deliveries")(admin.AdminListDeliveries(ctx, &AdminListDeliveriesParams{Task: &task}))
	delivery := text(first(deliveries), "id")
	d.want(200, "read a delivery")(admin.AdminGetDelivery(ctx, delivery))
	d.want(202, "resend")(admin.AdminResendDelivery(ctx, delivery))
	endpoints := d.want(200, "list endpoints")(admin.AdminListEndpoints(ctx, nil))
	ep := text(first(endpoints), "id")
	d.want(200, "read an endpoint")(admin.AdminGetEndpoint(ctx, ep))
	d.want(200, "disable it")(admin.AdminDisableEndpoint(ctx, ep))
	d.want(200, "enable it")(admin.AdminEnableEndpoint(ctx, ep))
	d.want(202, "recover it")(admin.AdminRecoverEndpoint(ctx, ep, AdminRecoverEndpointJSONRequestBody{Since: time.Now().Add(-time.Hour)}))
	d.want(200, "the feed")(admin.AdminListEvents(ctx, nil))
	d.findAndResendAsOperator()
	d.want(204, "pause polling")(admin.AdminPausePolling(ctx))
	d.want(204, "resume polling")(admin.AdminResumePolling(ctx))
	d.want(204, "pause deliveries")(admin.AdminPauseDeliveries(ctx))
	d.want(204, "resume deliveries")(admin.AdminResumeDeliveries(ctx))
	d.want(200, "stats")(admin.AdminStats(ctx))
	d.want(409, "delete an account that is used")(admin.AdminDeleteAccount(ctx, id))
	d.want(204, "delete an app")(admin.AdminDeleteApp(ctx, app))
	d.want(204, "delete an account")(admin.AdminDeleteAccount(ctx, id))
}

// refusals makes mistakes.
func (d *driver) refusals() {
	ctx := d.ctx
	const nothing = "01993c1e-6f3a-7cc0-9d4e-0a4ab7f3c1d2"
	d.want(401, "no key")(d.nobody.ListTasks(ctx, nil))
	d.want(401, "an app at the admin API")(d.app.AdminStats(ctx))
	d.want(404, "an unknown task")(d.app.GetTask(ctx, nothing))
	d.want(404, "no id at all")(d.app.GetTask(ctx, "nothing"))
	d.want(404, "an unknown endpoint")(d.app.GetEndpoint(ctx, nothing))
	d.want(404, "an unknown delivery")(d.app.ResendDelivery(ctx, nothing, nil))
	d.want(404, "an unknown event")(d.app.GetEvent(ctx, "evt_"+nothing))
	d.want(404, "no hint URL")(d.nobody.HintWithBody(ctx, "short", "application/json", strings.NewReader("{}")))
	d.want(422, "a limit out of bounds")(d.app.ListTasks(ctx, &ListTasksParams{Limit: ptr(int64(501))}))
	d.want(422, "a made-up cursor")(d.app.ListTasks(ctx, &ListTasksParams{Cursor: ptr("x")}))
	d.want(400, "broken JSON")(d.app.CreateTaskWithBody(ctx, nil, "application/json", strings.NewReader(`{"task_id":`)))
	d.want(413, "a body too large")(d.app.CreateTaskWithBody(ctx, nil, "application/json", strings.NewReader(`{"task_id":"`+strings.Repeat("x", 1<<20)+`"}`)))
	bad := d.want(422, "wrong fields")(d.app.CreateTaskWithBody(ctx, nil, "application/json", strings.NewReader(`{"task_id":7,"surprise":true}`)))
	if text(bad, "code") != "invalid-request" || bad["errors"] == nil || text(bad, "request_id") == "" {
		d.wrongf("wrong fields: %v", bad)
	}
	own := d.want(422, "a forbidden callback")(d.app.CreateTask(ctx, nil, NewTask{TaskId: "x", CallbackUrl: "https://10.0.0.1/"}))
	if text(own, "code") != "invalid-request" || own["errors"] == nil {
		d.wrongf("a forbidden callback: %v", own)
	}
}
