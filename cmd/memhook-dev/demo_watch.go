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
	start  time.Time
	api    string
	secret string // of the receiver

	mu      sync.Mutex
	byName  map[string]*fate
	tasks   []followed
	got     map[string][]string // types of events, by the fate's name
	refused bool
	wrong   error
}

// followed is a task of the demo, or an upload that becomes one.
type followed struct {
	path, key string // where it is read, with the key of its app
	fate      *fate
	printed   string // its state
}

// sayf prints a step with the seconds since the start.
func (d *demo) sayf(name, format string, args ...any) {
	if name != "" {
		name = fmt.Sprintf("%-20s", name)
	}
	fmt.Printf("%6.2fs  %s%s\n", time.Since(d.start).Seconds(), name, fmt.Sprintf(format, args...))
}

// register scripts and registers the fates, each in the app of its generation. key is the key of v1's app.
func (d *demo) register(ctx context.Context, sim *memoriestest.Server, callback, key, adminToken string) error {
	lake, err := d.datalake(ctx, adminToken)
	if err != nil {
		return err
	}
	for _, key := range []string{key, lake} {
		endpoint := map[string]any{"url": callback, "secret": d.secret}
		if err := d.call(ctx, key, http.MethodPost, "/v1/endpoints", endpoint, new(json.RawMessage)); err != nil {
			return err
		}
	}
	all := fates()
	for i := range all {
		f := followed{key: key, fate: &all[i]}
		if f.fate.datalake {
			f.key = lake
		}
		d.mu.Lock()
		d.byName[f.fate.name] = f.fate
		d.mu.Unlock()
		body := map[string]any{"callback_url": callback, "metadata": map[string]string{"demo": f.fate.name}}
		path, done := "/v1/tasks", "registered"
		if f.fate.upload != "" {
			path, done = "/v1/uploads", "queued to be submitted: "+f.fate.upload
			body["urls"] = []string{f.fate.upload}
		} else {
			f.fate.script.TaskID = fmt.Sprintf("demo-%d-%s", i+1, strings.ReplaceAll(f.fate.name, " ", "-"))
			sim.Add(f.fate.script)
			body["task_id"] = f.fate.script.TaskID
		}
		maps.Copy(body, f.fate.extra)
		var made struct{ ID string }
		if err := d.call(ctx, f.key, http.MethodPost, path, body, &made); err != nil {
			return err
		}
		d.sayf(f.fate.name, "%s", done)
		f.path = path + "/" + made.ID
		d.tasks = append(d.tasks, f)
	}
	return nil
}

// datalake creates an account of the second generation with an app, and returns the app's key.
func (d *demo) datalake(ctx context.Context, adminToken string) (key string, err error) {
	var account, app struct{ ID string }
	var made struct{ Key string }
	for _, step := range []struct {
		path string
		in   map[string]any
		out  any
	}{
		{"accounts", map[string]any{"name": "datalake", "api_key": "sk-mai-demo"}, &account},
		{"apps", map[string]any{"name": "datalake", "account_id": &account.ID}, &app},
		{"apps/%s/keys", map[string]any{"name": "demo"}, &made},
	} {
		path := "/admin/v1/" + strings.ReplaceAll(step.path, "%s", app.ID)
		if err := d.call(ctx, adminToken, http.MethodPost, path, step.in, step.out); err != nil {
			return "", err
		}
	}
	return made.Key, nil
}

// call sends a request to memhook's API, with an app's key or the admin token, and decodes the answer into out.
func (d *demo) call(ctx context.Context, key, method, path string, in, out any) error {
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
	req.Header.Set("Authorization", "Bearer "+key)
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
	d.mu.Lock()
	f := d.byName[task.Metadata["demo"]]
	first := !d.refused
	d.refused = true
	d.mu.Unlock()
	if err := webhook.Verify(body, r.Header, d.secret); err != nil || f == nil {
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
	d.got[f.name] = append(d.got[f.name], ev.Type)
	d.mu.Unlock()
}

func (d *demo) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wrong = errors.Join(d.wrong, err)
}

// wait prints the progress of the tasks until every fate has its events.
func (d *demo) wait(ctx context.Context) error {
	deadline := time.After(demoDeadline - time.Since(d.start))
	for {
		for i := range d.tasks {
			if err := d.printChange(ctx, &d.tasks[i]); err != nil {
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

// printChange prints the state of a task if it has changed.
func (d *demo) printChange(ctx context.Context, f *followed) error {
	type state struct {
		ID        string
		TaskID    string `json:"task_id"`
		Status    string
		Polls     int
		LastError *store.TaskError `json:"last_error"`
		VideoIDs  []string         `json:"video_ids"`
		Task      *state           // of an upload
	}
	var t state
	if err := d.call(ctx, f.key, http.MethodGet, f.path, nil, &t); err != nil {
		return err
	}
	if strings.HasPrefix(f.path, "/v1/uploads/") {
		if t.Task == nil {
			return nil
		}
		d.sayf(f.fate.name, "%s, task_id %s", t.Status, t.Task.TaskID)
		f.path = "/v1/tasks/" + t.Task.ID
		t = *t.Task
	}
	line := fmt.Sprintf("%s, videos: %d", t.Status, len(t.VideoIDs))
	if t.LastError != nil {
		line += ", memories.ai: " + t.LastError.Code + " " + t.LastError.Message
	}
	if f.printed != line && t.Polls > 0 {
		f.printed = line
		d.sayf(f.fate.name, "poll %-3d %s", t.Polls, line)
	}
	return nil
}

// missing lists the events that have not arrived yet. The caller holds the mutex.
func (d *demo) missing() (list []string) {
	for _, f := range d.byName {
		for _, want := range f.expected {
			if !slices.Contains(d.got[f.name], want) {
				list = append(list, f.name+": "+want)
			}
		}
	}
	return list
}
