package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// Task is a task as apps see it.
type Task struct {
	ID             uuid.UUID         `json:"id" doc:"memhook's id of the task."`
	TaskID         string            `json:"task_id" doc:"The task id of memories.ai."`
	UniqueID       string            `json:"unique_id" doc:"The unique_id of the upload."`
	Status         string            `json:"status" enum:"waiting,ready,failed,expired,cancelled" doc:"What has become of the task."`
	VideoIDs       []string          `json:"video_ids" nullable:"false" doc:"In the order in which they were first seen."`
	Videos         []Video           `json:"videos" nullable:"false" doc:"The videos with their status, in the order of video_ids."`
	VideosOmitted  int               `json:"videos_omitted,omitempty" doc:"In lists and answers to registrations, which have at most 1,000 videos of a task: the number of the others. GET /v1/tasks/{id} has all."`
	Metadata       map[string]string `json:"metadata" doc:"As registered; returned in every event of the task."`
	Subscriptions  []Subscription    `json:"subscriptions" nullable:"false" doc:"The callback URLs that receive its events."`
	Polls          int               `json:"polls" doc:"The number of polls so far."`
	LastPolledAt   *Time             `json:"last_polled_at" nullable:"true" doc:"The last poll; null if there was none."`
	NextPollAt     *Time             `json:"next_poll_at" nullable:"true" doc:"An estimate; null if the task is no longer polled."`
	Progress       *Progress         `json:"progress" doc:"The last progress that memories.ai reported; for display only."`
	LastError      *TaskError        `json:"last_error" doc:"The error of the last poll that failed."`
	CreatedAt      Time              `json:"created_at" doc:"The first registration."`
	ReadyAt        *Time             `json:"ready_at" nullable:"true" doc:"When memhook saw that it is ready; null if it is not."`
	ExpiresAt      Time              `json:"expires_at" doc:"When it expires unless it is ready."`
	Until          string            `json:"until" enum:"downloaded,indexed" doc:"The stage until which the task is followed."`
	ExpectedVideos *int              `json:"expected_videos" doc:"The task is ready when its list has this many videos; null: as soon as it has one."`
}

// TransformSchema documents which references can be null, which a reference alone cannot.
func (Task) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return orNull(s, "last_error", "progress")
}

// orNull documents that properties, which are references, can be null.
func orNull(s *huma.Schema, properties ...string) *huma.Schema {
	for _, name := range properties {
		p := s.Properties[name]
		s.Properties[name] = &huma.Schema{AnyOf: []*huma.Schema{{Ref: p.Ref}, {Type: "null"}}, Description: p.Description}
	}
	return s
}

// Video is one video of a task. What memories.ai has not told is null.
type Video struct {
	VideoID  string   `json:"video_id" doc:"The video's id at memories.ai."`
	Status   *string  `json:"status" example:"PARSE" doc:"UNPARSE (being indexed), PARSE (indexed), FAILED, or another word of memories.ai, which is not final."`
	Cause    *string  `json:"cause" doc:"The reason for the failure."`
	Name     *string  `json:"name" doc:"The name of the video."`
	URL      *string  `json:"url" doc:"The source of the video."`
	Duration *float64 `json:"duration_seconds" doc:"The length of the video in seconds."`
}

// Progress is a task's progress as memories.ai reports it.
type Progress struct {
	Percent *float64          `json:"percent" doc:"0 to 100; null if memories.ai does not report it."`
	Stages  map[string]string `json:"stages" doc:"The stages as memories.ai reports them."`
}

// TaskError is an error that memories.ai reported, or the reason for getting no answer.
type TaskError struct {
	Code    string `json:"code" doc:"memories.ai's code, or a word of memhook's where there was no answer."`
	Message string `json:"message" doc:"What was reported, for people."`
}

// Subscription is a callback URL that receives the events of a task.
type Subscription struct {
	ID          uuid.UUID `json:"id" doc:"The id of the subscription."`
	EndpointID  uuid.UUID `json:"endpoint_id" doc:"The endpoint that the callback URL belongs to."`
	CallbackURL string    `json:"callback_url" doc:"The URL that receives the webhooks."`
}

