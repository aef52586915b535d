package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
)

// operation is one of the served document's.
type operation struct {
	id, method, path string
	body             map[string]any // the schema of its JSON body; nil for none
	query            []parameter
}

type parameter struct {
	Name, In string
	Schema   map[string]any
}

// document reads the served OpenAPI document.
func (in *instance) document() (operations []operation, schemas map[string]any) {
	in.t.Helper()
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string
			Parameters  []parameter
			RequestBody struct {
				Content map[string]struct{ Schema map[string]any }
			}
		}
		Components struct{ Schemas map[string]any }
	}
	if status := in.callWith("", http.MethodGet, "/openapi.json", nil, &doc); status != http.StatusOK {
		in.t.Fatalf("document: %d", status)
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			o := operation{id: op.OperationID, method: strings.ToUpper(method), path: path, body: op.RequestBody.Content["application/json"].Schema}
			for _, p := range op.Parameters {
				if p.In == "query" {
					o.query = append(o.query, p)
				}
			}
			operations = append(operations, o)
		}
	}
	slices.SortFunc(operations, func(a, b operation) int { return strings.Compare(a.id, b.id) })
	return operations, doc.Components.Schemas
}

// things are one app's, for an operation's path.
type things struct{ task, endpoint, delivery, event string }

func (x things) of(path string) string {
	id := x.task
	switch {
	case strings.Contains(path, "/endpoints/"):
		id = x.endpoint
	case strings.Contains(path, "/deliveries/"):
		id = x.delivery
	case strings.Contains(path, "/events/"):
		id = x.event
	}
	return strings.NewReplacer("{id}", id, "{key_id}", x.task, "{token}", "short").Replace(path)
}

// bodies are what operations need not to be refused for their body.
var bodies = map[string]string{
	"create-task": `{"task_id":"matrix","callback_url":"CALLBACK"}`, "create-tasks": `{"tasks":[{"task_id":"matrix","callback_url":"CALLBACK"}]}`,
	"create-upload":   `{"urls":["https://videos.example/matrix"],"callback_url":"CALLBACK"}`,
	"create-endpoint": `{"url":"CALLBACK/matrix"}`, "update-endpoint": `{}`, "rotate-endpoint-secret": `{"overlap":"1h"}`, "recover-endpoint": `{"since":"2026-01-01T00:00:00Z"}`,
	"admin-recover-endpoint": `{"since":"2026-01-01T00:00:00Z"}`, "admin-create-account": `{"name":"matrix","api_key":"x"}`, "admin-update-account": `{}`,
	"admin-create-app": `{"name":"matrix","account_id":"01993c1e-6f3a-7cc0-9d4e-0a4ab7f3c1d2"}`, "admin-update-app": `{}`, "admin-create-key": `{}`,
	"resend-deliveries": `{"status":"delivered"}`, "admin-resend-deliveries": `{"status":"delivered"}`,
}

// request makes an operation's request and gives the answer without what differs from request to request.
func (in *instance) request(token string, op operation, path string) (status int, body string) {
	in.t.Helper()
	var reader io.Reader
	if b, ok := bodies[op.id]; ok {
		reader = strings.NewReader(strings.ReplaceAll(b, "CALLBACK", in.receiver.URL))
	}
	req, err := http.NewRequestWithContext(in.t.Context(), op.method, in.url+path, reader)
	if err != nil {
		in.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		in.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		in.t.Fatal(err)
	}
	var p map[string]any
	if json.Unmarshal(raw, &p) == nil {
		delete(p, "request_id")
		raw, _ = json.Marshal(p)
	}
	return resp.StatusCode, string(raw)
}

// newApp makes an app with a key and returns both.
func (in *instance) newApp(name string) (id, key, keyID string) {
	in.t.Helper()
	var accounts struct{ Data []struct{ ID string } }
	in.admin(http.MethodGet, "/admin/v1/accounts", nil, &accounts)
	var app, made struct{ ID, Key string }
	if status := in.admin(http.MethodPost, "/admin/v1/apps", map[string]string{"name": name, "account_id": accounts.Data[0].ID}, &app); status != http.StatusCreated {
		in.t.Fatalf("create app: %d", status)
	}
	if status := in.admin(http.MethodPost, "/admin/v1/apps/"+app.ID+"/keys", nil, &made); status != http.StatusCreated || !strings.HasPrefix(made.Key, "mh_") {
		in.t.Fatalf("create key: %d", status)
	}
	return app.ID, made.Key, made.ID
}

