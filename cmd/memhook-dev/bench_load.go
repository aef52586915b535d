package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
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