type (
	// TasksFilter are the query parameters of lists of tasks.
	TasksFilter struct {
		PageInput
		Status   string `query:"status" enum:"waiting,ready,failed,expired,cancelled" doc:"Return only tasks with this status."`
		TaskID   string `query:"task_id" doc:"The task id of memories.ai."`
		UniqueID string `query:"unique_id" doc:"Return only tasks with this unique_id."`
	}
	// DeleteTaskInput names a task that is to be cancelled.
	DeleteTaskInput struct {
		IDInput
		Purge bool `query:"purge" doc:"Delete the task, whatever its status, and all that is stored of it: its events, deliveries and attempts."`
	}
)

func (s *server) listTasks(ctx context.Context, in *TasksFilter) (*body[List[Task]], error) {
	f := store.TaskFilter{Scope: scopeOf(ctx), Status: in.Status, UpstreamID: in.TaskID, UniqueID: in.UniqueID}
	tasks, cut, err := s.store.Tasks(ctx, f, in.page)
	if err != nil {
		return nil, err
	}
	return listOf(tasks, cut, in.Limit, func(t *store.Task) uuid.UUID { return t.ID }, wireTask), nil
}

func (s *server) getTask(ctx context.Context, in *IDInput) (*body[Task], error) {
	t, err := s.store.Task(ctx, scopeOf(ctx), in.id)
	if err != nil {
		return nil, err
	}
	return &body[Task]{wireTask(t)}, nil
}

func (s *server) cancelTask(ctx context.Context, in *DeleteTaskInput) (*struct{}, error) {
	if in.Purge {
		return nil, s.store.ExpungeTask(ctx, scopeOf(ctx), in.id)
	}
	err := s.store.CancelTask(ctx, scopeOf(ctx), in.id)
	if errors.Is(err, store.ErrConflict) {
		return nil, s.ended(ctx, in.id, "cancelled")
	}
	return nil, err
}

// pollTask moves the next poll of a task to the front.
func (s *server) pollTask(ctx context.Context, in *IDInput) (*body[Task], error) {
	err := s.store.PollTask(ctx, scopeOf(ctx), in.id)
	if errors.Is(err, store.ErrConflict) {
		return nil, s.ended(ctx, in.id, "polled")
	}
	if err != nil {
		return nil, err
	}
	return s.getTask(ctx, in)
}

// ended is the problem of a task that has ended and for which it is too late to be cancelled or polled.
func (s *server) ended(ctx context.Context, id uuid.UUID, done string) error {
	t, err := s.store.Task(ctx, scopeOf(ctx), id)
	if err != nil {
		return err
	}
	return problemFor(http.StatusConflict, codeConflict,
		fmt.Sprintf("task %s is %s and can no longer be %s; register it again to follow it anew", id, t.Status, done))
}

func wireTask(t *store.Task) Task {
	out := Task{
		ID: t.ID, TaskID: t.UpstreamID, UniqueID: t.UniqueID, Status: t.Status,
		VideoIDs: make([]string, len(t.Videos)), Videos: make([]Video, len(t.Videos)),
		Metadata: t.Metadata, Subscriptions: make([]Subscription, len(t.Subscriptions)), Polls: t.Polls, LastPolledAt: wireTimeOf(t.LastPolledAt),
		CreatedAt: wireTime(t.CreatedAt), ReadyAt: wireTimeOf(t.ReadyAt), ExpiresAt: wireTime(t.ExpiresAt),
		Until: t.Until, ExpectedVideos: t.ExpectedVideos, VideosOmitted: t.VideosOmitted,
	}
	if out.Metadata == nil {
		out.Metadata = map[string]string{}
	}
	for i, v := range t.Videos {
		out.VideoIDs[i], out.Videos[i] = v.ID, Video{v.ID, v.Status, v.Cause, v.Name, v.URL, v.Duration}
	}
	for i, sub := range t.Subscriptions {
		out.Subscriptions[i] = Subscription{sub.ID, sub.EndpointID, sub.URL}
	}
	if t.Polling {
		out.NextPollAt = wireTimeOf(t.NextPollAt)
	}
	if p := t.Progress; p != nil {
		out.Progress = &Progress{p.Percent, p.Stages}
		if p.Stages == nil {
			out.Progress.Stages = map[string]string{}
		}
	}
	if t.LastError != nil {
		out.LastError = &TaskError{t.LastError.Code, t.LastError.Message}
	}
	return out
}
