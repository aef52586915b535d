package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

// demo follows the tasks of a demo.
type demo struct {
	start    time.Time
	api, key string

	mu      sync.Mutex
	secret  string
	byTask  map[string]*fate // by memories.ai's task id
	ids     []string         // memhook's task ids
	got     map[string][]string
	refused bool
	wrong   error
}

// sayf prints a step with the seconds since the start.
func (d *demo) sayf(name, format string, args ...any) {
	if name != "" {
		name = fmt.Sprintf("%-18s", name)
	}
	fmt.Printf("%6.2fs  %s%s\n", time.Since(d.start).Seconds(), name, fmt.Sprintf(format, args...))
}

// register scripts and registers the fates, and reads the secret of their endpoint.
func (d *demo) register(ctx context.Context, sim *memoriestest.Server, callback string) error {
	all := fates()
	for i := range all {
		f := &all[i]
		f.script.TaskID = fmt.Sprintf("demo-%d-%s", i+1, strings.ReplaceAll(f.name, " ", "-"))
		sim.Add(f.script)
		d.mu.Lock()
		d.byTask[f.script.TaskID] = f
		d.mu.Unlock()
		body := map[string]any{"task_id": f.script.TaskID, "callback_url": callback}
		maps.Copy(body, f.extra)
		var task struct {
			ID            string
			Subscriptions []struct {
				EndpointID string `json:"endpoint_id"`
			}
		}
		if err := d.call(ctx, http.MethodPost, "/v1/tasks", body, &task); err != nil {
			return err
		}
		d.sayf(f.name, "registered")
		d.mu.Lock()
		d.ids = append(d.ids, task.ID)
		known := d.secret != ""
		d.mu.Unlock()
		if known {
			continue
		}
		var secret struct{ Secret string }
		if err := d.call(ctx, http.MethodGet, "/v1/endpoints/"+task.Subscriptions[0].EndpointID+"/secret", nil, &secret); err != nil {
			return err
		}
		d.mu.Lock()
		d.secret = secret.Secret
		d.mu.Unlock()
	}
	return nil
}

// call sends a request to memhook's API and decodes the answer into out.
func (d *demo) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, d.api+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+d.key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, raw)
	}
	return json.Unmarshal(raw, out)
}

// receive verifies webhooks as a customer would. It answers 500 to the first one, to show a retry.
func (d *demo) receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var ev webhook.Event
	var task webhook.Task
	if json.Unmarshal(body, &ev) != nil || json.Unmarshal(ev.Data, &task) != nil {
		d.fail(fmt.Errorf("not an event: %s", body))
		return
	}
	secret := d.awaitSecret(r.Context())
	d.mu.Lock()
	f := d.byTask[task.TaskID]
	first := !d.refused
	d.refused = true
	d.mu.Unlock()
	if err := webhook.Verify(body, r.Header, secret); err != nil || f == nil {
		d.fail(fmt.Errorf("webhook for %s: %w", task.TaskID, err))
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if first {
		d.sayf(f.name, "webhook  %s refused with 500, to show a retry", ev.Type)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
	d.sayf(f.name, "webhook  %s verified %s", ev.Type, strings.Join(task.VideoIDs, " "))
	d.mu.Lock()
	d.got[task.TaskID] = append(d.got[task.TaskID], ev.Type)
	d.mu.Unlock()
}

// awaitSecret waits for the secret: the first webhook can arrive before register has read it.
func (d *demo) awaitSecret(ctx context.Context) string {
	for ctx.Err() == nil {
		d.mu.Lock()
		secret := d.secret
		d.mu.Unlock()
		if secret != "" {
			return secret
		}
		time.Sleep(10 * time.Millisecond)
	}
	return ""
}

func (d *demo) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wrong = errors.Join(d.wrong, err)
}

// wait prints the progress of the tasks until every fate has its events.
func (d *demo) wait(ctx context.Context) error {
	deadline := time.After(demoDeadline - time.Since(d.start))
	seen := make(map[string]string)
	for {
		for _, id := range d.ids {
			if err := d.printChange(ctx, id, seen); err != nil {
				return err
			}
		}
		d.mu.Lock()
		missing, wrong := d.missing(), d.wrong
		d.mu.Unlock()
		if wrong != nil {
			return wrong
		}
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return fmt.Errorf("not delivered in time: %s", strings.Join(missing, ", "))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// printChange prints the state of a task if it differs from the one in seen.
func (d *demo) printChange(ctx context.Context, id string, seen map[string]string) error {
	var t struct {
		TaskID    string `json:"task_id"`
		Status    string
		Polls     int
		LastError *store.TaskError `json:"last_error"`
		VideoIDs  []string         `json:"video_ids"`
	}
	if err := d.call(ctx, http.MethodGet, "/v1/tasks/"+id, nil, &t); err != nil {
		return err
	}
	state := fmt.Sprintf("%s, videos: %d", t.Status, len(t.VideoIDs))
	if t.LastError != nil {
		state += ", memories.ai: " + t.LastError.Code + " " + t.LastError.Message
	}
	if seen[id] != state && t.Polls > 0 {
		seen[id] = state
		d.sayf(d.byTask[t.TaskID].name, "poll %-3d %s", t.Polls, state)
	}
	return nil
}

// missing lists the events that have not arrived yet. The caller holds the mutex.
func (d *demo) missing() (list []string) {
	for id, f := range d.byTask {
		for _, want := range f.expected {
			if !slices.Contains(d.got[id], want) {
				list = append(list, f.name+": "+want)
			}
		}
	}
	return list
}
