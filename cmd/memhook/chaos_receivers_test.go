package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// chaosTimeout is how long an attempt may take in the chaos test.
const chaosTimeout = 3 * time.Second

// chaosReceiver is a customer's system with a log of its own.
type chaosReceiver struct {
	*httptest.Server
	name string
	mood atomic.Int64 // 0 well, else one of the moods

	mu     sync.Mutex
	got    []received
	astray []string // what came by the callback URL of another task
}

// hook is the receiver's endpoint: its callback URLs without their queries.
func (r *chaosReceiver) hook() string { return r.URL + "/hook" }

// callback is the callback URL of a task, one of many of the same endpoint. The endpoint's own events have no task.
func (r *chaosReceiver) callback(task string) string {
	if task == "" {
		return r.hook()
	}
	return r.hook() + "?task=" + task
}

// The moods of a receiver.
const (
	moodWell = iota
	moodFails
	moodHangs
	moodLate // sometimes beyond the sender's patience: accepted, and told too late
	moodTwice
	moodCuts
	moods
)

func newChaosReceiver(t *testing.T, name string) *chaosReceiver {
	r := &chaosReceiver{name: name}
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(func() { r.CloseClientConnections(); r.Close() })
	return r
}

func (r *chaosReceiver) serve(w http.ResponseWriter, req *http.Request) {
	got := received{at: time.Now(), id: req.Header.Get("webhook-id"), header: req.Header}
	got.body, _ = io.ReadAll(req.Body)
	switch r.mood.Load() {
	case moodFails:
		w.WriteHeader(http.StatusInternalServerError)
		return
	case moodHangs:
		select {
		case <-req.Context().Done():
		case <-time.After(10 * time.Second):
		}
		return
	case moodCuts:
		panic(http.ErrAbortHandler)
	case moodLate:
		time.Sleep(chaosTimeout/2 + rand.N(chaosTimeout))
	case moodTwice:
		if conn, buffer, err := http.NewResponseController(w).Hijack(); err == nil {
			r.keep(got, req)
			_, _ = buffer.WriteString("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
			_ = buffer.Flush()
			_ = conn.Close()
			return
		}
	}
	r.keep(got, req)
	w.WriteHeader(http.StatusNoContent)
}

// keep notes a webhook that is accepted.
func (r *chaosReceiver) keep(got received, req *http.Request) {
	if json.Unmarshal(got.body, &got.event) == nil {
		_ = json.Unmarshal(got.event.Data, &got.task)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, got)
	if r.URL+req.URL.RequestURI() != r.callback(got.task.TaskID) {
		r.astray = append(r.astray, fmt.Sprintf("%s of %s came to %s", got.event.Type, got.task.TaskID, req.URL.RequestURI()))
	}
}

func (r *chaosReceiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}
