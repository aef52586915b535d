package store

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// What a task can be.
const (
	TaskWaiting   = "waiting"
	TaskReady     = "ready"
	TaskFailed    = "failed"
	TaskExpired   = "expired"
	TaskCancelled = "cancelled"
)

// What a task waits for.
const (
	UntilDownloaded = "downloaded"
	UntilIndexed    = "indexed"
)

// The words of memories.ai for a video's final states.
const (
	VideoParsed = "PARSE"
	VideoFailed = "FAILED"
)

// Task is a memories.ai task that an app has registered.
type Task struct {
	ID             uuid.UUID
	AppID          uuid.UUID
	AccountID      uuid.UUID
	UpstreamID     string `db:"task_id"` // memories.ai's id of it
	UniqueID       string
	Status         string
	Polling        bool // waiting, or ready and its list may still change
	Until          string
	ExpectedVideos *int
	Metadata       map[string]string
	Videos         []Video // in the order in which they were first seen
	VideosOmitted  int     // where the method says so: the videos beyond the first shownVideos, which it has left out
	Cut            bool    // where read for a page: it was cut, so that there are more
	GrownAt        *time.Time
	Polls          int
	LastPolledAt   *time.Time
	NextPollAt     *time.Time
	HintedAt       *time.Time
	Progress       *Progress // the last that was told
	LastError      *TaskError
	Refusals       int // in a row
	FirstRefusalAt *time.Time
	CreatedAt      time.Time
	ReadyAt        *time.Time
	IndexedAt      *time.Time
	ExpiresAt      time.Time
	PollLog        []string // the last polls: Unix milliseconds, a space, the outcome
	Traceparent    *string

	Subscriptions []Subscription `db:"-"` // where the method says so
}

// Video is one video of a task. What memories.ai has not told of it is nil.
type Video struct {
	ID       string   `json:"video_id"`
	Status   *string  `json:"status"`
	Cause    *string  `json:"cause,omitempty"` // why it failed
	Name     *string  `json:"name,omitempty"`
	URL      *string  `json:"url,omitempty"`              // where it was taken from
	Duration *float64 `json:"duration_seconds,omitempty"` // in seconds
}

// Progress is a task's progress as memories.ai reports it. It is for display only; nothing acts on it.
type Progress struct {
	Percent *float64          `json:"percent"` // 0 to 100; nil where it is not told
	Stages  map[string]string `json:"stages,omitempty"`
}

// TaskError is memories.ai's reason for refusing a task, or why the last poll got no answer.
type TaskError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// shownVideos is how many videos of a task are read where there may be many tasks.
const shownVideos = 1000

// taskListColumns are taskColumns with at most shownVideos videos.
var taskListColumns = strings.Replace(taskColumns, "metadata, videos,", fmt.Sprintf(
	`metadata, jsonb_path_query_array(videos, '$[0 to %d]') as videos, greatest(0, jsonb_array_length(videos) - %d) as videos_omitted,`,
	shownVideos-1, shownVideos), 1)

// sizedTasks is the SQL table sized of a table page of tasks, whose videos it bounds at pageBytes together: from where they
// are more, the tasks have none, except for the first. sizedTaskColumns reads it.
var sizedTasks = fmt.Sprintf(`sized as (
			select *, row_number() over (order by id) = 1 or sum(octet_length(videos::text)) over (order by id) <= %d as shown from page
		)`, pageBytes)

var sizedTaskColumns = strings.Replace(taskColumns, "metadata, videos,", `metadata,
	case when shown then videos else '[]' end as videos,
	videos_omitted + case when shown then 0 else jsonb_array_length(videos) end as videos_omitted,`, 1)

const taskColumns = `id, app_id, account_id, task_id, unique_id, status, polling, until, expected_videos, metadata, videos,
	grown_at, polls, last_polled_at, next_poll_at, hinted_at, progress, last_error, refusals, first_refusal_at,
	created_at, ready_at, indexed_at, expires_at, poll_log, traceparent`
