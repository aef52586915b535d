package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store/storetest"
	"github.com/memhook/memhook/webhook"
)

// endpointByURL is the last version in which each callback URL was an endpoint of its own.
const endpointByURL = "1f75deb8d5a3a9b8e194d6f3e753ef7464b877ea"

// customers are receivers that are told apart by their callback URL, each with the secret that it was given.
type customers struct {
	*httptest.Server

	mu       sync.Mutex
	secrets  map[string]string // by path and query
	public   string            // the app's key; empty where it must not verify
	answer   int
	verified map[string]int
	wrong    []string
}

func newCustomers(t *testing.T) *customers {
	t.Helper()
	c := &customers{secrets: make(map[string]string), verified: make(map[string]int), answer: http.StatusNoContent}
	c.Server = httptest.NewServer(c)
	t.Cleanup(func() { c.CloseClientConnections(); c.Close() })
	return c
}

func (c *customers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	to := r.URL.RequestURI()
	for _, key := range []string{c.secrets[to], c.public} {
		if key == "" && c.secrets[to] != "" {
			continue
		}
		if err := webhook.Verify(body, r.Header, key); err != nil {
			c.wrong = append(c.wrong, fmt.Sprintf("%s: %v", to, err))
		}
	}
	if c.answer < 300 {
		c.verified[to]++
	}
	w.WriteHeader(c.answer)
}

func (c *customers) answers(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = status
}

// has reports whether each of the callback URLs has had a webhook.
func (c *customers) has(urls []string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !slices.ContainsFunc(urls, func(url string) bool { return c.verified[strings.TrimPrefix(url, c.URL)] == 0 })
}

func (c *customers) faults() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wrong
}

