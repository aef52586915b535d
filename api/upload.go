package api

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
)

// NewUpload is what an app wants submitted to memories.ai and followed as a task.
type NewUpload struct {
	URLs           []string          `json:"urls,omitempty" nullable:"false" maxItems:"50" doc:"With an account of v1: the URLs of 1 to 50 posts, or of a creator's page or a hashtag. Each is an http or https URL of at most 2,048 characters."`
	SourceURL      string            `json:"source_url,omitempty" doc:"With an account of the Datalake: the http or https URL of one video, at most 2,048 characters."`
	CollectionID   string            `json:"collection_id,omitempty" maxLength:"256" doc:"With an account of the Datalake: the collection to which the video is added. Printable characters."`
	CallbackURL    string            `json:"callback_url" example:"https://customer.example/hooks" doc:"The URL that receives the webhooks, as in create-task."`
	Metadata       map[string]string `json:"metadata,omitempty" maxProperties:"50" doc:"Returned in every event of the task; bounded as in create-task."`
	ExpectedVideos *int              `json:"expected_videos,omitempty" minimum:"1" maximum:"10000" doc:"As in create-task."`
	Until          string            `json:"until,omitempty" enum:"downloaded,indexed" default:"downloaded" doc:"The stage until which the task is followed."`
	ExpiresIn      string            `json:"expires_in,omitempty" example:"24h" doc:"The time from the submission until the task expires, as in create-task."`
}

// Upload is a submission to memories.ai.
type Upload struct {
	ID            uuid.UUID         `json:"id" doc:"The id of the upload."`
	Status        string            `json:"status" enum:"queued,submitted,failed,unknown" doc:"queued: to be submitted within the account's budget; submitted: memories.ai has accepted it; failed: it has not; unknown: its answer was lost, and it is not submitted again."`
	URLs          []string          `json:"urls" nullable:"false" doc:"As given; empty with an account of the Datalake."`
	SourceURL     *string           `json:"source_url" doc:"As given; null with an account of v1."`
	CollectionID  *string           `json:"collection_id" doc:"As given."`
	CallbackURL   string            `json:"callback_url" doc:"The URL that receives the webhooks, in normal form."`
	Metadata      map[string]string `json:"metadata" doc:"As given; returned in every event."`
	Task          *Task             `json:"task" doc:"The task, once the upload is submitted. In lists it has no videos; videos_omitted counts them."`
	Error         *TaskError        `json:"error" doc:"Why the upload failed or is unknown, or why the last submission of a queued one was not accepted."`
	Attempts      int               `json:"attempts" doc:"The number of submissions so far."`
	NextAttemptAt *Time             `json:"next_attempt_at" nullable:"true" doc:"It is not submitted before; null unless it is queued."`
	CreatedAt     Time              `json:"created_at" doc:"When the upload was queued."`
	FinishedAt    *Time             `json:"finished_at" nullable:"true" doc:"When it was submitted, failed, or became unknown; null while it is queued."`
}

// TransformSchema documents which references can be null.
func (Upload) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	for _, property := range []string{"task", "error"} {
		orNull(s, property, s.Properties[property].Description)
	}
	return s
}

// UploadsFilter are the query parameters of lists of uploads.
type UploadsFilter struct {
	PageInput
	Status string `query:"status" enum:"queued,submitted,failed,unknown" doc:"Return only uploads with this status."`
}

// maxUploadURL bounds the URLs of videos in characters.
const maxUploadURL = 2048

type createUploadInput struct {
	Key  string `header:"Idempotency-Key" hidden:"true"` // every POST documents it
	Body NewUpload
}

func (s *server) createUpload(ctx context.Context, in *createUploadInput) (*body[Upload], error) {
	app, err := s.store.App(ctx, callerOf(ctx).AppID)
	if err != nil {
		return nil, err
	}
	account, err := s.store.Account(ctx, app.AccountID)
	if err != nil {
		return nil, err
	}
	u, err := s.newUpload(ctx, in.Body, account.API)
	if err != nil {
		return nil, err
	}
	u.IdempotencyKey = in.Key
	if hint := s.cfg.PublicURL + "/v1/hints/" + app.HintToken; s.cfg.PublicURL != "" && len(hint) <= memories.MaxCallbackURL {
		u.Request.HintURL = hint
	}
	if u, err = s.store.CreateUpload(ctx, u); err != nil {
		return nil, err
	}
	return s.answerUpload(ctx, &u)
}

func (s *server) getUpload(ctx context.Context, in *IDInput) (*body[Upload], error) {
	u, err := s.store.Upload(ctx, scopeOf(ctx), in.id)
	if err != nil {
		return nil, err
	}
	return s.answerUpload(ctx, &u)
}

// answerUpload answers with an upload and its task, where it has one.
func (s *server) answerUpload(ctx context.Context, u *store.Upload) (out *body[Upload], err error) {
	var t *store.Task
	if u.TaskID != nil {
		if t, err = s.store.Task(ctx, scopeOf(ctx), *u.TaskID); err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
	}
	return &body[Upload]{wireUpload(u, t)}, nil
}