// Every operation with every credential: only what is allowed works, and another app's things are as unknown
// as those that do not exist.
func TestOnlyWhatIsAllowedWorks(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	in := b.start("")
	b.sim.Add(readyAfter("task", 0, "PI-1"))
	task := in.register("task", nil)
	b.receiver.await(t, 1, 10*time.Second)
	var deliveries, events struct{ Data []struct{ ID string } }
	in.call(http.MethodGet, "/v1/deliveries", nil, &deliveries)
	in.call(http.MethodGet, "/v1/tasks/"+task.ID+"/events", nil, &events)
	own := things{task.ID, task.Subscriptions[0].EndpointID, deliveries.Data[0].ID, events.Data[0].ID}
	const nothing = "01993c1e-6f3a-7cc0-9d4e-0a4ab7f3c1d2"
	unknown := things{nothing, nothing, nothing, "evt_" + nothing}

	_, other, _ := in.newApp("other")
	app, revoked, keyID := in.newApp("revoked")
	if status := in.callWith(revoked, http.MethodGet, "/v1/tasks", nil, nil); status != http.StatusOK {
		t.Fatalf("before it is revoked: %d", status)
	}
	if status := in.admin(http.MethodDelete, "/admin/v1/apps/"+app+"/keys/"+keyID, nil, nil); status != http.StatusNoContent {
		t.Fatalf("revoke: %d", status)
	}
	time.Sleep(1100 * time.Millisecond) // a revoked key works no longer within a second

	operations, _ := in.document()
	if len(operations) < 50 {
		t.Fatalf("%d operations in the document", len(operations))
	}
	for _, op := range operations {
		path := own.of(op.path)
		if op.id == "search" || op.id == "admin-search" {
			path += "?q=" + own.task
		}
		if op.id == "hint" {
			if status, _ := in.request("", op, path); status != http.StatusNotFound {
				t.Errorf("%s: %d", op.id, status)
			}
			continue
		}
		admin := strings.HasPrefix(op.path, "/admin/")
		refused := map[string]string{"no key": "", "a wrong key": "mh_wrong", "a revoked key": revoked, "the admin token": testAdminToken}
		if admin {
			delete(refused, "the admin token")
			refused["an app's key"] = testAPIKey
		}
		for name, token := range refused {
			if status, body := in.request(token, op, path); status != http.StatusUnauthorized || !strings.Contains(body, `"unauthorized"`) {
				t.Errorf("%s with %s: %d %s", op.id, name, status, body)
			}
		}
		if admin {
			continue
		}
		status, body := in.request(other, op, path)
		if !strings.Contains(op.path, "{id}") {
			if status >= 300 || strings.Contains(body, own.task) || strings.Contains(body, own.delivery) {
				t.Errorf("%s with another app's key: %d %s", op.id, status, body)
			}
			continue
		}
		nobodys, unknownBody := in.request(other, op, unknown.of(op.path))
		if status != http.StatusNotFound || nobodys != status || body != unknownBody {
			t.Errorf("%s: another app's is %d %s, an unknown one %d %s", op.id, status, body, nobodys, unknownBody)
		}
	}
	if n := b.query(`select count(*) from tasks where task_id = 'task' and status = 'ready'`); n != 1 {
		t.Error("the task was changed")
	}
	in.noTimingOracle(other, own, unknown)
}

// noTimingOracle compares how long another app's things and unknown ones take to be refused.
func (in *instance) noTimingOracle(other string, own, unknown things) {
	in.t.Helper()
	median := func(path string) time.Duration {
		took := make([]time.Duration, 200)
		for i := range took {
			start := time.Now()
			in.callWith(other, http.MethodGet, path, nil, nil)
			took[i] = time.Since(start)
		}
		slices.Sort(took)
		return took[len(took)/2]
	}
	theirs, nobodys := median("/v1/tasks/"+own.task), median("/v1/tasks/"+unknown.task)
	in.t.Logf("404 for another app's task after %s, for an unknown one after %s", theirs, nobodys)
	if theirs > 2*nobodys+2*time.Millisecond || nobodys > 2*theirs+2*time.Millisecond {
		in.t.Errorf("404 for another app's task after %s, for an unknown one after %s", theirs, nobodys)
	}
}

func TestARevokedKeyFailsOnAllInstances(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in, other := b.start(""), b.start("")
	app, key, id := in.newApp("app")
	for _, x := range []*instance{in, other} {
		if status := x.callWith(key, http.MethodGet, "/v1/tasks", nil, nil); status != http.StatusOK {
			t.Errorf("before: %d", status)
		}
	}
	in.admin(http.MethodDelete, "/admin/v1/apps/"+app+"/keys/"+id, nil, nil)
	revoked := time.Now()
	for _, x := range []*instance{in, other} {
		until(t, 20*time.Second, "the key fails", func() bool {
			return x.callWith(key, http.MethodGet, "/v1/tasks", nil, nil) == http.StatusUnauthorized
		})
	}
	t.Logf("revoked everywhere %s after the answer", time.Since(revoked))
	if took := time.Since(revoked); took > 1200*time.Millisecond {
		t.Errorf("it worked for %s", took)
	}
}