// Endpoints that differ in their query alone become one: nothing that is pending, parked or has failed is lost, and each
// receiver verifies with the secret that it had, and by the app's public key, until the secret is rotated.
func TestUpgradeMergesEndpoints(t *testing.T) {
	t.Parallel()
	old := buildVersion(t, endpointByURL)
	n := pick(200, 1000)
	b := newBench(t, memoriestest.Config{})
	b.fast()
	b.database = storetest.EmptyURL(t)
	b.env["DATABASE_URL"] = b.database
	b.env["MEMHOOK_RETRY_SCHEDULE"] = "3s,3s,3s,3s,3s,3s,3s"
	c := newCustomers(t)
	before := b.startBinary(old, "")
	var public struct {
		PublicKey string `json:"public_key"`
	}
	before.call(http.MethodGet, "/v1/public-key", nil, &public)
	c.public = public.PublicKey

	// Of the ten queries of each path, one is delivered, one has failed, one is disabled, and the others are pending.
	of := make([][]string, 10)
	tasks := make([]taskJSON, n)
	for i := range n {
		url := fmt.Sprintf("%s/hook/%d?task=%d", c.URL, i/10, i)
		of[i%10] = append(of[i%10], url)
		id := fmt.Sprint("task-", i)
		b.sim.Add(memoriestest.Task{TaskID: id})
		tasks[i] = before.register(id, map[string]any{"callback_url": url})
		c.mu.Lock()
		c.secrets[strings.TrimPrefix(url, c.URL)] = before.secret(tasks[i])
		c.mu.Unlock()
	}
	make1 := func(k int) {
		for i := k; i < n; i += 10 {
			b.sim.Add(readyAfter(fmt.Sprint("task-", i), 0, fmt.Sprint("PI-", i)))
		}
	}
	deliveries := func(where string) int { return b.query(`select count(*) from deliveries where ` + where) }
	make1(0)
	until(t, time.Minute, "the first have come", func() bool { return c.has(of[0]) && deliveries(`status = 'delivered'`) == n/10 })
	for i := 2; i < n; i += 10 {
		before.call(http.MethodPatch, "/v1/endpoints/"+tasks[i].Subscriptions[0].EndpointID, map[string]any{"enabled": false}, nil)
	}
	c.answers(http.StatusInternalServerError)
	make1(1)
	until(t, time.Minute, "some are retried", func() bool { return deliveries(`status = 'pending' and attempt_count > 0`) == n/10 })
	for k := 2; k < 10; k++ {
		make1(k)
	}
	until(t, time.Minute, "all are on their way", func() bool {
		return deliveries(`true`) == n && deliveries(`parked`) >= n/10
	})
	before.kill()
	b.exec(`update deliveries set status = 'failed', failed = true, next_attempt_at = null where status = 'pending' and endpoint_id in (
		select endpoint_id from subscriptions s join tasks t on t.id = s.task where t.task_id like 'task-%1')`)
	c.answers(http.StatusNoContent)
	t.Logf("before: %d endpoints; %d delivered, %d failed, %d parked, %d pending", b.query(`select count(*) from endpoints where deleted_at is null`),
		deliveries(`status = 'delivered'`), deliveries(`status = 'failed'`), deliveries(`parked`), deliveries(`status = 'pending' and not parked`))

	// Three start at once.
	start := time.Now()
	instances := make([]*instance, 3)
	var wg sync.WaitGroup
	for i := range instances {
		wg.Go(func() { instances[i] = b.start("") })
	}
	wg.Wait()
	in := instances[0]
	t.Logf("three instances were ready after %s", time.Since(start))
	if live := b.query(`select count(*) from endpoints where deleted_at is null`); live != n/10 {
		t.Errorf("%d endpoints after the upgrade, want %d", live, n/10)
	}
	pending := slices.Concat(of[2], of[3], of[4], of[5], of[6], of[7], of[8], of[9])
	until(t, 2*time.Minute, "what was pending or parked has come", func() bool { return c.has(pending) })
	for i := range n / 10 {
		var merged taskJSON
		in.call(http.MethodGet, "/v1/tasks/"+tasks[10*i].ID, nil, &merged)
		var out struct{ Recovered int }
		path := "/v1/endpoints/" + merged.Subscriptions[0].EndpointID + "/recover"
		if status := in.call(http.MethodPost, path, map[string]any{"since": "2026-01-01T00:00:00Z"}, &out); status != http.StatusAccepted {
			t.Fatalf("recover: %d", status)
		}
	}
	until(t, time.Minute, "what had failed has come", func() bool { return c.has(of[1]) })
	until(t, 20*time.Second, "nothing is left", func() bool { return deliveries(`status in ('pending', 'failed')`) == 0 })
	if wrong := c.faults(); len(wrong) > 0 {
		t.Errorf("%d webhooks did not verify: %v", len(wrong), wrong[:min(len(wrong), 5)])
	}

	// A start after the upgrade changes nothing.
	digest := func() (s string) {
		b.scan(&s, `select md5(string_agg(e::text, ' ' order by e.id)) from (select id, url, secret, deleted_at, signatures, enabled from endpoints) e`)
		return s
	}
	was := digest()
	in.terminate(20 * time.Second)
	in = b.start("")
	if digest() != was {
		t.Error("another start has changed the endpoints")
	}

	// A rotation ends the old secrets and the app's key.
	var first taskJSON
	in.call(http.MethodGet, "/v1/tasks/"+tasks[0].ID, nil, &first)
	endpoint := first.Subscriptions[0].EndpointID
	var rotated struct{ Secret string }
	if status := in.call(http.MethodPost, "/v1/endpoints/"+endpoint+"/secret/rotate", map[string]any{"overlap": "0s"}, &rotated); status != http.StatusOK {
		t.Fatalf("rotate: %d", status)
	}
	c.mu.Lock()
	to, formerly := "/hook/0?task=5", c.secrets["/hook/0?task=5"]
	c.secrets[to], c.public, c.verified[to] = rotated.Secret, "", 0
	c.mu.Unlock()
	in.registerAt("after", c.URL+to)
	until(t, 20*time.Second, "it has come", func() bool { return c.has([]string{c.URL + to}) })
	if wrong := c.faults(); len(wrong) > 0 {
		t.Errorf("with the new secret: %v", wrong)
	}
	c.mu.Lock()
	c.secrets[to], c.verified[to] = formerly, 0
	c.mu.Unlock()
	in.registerAt("after that", c.URL+to)
	until(t, 20*time.Second, "it has come", func() bool { return c.has([]string{c.URL + to}) })
	if wrong := c.faults(); len(wrong) != 1 {
		t.Errorf("with the old secret: %v", wrong)
	}
}
