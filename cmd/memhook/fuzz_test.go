package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store/storetest"
)

// Random requests, made from the document: never a 5xx, always a problem for a 4xx, and what is refused
// stores nothing.
func TestRandomRequests(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	in := b.start("")
	in.register("task", nil)
	in.admin(http.MethodPost, "/admin/v1/polling/pause", nil, nil)
	operations, schemas := in.document()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	f := &requestFuzzer{rand: rand.New(rand.NewPCG(seed, 1)), schemas: schemas, callback: b.receiver.URL}
	const stored = `select (select count(*) from tasks) + (select count(*) from endpoints) + (select count(*) from apps) + (select count(*) from accounts)
		+ (select count(*) from api_keys) + (select count(*) from subscriptions) + (select count(*) from events) + (select count(*) from deliveries)`
	statuses := make(map[int]int)
	pool := storetest.Pool(t, b.database)
	count := func() (n int) {
		if err := pool.QueryRow(t.Context(), stored).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for range pick(2000, 20_000) {
		op := operations[f.rand.IntN(len(operations))]
		if strings.HasSuffix(op.path, "/polling/resume") {
			continue
		}
		before := count()
		path, body := f.request(op)
		req, err := http.NewRequestWithContext(t.Context(), op.method, in.url+path, bytes.NewReader(body))
		if err != nil {
			continue // not even a request
		}
		token := testAPIKey
		if strings.HasPrefix(op.path, "/admin/") {
			token = testAdminToken
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		if f.rand.IntN(10) == 0 {
			req.Header.Set("Idempotency-Key", strings.Map(func(r rune) rune { return max(r, ' ') }, f.word()))
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v", op.method, path, err)
		}
		answer, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		statuses[resp.StatusCode]++
		if resp.StatusCode >= 500 {
			t.Fatalf("%s %s %s: %d %s", op.method, path, body, resp.StatusCode, answer)
		}
		if resp.StatusCode < 400 {
			continue
		}
		var p problemJSON
		if kind := resp.Header.Get("Content-Type"); kind != "application/problem+json" || json.Unmarshal(answer, &p) != nil || p.Code == "" || p.Status != resp.StatusCode {
			t.Errorf("%s %s %s: %d %s %s", op.method, path, body, resp.StatusCode, kind, answer)
		}
		if count() > before {
			t.Errorf("%s %s %s: refused with %d, and stored something", op.method, path, body, resp.StatusCode)
		}
	}
	t.Logf("answers by status: %v", statuses)
	if strings.Contains(in.log.String(), "panic") {
		t.Error("there was a panic")
	}
}

// requestFuzzer makes requests of a document, most of them nearly right.
type requestFuzzer struct {
	rand     *rand.Rand
	schemas  map[string]any
	callback string
}

func (f *requestFuzzer) request(op operation) (path string, body []byte) {
	path = op.path
	for strings.Contains(path, "{") {
		from, to := strings.IndexByte(path, '{'), strings.IndexByte(path, '}')
		path = path[:from] + url.PathEscape(f.id()) + path[to+1:]
	}
	sep := "?"
	for _, p := range op.query {
		if f.rand.IntN(3) == 0 {
			value := f.word()
			if f.rand.IntN(2) == 0 {
				value = fmt.Sprint(f.value(p.Schema, 0))
			}
			path += sep + p.Name + "=" + url.QueryEscape(value)
			sep = "&"
		}
	}
	if op.body == nil {
		return path, nil
	}
	body, err := json.Marshal(f.value(op.body, 0))
	if err != nil || f.rand.IntN(20) == 0 {
		return path, []byte(f.word() + string(body))
	}
	if f.rand.IntN(20) == 0 {
		return path, body[:f.rand.IntN(len(body))]
	}
	if f.rand.IntN(50) == 0 {
		return path, []byte(strings.Repeat("[", 5000))
	}
	return path, body
}

func (f *requestFuzzer) id() string {
	return []string{"01993c1e-6f3a-7cc0-9d4e-0a4ab7f3c1d2", "evt_01993c1e-6f3a-7cc0-9d4e-0a4ab7f3c1d2", f.word(), "0", strings.Repeat("x", 300)}[f.rand.IntN(5)]
}

func (f *requestFuzzer) word() string {
	words := []string{
		"", "x", "default", "24h", "-1", "9223372036854775808", "null", "\x00", "\u202e", "ünïcödé", "😀", "' or 1=1 --", "../../etc", "<script>", strings.Repeat("a", 300), strings.Repeat("a", 3000),
		f.callback, "https://example.com/", "http://10.0.0.1/", "https://user:pw@example.com", "2026-01-01T00:00:00Z", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=", "a\nb", fmt.Sprint(f.rand.IntN(1000)),
	}
	return words[f.rand.IntN(len(words))]
}

// value makes a value of a schema, now and then one that is not.
func (f *requestFuzzer) value(schema map[string]any, depth int) any {
	if ref, ok := schema["$ref"].(string); ok {
		schema, _ = f.schemas[ref[strings.LastIndexByte(ref, '/')+1:]].(map[string]any)
	}
	if f.rand.IntN(12) == 0 {
		return []any{nil, true, 7, -1.5, f.word(), []any{}, map[string]any{"surprise": 1}, 1e300}[f.rand.IntN(8)]
	}
	kind := schema["type"]
	if list, ok := kind.([]any); ok {
		kind = list[f.rand.IntN(len(list))]
	}
	if enum, ok := schema["enum"].([]any); ok && f.rand.IntN(4) > 0 {
		return enum[f.rand.IntN(len(enum))]
	}
	switch kind {
	case "object":
		out := make(map[string]any)
		properties, _ := schema["properties"].(map[string]any)
		for name, p := range properties {
			if sub, ok := p.(map[string]any); ok && f.rand.IntN(6) > 0 {
				out[name] = f.value(sub, depth+1)
			}
		}
		if more, ok := schema["additionalProperties"].(map[string]any); ok {
			for range f.rand.IntN(4) {
				out[f.word()] = f.value(more, depth+1)
			}
		}
		if f.rand.IntN(15) == 0 {
			out[f.word()] = f.word()
		}
		return out
	case "array":
		items, _ := schema["items"].(map[string]any)
		out := make([]any, f.rand.IntN(4))
		for i := range out {
			out[i] = f.value(items, depth+1)
		}
		return out
	case "integer":
		return []any{0, 1, 50, 500, 501, -1, 1 << 40}[f.rand.IntN(7)]
	case "number":
		return []any{0, 0.5, 1, 100, -1, 1e9}[f.rand.IntN(6)]
	case "boolean":
		return f.rand.IntN(2) == 0
	case "null":
		return nil
	default:
		return f.word()
	}
}