func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in, second := b.start(""), b.start("")
	const n = 200
	same := func(name, key string) (statuses map[int]int, bodies map[string]int) {
		statuses, bodies = make(map[int]int), make(map[string]int)
		var mu sync.Mutex
		var wg sync.WaitGroup
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: n}}
		for i := range n {
			wg.Go(func() {
				at := []*instance{in, second}[i%2]
				req, _ := http.NewRequest(http.MethodPost, at.url+"/v1/tasks", strings.NewReader(`{"task_id":"`+name+`","callback_url":"`+b.receiver.URL+`"}`))
				req.Header.Set("Authorization", "Bearer "+testAPIKey)
				req.Header.Set("Content-Type", "application/json")
				if key != "" {
					req.Header.Set("Idempotency-Key", key)
				}
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = resp.Body.Close() }()
				raw, _ := io.ReadAll(resp.Body)
				mu.Lock()
				defer mu.Unlock()
				statuses[resp.StatusCode]++
				bodies[string(raw)]++
			})
		}
		wg.Wait()
		return statuses, bodies
	}
	count := func(name string) (tasks, subscriptions int) {
		return b.query(`select count(*) from tasks where task_id = $1`, name), b.query(`select count(*) from subscriptions s join tasks t on t.id = s.task where t.task_id = $1`, name)
	}
	statuses, answers := same("with", "key-1")
	if tasks, subs := count("with"); len(statuses) != 1 || statuses[201] != n || len(answers) != 1 || tasks != 1 || subs != 1 {
		t.Errorf("with a key: %v, %d different answers, %d tasks, %d subscriptions", statuses, len(answers), tasks, subs)
	}
	statuses, _ = same("without", "")
	if tasks, subs := count("without"); statuses[201] != 1 || statuses[200] != n-1 || tasks != 1 || subs != 1 {
		t.Errorf("without a key: %v, %d tasks, %d subscriptions", statuses, tasks, subs)
	}
	var p problemJSON
	req := map[string]string{"task_id": "other", "callback_url": b.receiver.URL}
	raw, _ := json.Marshal(req)
	other, _ := http.NewRequest(http.MethodPost, in.url+"/v1/tasks", bytes.NewReader(raw))
	other.Header.Set("Authorization", "Bearer "+testAPIKey)
	other.Header.Set("Content-Type", "application/json")
	other.Header.Set("Idempotency-Key", "key-1")
	resp, err := http.DefaultClient.Do(other)
	if err != nil {
		t.Fatal(err)
	}
	_ = json.NewDecoder(resp.Body).Decode(&p)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusUnprocessableEntity || p.Code != "idempotency-key-reused" {
		t.Errorf("another body: %d %+v", resp.StatusCode, p)
	}
	// Another app may use the same key; a claim whose instance was killed is taken over.
	_, key, _ := in.newApp("app")
	if status := in.callWith(key, http.MethodPost, "/v1/tasks", req, nil); status != http.StatusCreated {
		t.Errorf("another app: %d", status)
	}
}

// Walking a list by cursor while others insert: nothing that was there is missed or shown twice.
func TestCursorsAreStableUnderInserts(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in := b.start("")
	batch := func(name string, n int) {
		for from := 0; from < n; from += 1000 {
			tasks := make([]map[string]string, min(1000, n-from))
			for i := range tasks {
				tasks[i] = map[string]string{"task_id": fmt.Sprintf("%s-%d", name, from+i), "callback_url": b.receiver.URL}
			}
			var out struct{ Results []struct{ Status int } }
			if status := in.call(http.MethodPost, "/v1/tasks/batch", map[string]any{"tasks": tasks}, &out); status != http.StatusOK || len(out.Results) != len(tasks) || out.Results[0].Status != http.StatusCreated {
				t.Errorf("batch: %d", status)
			}
		}
	}
	const before = 2000
	batch("before", before)
	var wg sync.WaitGroup
	wg.Go(func() { batch("during", pick(3000, 10_000)) })
	seen := make(map[string]int)
	pages := 0
	for cursor := ""; ; pages++ {
		var page struct {
			Data       []taskJSON
			NextCursor *string `json:"next_cursor"`
		}
		if status := in.call(http.MethodGet, "/v1/tasks?limit=50&cursor="+cursor, nil, &page); status != http.StatusOK {
			t.Fatalf("page: %d", status)
		}
		for _, task := range page.Data {
			seen[task.TaskID]++
		}
		if page.NextCursor == nil {
			break
		}
		cursor = *page.NextCursor
	}
	wg.Wait()
	for i := range before {
		if n := seen[fmt.Sprintf("before-%d", i)]; n != 1 {
			t.Fatalf("before-%d was shown %d times", i, n)
		}
	}
	t.Logf("%d pages, %d of those inserted meanwhile seen", pages, len(seen)-before)
}

