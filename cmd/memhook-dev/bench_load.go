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

// inParallel calls fn with 0 to n-1 in a number of goroutines: rate per second, or as fast as possible if rate is 0.
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

// postBatch registers n tasks and returns an error unless all are new.
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

// sendJSON sends body as JSON and returns the answer. A status of 300 or above is an error.
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

// awaitCount waits until the sink at addr has received n webhooks.
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

// sinkCount reads how many webhooks arrived since the sink was last drained, duplicates included.
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

// sinkResults drains the sink. It returns when each event first arrived, in Unix nanoseconds by webhook-id, and
// how many webhooks were duplicates.
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

// drainSink reads when each webhook first arrived, by webhook-id and path, and clears the sink.
func drainSink(addr string) (got map[string]int64, err error) {
	resp, err := http.Get("http://" + addr + "/results")
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	err = json.NewDecoder(resp.Body).Decode(&got)
	return got, err
}

// sinkCommand is the receiver of the benchmarks. It runs as a process of its own, answers 200, and remembers when
// each webhook arrived.
type sinkCommand struct {
	Addr string `required:""`
}

// Run receives until SIGINT or SIGTERM.
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

// ServeHTTP receives webhooks. /results returns what arrived and clears it; /count returns the number so far.
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
	id := r.Header.Get("webhook-id") + r.URL.Path // an event has the same id for all its receivers
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
