package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// Bounds of a registration.
const (
	maxTaskID       = 256
	maxMetadataKey  = 128
	maxMetadataText = 2048
	maxExpiresIn    = 90 * 24 * time.Hour
)

// NewTask is a registration.
type NewTask struct {
	TaskID         string            `json:"task_id" minLength:"1" maxLength:"256" example:"4b2d85ea-8b61-4689-96c3-75d907140242_84f9d9b4b6e5940b67e67e2d17ef1f97" doc:"memories.ai's task id: 1 to 256 printable characters."`
	UniqueID       string            `json:"unique_id,omitempty" maxLength:"256" default:"default" doc:"The unique_id that the upload was made with."`
	CallbackURL    string            `json:"callback_url" example:"https://customer.example/hooks" doc:"Where the webhooks go: absolute, at most 2,048 characters, without user name and fragment."`
	Metadata       map[string]string `json:"metadata,omitempty" maxProperties:"50" doc:"Given back in every event."`
	ExpectedVideos *int              `json:"expected_videos,omitempty" minimum:"1" maximum:"10000" doc:"Ready when the list holds so many; unset: when it is first not empty."`
	Until          string            `json:"until,omitempty" enum:"downloaded,indexed" default:"downloaded" doc:"How far the task is followed."`
	ExpiresIn      string            `json:"expires_in,omitempty" example:"24h" doc:"When the task expires, as a duration such as 90m or 24h; at least 1s, at most 2160h."`
}

// Task is a task as apps see it.
type Task struct {
	ID             uuid.UUID         `json:"id" doc:"memhook's id of the task."`
	TaskID         string            `json:"task_id" doc:"memories.ai's."`
	UniqueID       string            `json:"unique_id"`
	Status         string            `json:"status" enum:"waiting,ready,failed,expired,cancelled"`
	VideoIDs       []string          `json:"video_ids" nullable:"false" doc:"In the order in which they were first seen."`
	Videos         []Video           `json:"videos" nullable:"false"`
	Metadata       map[string]string `json:"metadata"`
	Subscriptions  []Subscription    `json:"subscriptions" nullable:"false"`
	Polls          int               `json:"polls" doc:"How often memories.ai was asked."`
	LastPolledAt   *time.Time        `json:"last_polled_at"`
	NextPollAt     *time.Time        `json:"next_poll_at" doc:"An estimate; null when the task is polled no more."`
	LastError      *TaskError        `json:"last_error" doc:"What the last poll that failed was told."`
	CreatedAt      time.Time         `json:"created_at"`
	ReadyAt        *time.Time        `json:"ready_at"`
	ExpiresAt      time.Time         `json:"expires_at"`
	Until          string            `json:"until" enum:"downloaded,indexed"`
	ExpectedVideos *int              `json:"expected_videos"`
}

// TransformSchema says that last_error can be null, which a reference alone cannot.
func (Task) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	p := s.Properties["last_error"]
	s.Properties["last_error"] = &huma.Schema{AnyOf: []*huma.Schema{{Ref: p.Ref}, {Type: "null"}}, Description: "What the last poll that failed was told."}
	return s
}

// Video is one video of a task.
type Video struct {
	VideoID string  `json:"video_id"`
	Status  *string `json:"status" example:"PARSE" doc:"UNPARSE, PARSE or FAILED; null where memories.ai tells none."`
}

// TaskError is what memories.ai said, or why it said nothing.
type TaskError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Subscription is a callback URL that hears of a task.
type Subscription struct {
	ID          uuid.UUID `json:"id"`
	EndpointID  uuid.UUID `json:"endpoint_id"`
	CallbackURL string    `json:"callback_url"`
}

type (
	createTaskInput  struct{ Body NewTask }
	createTaskOutput struct {
		Status int
		Body   Task
	}
	taskOutput struct{ Body Task }
	// TasksFilter are the query parameters of lists of tasks.
	TasksFilter struct {
		PageInput
		Status   string `query:"status" enum:"waiting,ready,failed,expired,cancelled"`
		TaskID   string `query:"task_id" doc:"memories.ai's."`
		UniqueID string `query:"unique_id"`
	}
)

func (s *server) taskOperations(api huma.API) {
	tag := func(o *huma.Operation) { o.Tags = []string{"tasks"} }
	huma.Post(api, "/tasks", s.createTask, tag, func(o *huma.Operation) {
		o.OperationID, o.Summary, o.DefaultStatus, o.MaxBodyBytes = "create-task", "Register a task", http.StatusCreated, maxBody+1
		o.Description = "Registers a task of memories.ai and a callback URL that is to hear of it. The same registration again answers 200; another callback URL for a known task is a second subscription (201), and what the task already has, such as its metadata, stays. If something has happened to the task already, the new subscriber gets its events at once. A task that failed, expired or was cancelled starts anew."
		o.Responses = map[string]*huma.Response{"200": {Description: "It was registered already.", Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Ref: "#/components/schemas/Task"}}}}}
		o.Errors = []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity}
	})
	huma.Post(api, "/tasks/batch", s.createTasks, tag, batchOperation)
	huma.Get(api, "/tasks", s.listTasks, tag, describe("list-tasks", "List tasks", "Newest first."))
	huma.Get(api, "/tasks/{id}", s.getTask, tag, describe("get-task", "Read a task", "", http.StatusNotFound))
	huma.Delete(api, "/tasks/{id}", s.cancelTask, tag, describe("cancel-task", "Cancel a task", "Stops polling it. A task that is finished is 409.", http.StatusNotFound, http.StatusConflict))
}

