package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/client"
	"github.com/memhook/memhook/cmd/internal/app"
)

type tasksCommands struct {
	Register registerTask `cmd:"" help:"Register a task and a callback URL."`
	Get      getTask      `cmd:"" help:"Show a task."`
	List     listTasks    `cmd:"" help:"List tasks, newest first."`
	Wait     waitForTask  `cmd:"" help:"Wait until a task is ready: exits with 0; 3 if it failed, 4 if it expired, 5 if it was cancelled, 6 after --timeout."`
	Cancel   cancelTask   `cmd:"" help:"Stop polling a task."`
}

// The exit statuses of `tasks wait` beside those of every command.
const (
	exitTaskFailed    = 3
	exitTaskExpired   = 4
	exitTaskCancelled = 5
	exitWaitTimeout   = 6
)

// waitInterval is the time between two looks at a task.
const waitInterval = time.Second

type registerTask struct {
	remote

	TaskID         string            `arg:"" help:"The task id of memories.ai."`
	CallbackURL    string            `arg:"" help:"The URL that receives the webhooks."`
	UniqueID       string            `help:"The unique_id of the upload. Default: default."`
	Metadata       map[string]string `help:"Returned in every event: key=value. May be repeated." mapsep:"none"`
	ExpectedVideos int64             `help:"The task is ready when its list has this many videos."`
	Until          string            `enum:",downloaded,indexed" default:"" help:"The stage until which the task is followed: downloaded (default) or indexed."`
	ExpiresIn      string            `help:"The time until the task expires, such as 90m or 24h."`
	IdempotencyKey string            `help:"Repeating the command with this key gets the same answer for 24 hours."`
}

// Run registers the task and prints it.
func (c registerTask) Run(ctx context.Context, api *client.Client) error {
	body := client.NewTask{
		TaskId: c.TaskID, CallbackUrl: c.CallbackURL, UniqueId: optional[string](c.UniqueID),
		Until: optional[client.NewTaskUntil](c.Until), ExpiresIn: optional[string](c.ExpiresIn),
	}
	if c.Metadata != nil {
		body.Metadata = &c.Metadata
	}
	if c.ExpectedVideos != 0 {
		body.ExpectedVideos = &c.ExpectedVideos
	}
	params := &client.CreateTaskParams{IdempotencyKey: optional[string](c.IdempotencyKey)}
	return c.printTask(client.Read[client.Task](api.CreateTask(ctx, params, body)))
}

type oneTask struct {
	remote

	Task string `arg:"" help:"The id of the task: memhook's or that of memories.ai."`
}

type getTask struct{ oneTask }

// Run prints the task.
func (c getTask) Run(ctx context.Context, api *client.Client) error {
	return c.printTask(findTask(ctx, api, c.Task))
}

type listTasks struct {
	remote

	Status   string `enum:",waiting,ready,failed,expired,cancelled" default:"" help:"List only these: waiting, ready, failed, expired or cancelled."`
	TaskID   string `help:"List only tasks with this id of memories.ai."`
	UniqueID string `help:"List only tasks with this unique_id."`
	Limit    int    `default:"50" help:"The maximum number of tasks."`
}

// Run prints the tasks.
func (c listTasks) Run(ctx context.Context, api *client.Client) error {
	tasks, err := readPages[client.Task](c.Limit, func(limit int64, cursor *string) (*http.Response, error) {
		return api.ListTasks(ctx, &client.ListTasksParams{
			Limit: &limit, Cursor: cursor, Status: optional[client.ListTasksParamsStatus](c.Status),
			TaskId: optional[string](c.TaskID), UniqueId: optional[string](c.UniqueID),
		})
	})
	if err != nil {
		return err
	}
	return c.print(tasks, func(w io.Writer) {
		row(w, "ID", "TASK", "STATUS", "VIDEOS", "POLLS", "NEXT POLL", "CREATED")
		for _, t := range tasks {
			row(w, t.Id, t.TaskId, t.Status, len(t.VideoIds), t.Polls, t.NextPollAt, t.CreatedAt)
		}
	})
}

type waitForTask struct {
	oneTask

	Timeout time.Duration `help:"Give up after this time, such as 10m. Default: wait until the task ends."`
}

