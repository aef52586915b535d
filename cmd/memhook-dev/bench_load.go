package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/memhook/memhook/cmd/internal/app"
)

// inParallel calls fn with 0 to n-1 on so many workers: rate a second or, where that is 0, as fast as they go.
func inParallel(workers, n, rate int, fn func(i int)) {
	var wg sync.WaitGroup
	queue := make(chan int)
	for range workers {
		wg.Go(func() {
			for i := range queue {
				fn(i)
			}
		})
	}
	start := time.Now()
	for i := range n {
		if rate > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		}
		queue <- i
	}
	close(queue)
	wg.Wait()
}

// postBatch registers a list of n tasks that are all new.
func postBatch(ctx context.Context, client *http.Client, addr, key string, tasks any, n int) error {
	answer, err := sendJSON(ctx, client, http.MethodPost, "http://"+addr+"/v1/tasks/batch", key, map[string]any{"tasks": tasks})
	if err != nil {
		return err
	}
	if made := bytes.Count(answer, []byte(`{"status":201`)); made != n {
		return fmt.Errorf("a batch of %d registered %d: %.300s", n, made, answer)
	}
	return nil
}

// sendJSON sends body and gives what is answered with 2xx.
func sendJSON(ctx context.Context, client *http.Client, method, url, key string, body any) ([]byte, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		return nil, fmt.Errorf("%s: %s: %.300s", url, resp.Status, answer)
	}
	return answer, nil
}

// awaitCount waits until the sink at addr has got n webhooks.
func awaitCount(ctx context.Context, addr string, n int, within time.Duration) error {
	for deadline := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		got, err := sinkCount(addr)
		if err != nil || got >= n {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("only %d of %d webhooks within %s", got, n, within)
		}
	}
}

// sinkCount reads how many webhooks have come since the sink was last drained, repetitions included.
func sinkCount(addr string) (int, error) {
	resp, err := http.Get("http://" + addr + "/count")
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(raw))
}

// sinkResults reads when each event first came, in Unix nanoseconds by webhook-id, and how many webhooks were
// repetitions, and lets the sink forget it.
func sinkResults(addr string) (first map[string]int64, repeated int, err error) {
	count, err := sinkCount(addr)
	if err != nil {
		return nil, 0, err
	}
	got, err := drainSink(addr)
	if err != nil {
		return nil, 0, err
	}
	first = make(map[string]int64, len(got))
	for key, at := range got {
		id, _, _ := strings.Cut(key, "/")
		first[id] = at
	}
	return first, count - len(got), nil
}

// drainSink reads what has come, by webhook-id and path, and lets the sink forget it.
func drainSink(addr string) (got map[string]int64, err error) {
	resp, err := http.Get("http://" + addr + "/results")
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	err = json.NewDecoder(resp.Body).Decode(&got)
	return got, err
}

// sinkCommand is the receiver of the benchmarks, a process of its own: it answers 200 and remembers when
// each webhook came.
type sinkCommand struct {
	Addr string `required:""`
}

// Run receives until a signal comes.
func (c sinkCommand) Run(ctx context.Context) error {
	listener, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return err
	}
	s := &sink{first: make(map[string]int64)}
	return app.ServeUntil(ctx, listener, s)
}

type sink struct {
	mu    sync.Mutex
	first map[string]int64 // webhook-id and path → Unix nanoseconds
	count int
}

// ServeHTTP takes webhooks; GET /results gives what came and forgets it, GET /count how many so far.
func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := time.Now().UnixNano()
	switch r.URL.Path {
	case "/readyz":
		return
	case "/results":
		s.mu.Lock()
		defer s.mu.Unlock()
		_ = json.NewEncoder(w).Encode(s.first)
		s.first, s.count = make(map[string]int64), 0
		return
	case "/count":
		s.mu.Lock()
		defer s.mu.Unlock()
		_, _ = fmt.Fprint(w, s.count)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	id := r.Header.Get("webhook-id") + r.URL.Path // an event has one id for all who get it
	s.mu.Lock()
	s.count++
	if _, seen := s.first[id]; !seen {
		s.first[id] = now
	}
	s.mu.Unlock()
	w.Header()["Date"] = nil
	w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(w, `{"received":true}`)
}