// describe fills what every operation has.
func describe(id, summary, description string, errors ...int) func(*huma.Operation) {
	return func(o *huma.Operation) {
		o.OperationID, o.Summary, o.Description, o.Errors = id, summary, description, errors
		o.MaxBodyBytes = maxBody + 1
	}
}

func (s *server) createTask(ctx context.Context, in *createTaskInput) (*createTaskOutput, error) {
	n, err := s.newTask(ctx, identityOf(ctx), in.Body)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	reg, err := s.store.RegisterTask(ctx, n)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return &createTaskOutput{Status: registeredStatus(reg), Body: wireTask(reg.Task)}, nil
}

// registeredStatus is 201 where the subscription is new, 200 where it was there already.
func registeredStatus(reg store.Registered) int {
	if reg.Created {
		return http.StatusCreated
	}
	return http.StatusOK
}

// newTask checks a registration beyond what its schema says.
func (s *server) newTask(ctx context.Context, who store.Identity, in NewTask) (store.Registration, error) {
	in.UniqueID, in.Until = cmp.Or(in.UniqueID, "default"), cmp.Or(in.Until, store.UntilDownloaded)
	var wrong []FieldError
	bad := func(field, format string, args ...any) {
		wrong = append(wrong, FieldError{field, fmt.Sprintf(format, args...)})
	}
	if !printable(in.TaskID) || utf8.RuneCountInString(in.TaskID) > maxTaskID || in.TaskID == "" {
		bad("task_id", "must be 1 to %d printable characters", maxTaskID)
	}
	if !printable(in.UniqueID) {
		bad("unique_id", "must be printable characters")
	}
	target, err := s.cfg.Guard.Target(in.CallbackURL)
	if err != nil {
		bad("callback_url", "%s", err)
	}
	for k, v := range in.Metadata {
		if k == "" || len(k) > maxMetadataKey || len(v) > maxMetadataText || strings.ContainsRune(k+v, 0) {
			bad("metadata."+k, "must have a key of 1 to %d and a value of at most %d bytes, without NUL", maxMetadataKey, maxMetadataText)
		}
	}
	expires := s.cfg.ExpiresIn
	if in.ExpiresIn != "" {
		d, err := time.ParseDuration(in.ExpiresIn)
		if err != nil || d < time.Second || d > maxExpiresIn {
			bad("expires_in", "must be a duration from 1s to %s, such as 24h", "2160h")
		}
		expires = d
	}
	if wrong != nil {
		return store.Registration{}, invalid(wrong...)
	}
	return store.Registration{
		AppID: who.AppID, AccountID: who.AccountID, UpstreamID: in.TaskID, UniqueID: in.UniqueID, CallbackURL: target.String(),
		Metadata: in.Metadata, Until: in.Until, ExpectedVideos: in.ExpectedVideos, ExpiresAt: time.Now().Add(expires).Truncate(time.Microsecond),
		Traceparent: traceparent(ctx),
	}, nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func (s *server) listTasks(ctx context.Context, in *TasksFilter) (*listOutput[Task], error) {
	return s.tasksOf(ctx, scopeOf(ctx), in)
}

func (s *server) tasksOf(ctx context.Context, scope store.Scope, in *TasksFilter) (*listOutput[Task], error) {
	page, err := in.page()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	f := store.TaskFilter{Scope: scope, Status: in.Status, UpstreamID: in.TaskID, UniqueID: in.UniqueID}
	tasks, err := s.store.Tasks(ctx, f, page)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return listOf(tasks, page.Limit, func(t *store.Task) uuid.UUID { return t.ID }, wireTask), nil
}

func (s *server) getTask(ctx context.Context, in *IDInput) (*taskOutput, error) {
	return s.taskOf(ctx, scopeOf(ctx), in)
}

func (s *server) taskOf(ctx context.Context, scope store.Scope, in *IDInput) (*taskOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	t, err := s.store.Task(ctx, scope, id)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return &taskOutput{wireTask(t)}, nil
}

func (s *server) cancelTask(ctx context.Context, in *IDInput) (*struct{}, error) {
	id, err := in.id()
	if err == nil {
		err = s.store.CancelTask(ctx, scopeOf(ctx), id)
	}
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return nil, nil
}

func wireTask(t *store.Task) Task {
	out := Task{
		ID: t.ID, TaskID: t.UpstreamID, UniqueID: t.UniqueID, Status: t.Status, VideoIDs: make([]string, len(t.Videos)), Videos: make([]Video, len(t.Videos)),
		Metadata: t.Metadata, Subscriptions: make([]Subscription, len(t.Subscriptions)), Polls: t.Polls, LastPolledAt: utc(t.LastPolledAt),
		CreatedAt: t.CreatedAt.UTC(), ReadyAt: utc(t.ReadyAt), ExpiresAt: t.ExpiresAt.UTC(), Until: t.Until, ExpectedVideos: t.ExpectedVideos,
	}
	if out.Metadata == nil {
		out.Metadata = map[string]string{}
	}
	for i, v := range t.Videos {
		out.VideoIDs[i], out.Videos[i] = v.ID, Video{v.ID, v.Status}
	}
	for i, sub := range t.Subscriptions {
		out.Subscriptions[i] = Subscription{sub.ID, sub.EndpointID, sub.URL}
	}
	if t.Polling {
		out.NextPollAt = utc(t.NextPollAt)
	}
	if t.LastError != nil {
		out.LastError = &TaskError{t.LastError.Code, t.LastError.Message}
	}
	return out
}