// Run prints the task once it is no longer waiting. The exit status says what became of it.
func (c waitForTask) Run(ctx context.Context, api *client.Client) error {
	task, err := findTask(ctx, api, c.Task)
	if err != nil {
		return err
	}
	wait := ctx
	if c.Timeout > 0 {
		var stop context.CancelFunc
		wait, stop = context.WithTimeout(ctx, c.Timeout)
		defer stop()
	}
	for task.Status == client.TaskStatusWaiting {
		if err := pause(wait, waitInterval); err != nil {
			return gaveUp(ctx, err, task)
		}
		got, err := client.Read[client.Task](api.GetTask(wait, task.Id.String()))
		switch {
		case err == nil:
			task = got
		case wait.Err() != nil:
			return gaveUp(ctx, err, task)
		case !isTemporary(err):
			return err
		default: // a memhook that restarts ends no wait
			fmt.Fprintln(os.Stderr, "memhook:", err)
		}
	}
	if err := c.printTask(task, nil); err != nil {
		return err
	}
	statuses := map[client.TaskStatus]int{
		client.TaskStatusFailed: exitTaskFailed, client.TaskStatusExpired: exitTaskExpired, client.TaskStatusCancelled: exitTaskCancelled,
	}
	if status := statuses[task.Status]; status != 0 {
		return app.ExitError{Status: status, Err: fmt.Errorf("task %s is %s", task.TaskId, task.Status)}
	}
	return nil
}

// gaveUp is the error of a wait that ended before the task did: by its timeout, or by a signal if ctx has ended.
func gaveUp(ctx context.Context, err error, task client.Task) error {
	if ctx.Err() != nil {
		return err
	}
	return app.ExitError{Status: exitWaitTimeout, Err: fmt.Errorf("task %s is still %s", task.TaskId, task.Status)}
}

type cancelTask struct{ oneTask }

// Run cancels the task and prints it.
func (c cancelTask) Run(ctx context.Context, api *client.Client) error {
	task, err := findTask(ctx, api, c.Task)
	if err != nil {
		return err
	}
	if _, err := client.Read[struct{}](api.CancelTask(ctx, task.Id.String(), nil)); err != nil {
		return err
	}
	return c.printTask(client.Read[client.Task](api.GetTask(ctx, task.Id.String())))
}

// findTask returns the task with an id: memhook's, or else the newest with this id of memories.ai.
func findTask(ctx context.Context, api *client.Client, id string) (task client.Task, err error) {
	if _, err := uuid.Parse(id); err == nil {
		task, err := client.Read[client.Task](api.GetTask(ctx, id))
		if problem, ok := errors.AsType[*client.Problem](err); !ok || problem.Status != http.StatusNotFound {
			return task, err
		}
	}
	limit := int64(1)
	found, err := client.Read[listPage[client.Task]](api.ListTasks(ctx, &client.ListTasksParams{TaskId: &id, Limit: &limit}))
	if err != nil {
		return task, err
	}
	if len(found.Data) == 0 {
		return task, fmt.Errorf("this app has no task %s: neither memhook nor memories.ai gave it this id", id)
	}
	return found.Data[0], nil
}

// printTask prints a task, unless err is not nil.
func (r remote) printTask(t client.Task, err error) error {
	if err != nil {
		return err
	}
	return r.print(t, func(w io.Writer) {
		row(w, "id", t.Id)
		row(w, "task_id", t.TaskId)
		row(w, "unique_id", t.UniqueId)
		row(w, "status", t.Status)
		row(w, "videos", strings.Join(t.VideoIds, " "))
		row(w, "polls", t.Polls)
		row(w, "last poll", t.LastPolledAt)
		row(w, "next poll", t.NextPollAt)
		if t.LastError != nil {
			row(w, "last error", t.LastError.Code+": "+t.LastError.Message)
		}
		row(w, "created", t.CreatedAt)
		row(w, "ready", t.ReadyAt)
		row(w, "expires", t.ExpiresAt)
		for _, s := range t.Subscriptions {
			row(w, "callback", s.CallbackUrl)
		}
	})
}