// At a million tasks every list answers from an index.
func TestListsUseIndexes(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in := b.start("", "--role", "api")
	in.register("first", map[string]any{"unique_id": "mine"})
	_, other, _ := in.newApp("other")
	n := pick(60_000, 1_000_000)
	b.seedTasks(n)
	// A connection tells what it has scanned when it ends, and before that when it sees fit.
	scans := func() int {
		in.terminate(30 * time.Second)
		until(t, 30*time.Second, "the instance's connections have ended", func() bool {
			return b.query(`select count(*)::int from pg_stat_activity where datname = current_database() and application_name like 'memhook%'`) == 0
		})
		return b.query(`select seq_scan::int from pg_stat_user_tables where relname = 'tasks'`)
	}
	before := scans()
	in = b.start("", "--role", "api") // without workers: they count all tasks now and then
	lists := []string{
		"", "?status=waiting", "?status=ready", "?status=failed", "?status=cancelled", "?task_id=first", "?unique_id=mine", "?unique_id=default&status=expired",
	}
	for _, query := range lists {
		for name, get := range map[string]func() int{
			"/v1/tasks" + query:            func() int { return in.call(http.MethodGet, "/v1/tasks"+query, nil, nil) },
			"/v1/tasks of another" + query: func() int { return in.callWith(other, http.MethodGet, "/v1/tasks"+query, nil, nil) },
			"/admin/v1/tasks" + query:      func() int { return in.admin(http.MethodGet, "/admin/v1/tasks"+query, nil, nil) },
		} {
			took := make([]time.Duration, 20)
			for i := range took {
				start := time.Now()
				if status := get(); status != http.StatusOK {
					t.Fatalf("%s: %d", name, status)
				}
				took[i] = time.Since(start)
			}
			slices.Sort(took)
			t.Logf("%-50s median %s, worst %s", name, took[len(took)/2], took[len(took)-1])
			if most := pick(200*time.Millisecond, 20*time.Millisecond); took[len(took)/2] > most {
				t.Errorf("%s: a page takes %s at %d tasks", name, took[len(took)/2], n)
			}
		}
	}
	if after := scans(); after != before {
		t.Errorf("%d sequential scans", after-before)
	}
}

// seedTasks puts n finished tasks of the app `default` into the database, of all kinds.
func (b *bench) seedTasks(n int) {
	b.t.Helper()
	b.query(`
		with made as (
			insert into tasks (id, app_id, account_id, task_id, unique_id, polling, status, urgent, closed, created_at, expires_at)
			select (lpad(to_hex((extract(epoch from now()) * 1000)::bigint - 1000000 - i), 12, '0') || '7000' || right(md5(i::text), 16))::uuid,
				a.id, a.account_id, 'seeded-' || i, 'default', false, case i % 100 when 0 then 'failed' when 1 then 'expired' else 'ready' end,
				false, case when i % 100 < 2 then i else 0 end, now(), now()
			from apps a, generate_series(1, $1::int) i
			where a.name = 'default'
			returning 1
		)
		select count(*)::int from made`, n)
	b.exec(`vacuum analyze`)
}

// Clients that send a byte a second hold nobody up.
func TestSlowClientsHoldNobodyUp(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in := b.start("")
	var stop atomic.Bool
	var wg sync.WaitGroup
	addr := strings.TrimPrefix(in.url, "http://")
	var open atomic.Int64
	for i := range 500 {
		wg.Go(func() {
			request := "POST /v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + testAPIKey + "\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
			if i%2 == 0 {
				request = request[:20] // slow in its headers
			}
			for !stop.Load() {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					continue
				}
				open.Add(1)
				_, _ = conn.Write([]byte(request))
				for !stop.Load() {
					if _, err := conn.Write([]byte("x")); err != nil {
						break
					}
					time.Sleep(time.Second)
				}
				_ = conn.Close()
			}
		})
	}
	until(t, 20*time.Second, "they are there", func() bool { return open.Load() >= 500 })
	var took []time.Duration
	for i := range 300 {
		start := time.Now()
		in.register(fmt.Sprintf("task-%d", i), nil)
		took = append(took, time.Since(start))
		time.Sleep(10 * time.Millisecond)
	}
	stop.Store(true)
	slices.Sort(took)
	t.Logf("p50 %s, p99 %s", took[150], took[297])
	if most := pick(time.Second, 100*time.Millisecond); took[297] > most {
		t.Errorf("p99 %s beside 500 slow clients", took[297])
	}
	wg.Wait()
}
