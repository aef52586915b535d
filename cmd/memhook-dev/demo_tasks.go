package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/webhook"
)

// fate is one task of the demo: what memories.ai does with it, and the events that must follow.
type fate struct {
	name     string
	script   memoriestest.Task
	extra    map[string]any // fields of the registration
	datalake bool           // it is of the second generation of the API
	upload   string         // memhook submits the video of this URL itself
	expected []string
}

func videos(status string, ids ...string) []memoriestest.Video {
	list := make([]memoriestest.Video, len(ids))
	for i, id := range ids {
		list[i] = memoriestest.Video{ID: id, Status: status}
	}
	return list
}

// fates are the tasks that the demo shows.
func fates() []fate {
	after := func(ms int64, list []memoriestest.Video) memoriestest.Step {
		return memoriestest.Step{AfterMS: ms, Videos: list}
	}
	return []fate{
		{
			name:     "ready at once",
			script:   memoriestest.Task{Steps: []memoriestest.Step{after(0, videos("", "PI-100000000000000001", "PI-100000000000000002"))}},
			expected: []string{webhook.TaskReady},
		},
		{
			name:     "ready later",
			script:   memoriestest.Task{Steps: []memoriestest.Step{after(6000, videos("", "PI-200000000000000001"))}},
			expected: []string{webhook.TaskReady},
		},
		{
			name: "growing list",
			script: memoriestest.Task{Steps: []memoriestest.Step{
				after(2000, videos("", "PI-300000000000000001")),
				after(8000, videos("", "PI-300000000000000001", "PI-300000000000000002", "PI-300000000000000003")),
			}},
			expected: []string{webhook.TaskReady, webhook.TaskUpdated},
		},
		{
			name: "faults on the way",
			script: memoriestest.Task{
				Faults: []memoriestest.Fault{{Kind: memoriestest.FaultHTML}, {Kind: memoriestest.FaultForeign}, {Kind: memoriestest.FaultRateLimited}},
				Steps:  []memoriestest.Step{after(3000, videos("", "PI-400000000000000001"))},
			},
			expected: []string{webhook.TaskReady},
		},
		{
			name: "until indexed",
			script: memoriestest.Task{Shape: memoriestest.ShapeVideos, Steps: []memoriestest.Step{
				after(3000, videos("UNPARSE", "VI500000000000000001")),
				after(9000, videos("PARSE", "VI500000000000000001")),
			}},
			extra:    map[string]any{"until": "indexed"},
			expected: []string{webhook.TaskReady, webhook.TaskIndexed},
		},
		{
			name:     "Datalake operation",
			script:   memoriestest.Task{Steps: []memoriestest.Step{after(5000, videos("", "VI600000000000000001"))}},
			datalake: true,
			expected: []string{webhook.TaskReady},
		},
		{name: "upload", upload: "https://videos.example/1", expected: []string{webhook.TaskReady}},
		{name: "never", extra: map[string]any{"expires_in": "15s"}, expected: []string{webhook.TaskExpired}},
	}
}

// load registers a task every 2 s until ctx ends, so that the dashboard has something to show. Most tasks
// get ready after some seconds, one in ten never does, and one of the four receivers fails half of the time.
func (d *demo) load(ctx context.Context, sim *memoriestest.Server, callback, key string) {
	ticker := time.NewTicker(2 * time.Second)
	defer ticker.Stop()
	for i := 1; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		task := memoriestest.Task{TaskID: fmt.Sprintf("load-%04d", i)}
		if rand.IntN(10) > 0 {
			after := time.Duration(float64(8*time.Second) * math.Exp(0.8*rand.NormFloat64()))
			list := videos("", fmt.Sprintf("PI-%018d", rand.Int64N(1e18)))
			task.Steps = []memoriestest.Step{{AfterMS: after.Milliseconds(), Videos: list}}
		}
		sim.Add(task)
		body := map[string]any{
			"task_id": task.TaskID, "callback_url": fmt.Sprintf("%s/load/%d", callback, i%4), "expires_in": "2m",
			"metadata": map[string]string{"order": strconv.Itoa(i)},
		}
		var out struct{ ID string }
		if err := d.call(ctx, key, http.MethodPost, "/v1/tasks", body, &out); err != nil && ctx.Err() == nil {
			d.sayf("", "register: %v", err)
		}
	}
}

// receiveLoad answers the webhooks of load.
func receiveLoad(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	time.Sleep(rand.N(40 * time.Millisecond))
	if r.URL.Path == "/load/3" && rand.IntN(2) == 0 {
		http.Error(w, "the receiver of this demo fails half of the time", http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