func (s *server) listUploads(ctx context.Context, in *UploadsFilter) (*body[List[Upload]], error) {
	uploads, cut, err := s.store.Uploads(ctx, store.UploadFilter{Scope: scopeOf(ctx), Status: in.Status}, in.page)
	if err != nil {
		return nil, err
	}
	tasks, err := s.store.TasksOfUploads(ctx, uploads)
	if err != nil {
		return nil, err
	}
	return listOf(uploads, cut, in.Limit, func(u *store.Upload) uuid.UUID { return u.ID }, func(u *store.Upload) Upload {
		if u.TaskID == nil {
			return wireUpload(u, nil)
		}
		return wireUpload(u, tasks[*u.TaskID])
	}), nil
}

// newUpload checks what the schema of an upload cannot express.
func (s *server) newUpload(ctx context.Context, in NewUpload, api string) (store.Upload, error) {
	var wrong []FieldError
	bad := func(field, format string, args ...any) {
		wrong = append(wrong, FieldError{field, fmt.Sprintf(format, args...)})
	}
	field, other := "urls", "source_url"
	if api == store.AccountDatalake {
		field, other = other, field
	}
	given := map[string]bool{"urls": in.URLs != nil, "source_url": in.SourceURL != ""}
	switch {
	case given[other]:
		bad(other, "must be absent, since the account is of the API %s; pass %s", api, field)
	case !given[field] || (field == "urls" && len(in.URLs) == 0):
		bad(field, "is required, since the account is of the API %s", api)
	}
	switch {
	case in.CollectionID != "" && api != store.AccountDatalake:
		bad("collection_id", "must be absent, since the account is of the API %s, which has no collections", api)
	case !printable(in.CollectionID):
		bad("collection_id", "must be printable characters")
	}
	for i, text := range in.URLs {
		if fault := videoURLFault(text); fault != "" {
			bad(fmt.Sprintf("urls[%d]", i), "%s", fault)
		}
	}
	if in.SourceURL != "" {
		if fault := videoURLFault(in.SourceURL); fault != "" {
			bad("source_url", "%s", fault)
		}
	}
	task := NewTask{
		TaskID: "not known yet", CallbackURL: in.CallbackURL, Metadata: in.Metadata,
		ExpectedVideos: in.ExpectedVideos, Until: in.Until, ExpiresIn: in.ExpiresIn,
	}
	reg, err := s.newTask(ctx, callerOf(ctx), task)
	if p, ok := errors.AsType[*Problem](err); ok {
		wrong = append(wrong, p.Errors...)
	} else if err != nil {
		return store.Upload{}, err
	}
	if wrong != nil {
		return store.Upload{}, invalid(wrong...)
	}
	return store.Upload{
		AppID: reg.AppID, CallbackURL: reg.CallbackURL, Metadata: reg.Metadata, Until: reg.Until, ExpectedVideos: reg.ExpectedVideos,
		ExpiresIn: reg.ExpiresIn, Traceparent: reg.Traceparent,
		Request: store.UploadRequest{URLs: in.URLs, SourceURL: in.SourceURL, CollectionID: in.CollectionID},
	}, nil
}

// videoURLFault returns what is wrong with the URL of a video, or "": memories.ai refuses what is no URL only after the upload
// has taken its place in the account's budget.
func videoURLFault(text string) string {
	u, err := url.Parse(text)
	switch {
	case utf8.RuneCountInString(text) > maxUploadURL:
		return fmt.Sprintf("must have at most %d characters", maxUploadURL)
	case strings.ContainsFunc(text, unicode.IsSpace):
		return "must not contain spaces; a space inside a URL is written %20"
	case !printable(text):
		return "must be printable characters"
	case err != nil && strings.Contains(err.Error(), "invalid URL escape"):
		return "must be a URL; a percent sign that stands for itself is written %25"
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "":
		return "must be an absolute http or https URL, such as https://videos.example/1.mp4"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "must have a port from 1 to 65535"
		}
	}
	return ""
}

func wireUpload(u *store.Upload, t *store.Task) Upload {
	out := Upload{
		ID: u.ID, Status: u.Status, URLs: u.Request.URLs, CallbackURL: u.CallbackURL, Metadata: u.Metadata, Attempts: u.Attempts,
		CreatedAt: wireTime(u.CreatedAt), FinishedAt: wireTimeOf(u.FinishedAt),
	}
	if out.URLs == nil {
		out.URLs = []string{}
	}
	if u.Request.SourceURL != "" {
		out.SourceURL = &u.Request.SourceURL
	}
	if u.Request.CollectionID != "" {
		out.CollectionID = &u.Request.CollectionID
	}
	if u.Status == store.UploadQueued {
		out.NextAttemptAt = wireTimeOf(&u.NextAttemptAt)
	}
	if t != nil {
		out.Task = new(wireTask(t))
	}
	if u.Error != nil {
		out.Error = &TaskError{u.Error.Code, u.Error.Message}
	}
	return out
}
