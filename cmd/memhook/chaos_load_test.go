package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
)

// register makes one task with a drawn fate.
func (c *chaos) register(n int, r *rand.Rand) {
	app := c.apps[r.IntN(len(c.apps))]
	task := &chaosTask{app: app, id: fmt.Sprintf("%s-%06d", app.name, n)}
	for _, i := range r.Perm(len(app.receivers))[:1+r.IntN(2)] {
		task.receivers = append(task.receivers, app.receivers[i])
	}
	shapes := []string{memoriestest.ShapeIDs, memoriestest.ShapeVideos, memoriestest.ShapeBoth}
	if app.datalake {
		shapes[2] = memoriestest.ShapePath
	}
	script := memoriestest.Task{TaskID: task.id, Shape: shapes[r.IntN(3)], Empty: []string{"list", "null", "object"}[r.IntN(3)]}
	list := func(count int) (out []memoriestest.Video) {
		if app.datalake {
			count = 1 // an operation makes one video
		}
		for k := range count {
			out = append(out, memoriestest.Video{ID: fmt.Sprintf("PI-%s-%d", task.id, k), Status: "PARSE"})
		}
		return out
	}
	body := map[string]any{"task_id": task.id, "metadata": map[string]string{"app": app.name}, "expires_in": "10m"}
	after := int64(r.IntN(15_000))
	switch k := r.IntN(10); {
	case k < 2:
		task.fate = "at once"
		script.Steps = []memoriestest.Step{{AfterMS: 0, Videos: list(1 + r.IntN(3))}}
	case k < 5:
		task.fate = "later"
		script.Steps = []memoriestest.Step{{AfterMS: after, Videos: list(1 + r.IntN(3))}}
	case k < 7 && app.datalake:
		task.fate = "failed"
		script.End = &memoriestest.End{AfterMS: after, Code: "bad_source", Message: "no video there", Cancelled: r.IntN(2) == 0}
	case k < 7:
		task.fate = "growing"
		script.Steps = []memoriestest.Step{{AfterMS: after, Videos: list(1)}, {AfterMS: after + 4000, Videos: list(3)}}
	case k < 8:
		task.fate = "indexed"
		script.Shape = memoriestest.ShapeVideos
		script.Steps = []memoriestest.Step{{AfterMS: after, Videos: list(2)}}
		body["until"] = "indexed"
	case k < 9:
		task.fate = "never"
		body["expires_in"] = fmt.Sprintf("%ds", 10+r.IntN(20))
	default:
		task.fate = "faults"
		kinds := []string{memoriestest.FaultHTML, memoriestest.FaultSpring, memoriestest.FaultCut, memoriestest.FaultTruncated, memoriestest.FaultForeign, memoriestest.FaultRateLimited, memoriestest.FaultHTML200, memoriestest.FaultNotUTF8}
		if app.datalake {
			kinds = append(kinds, memoriestest.FaultNotReady, memoriestest.FaultNotFound, memoriestest.FaultAsksBearer, memoriestest.FaultRateLimitedInt)
		}
		for range 1 + r.IntN(3) {
			script.Faults = append(script.Faults, memoriestest.Fault{Kind: kinds[r.IntN(len(kinds))]})
		}
		script.Steps = []memoriestest.Step{{AfterMS: after, Videos: list(1)}}
	}
	if len(script.Steps) > 0 {
		for _, v := range script.Steps[len(script.Steps)-1].Videos {
			task.videos = append(task.videos, v.ID)
		}
	}
	c.control("tasks", script)
	// What is not answered may have been registered all the same: it is tried until it is, as a client would.
	for _, to := range task.receivers {
		body["callback_url"] = to.callback(task.id)
		status := 0
		for deadline := time.Now().Add(2 * time.Minute); status == 0 && time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
			status, _ = c.call(app.key, http.MethodPost, "/v1/tasks", body)
		}
		if status != http.StatusCreated && status != http.StatusOK {
			c.t.Errorf("register %s: %d", task.id, status)
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tasks = append(c.tasks, task)
}

// run puts the load and the faults on for a time, then heals everything.
func (c *chaos) run(d time.Duration, rate float64, fault func(*chaos)) {
	c.t.Helper()
	stop := time.Now().Add(d)
	var wg sync.WaitGroup
	seeds := rand.New(rand.NewPCG(c.rand.Uint64(), 5))
	wg.Go(func() {
		var registering sync.WaitGroup
		for n := 0; time.Now().Before(stop); n++ {
			r := rand.New(rand.NewPCG(seeds.Uint64(), 7))
			registering.Go(func() { c.register(n, r) })
			time.Sleep(time.Duration(float64(time.Second) / rate))
		}
		registering.Wait()
	})
	for fault != nil && time.Until(stop) > 5*time.Second {
		c.pause(0.5, 3)
		fault(c)
	}
	time.Sleep(time.Until(stop))
	for _, app := range c.apps {
		for _, r := range app.receivers {
			r.mood.Store(moodWell)
		}
	}
	wg.Wait()
}

// pause waits for a drawn time, in seconds.
func (c *chaos) pause(least, most float64) {
	time.Sleep(time.Duration((least + c.rand.Float64()*(most-least)) * float64(time.Second)))
}
