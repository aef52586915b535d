package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/memhook/memhook/api"
)

// broken are the promises of the first version's document that later ones have not kept, with the reason.
var broken = map[string]string{
	"GET /v1/public-key: is gone": "each endpoint has a key of its own, GET /v1/endpoints/{id}/public-key",

	"PATCH /admin/v1/accounts/{id} body.requests_per_second: has the minimum 0.01": tooSlow,
	"POST /admin/v1/accounts body.requests_per_second: has the minimum 0.01":       tooSlow,
	"POST /admin/v1/apps/{id}/keys body.rate_limit: has the minimum 0.01":          tooSlow,
}

const tooSlow = "a rate near 0 was taken, and the interval between two requests overflowed"

// What the first version's document promised, later documents promise too: clients made of it send what is still accepted, and
// get what they can read. Operations, parameters, fields and values may be added; answers may have more members.
func TestTheDocumentKeepsTheFirstVersionsPromises(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/first/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	now, err := api.OpenAPI("now")
	if err != nil {
		t.Fatal(err)
	}
	found := promisesBroken(parsed(t, raw), parsed(t, now))
	for _, what := range found {
		if broken[what] == "" {
			t.Error(what)
		}
	}
	for what := range broken {
		if !slices.Contains(found, what) {
			t.Errorf("%q is kept, and listed as broken", what)
		}
	}
	if len(found) > len(broken) {
		return
	}
	// The comparison itself sees what it is there for.
	for _, change := range []struct{ from, to string }{
		{`"next_attempt_at":{`, `"next_try_at":{`}, {`"waiting","ready",`, `"waiting","done",`}, {`"maxLength":256`, `"maxLength":200`},
		{`"detected_at":{`, `"seen_at":{`}, {`"name":"cursor"`, `"name":"after"`}, {`"/v1/tasks/batch"`, `"/v1/tasks/many"`}, {`"minimum":1,`, `"minimum":2,`},
	} {
		compact, _ := json.Marshal(parsed(t, now))
		changed := strings.ReplaceAll(string(compact), change.from, change.to)
		if changed == string(compact) {
			t.Errorf("the document has no %s", change.from)
		} else if n := len(promisesBroken(parsed(t, raw), parsed(t, []byte(changed)))); n <= len(found) {
			t.Errorf("%s for %s is not seen", change.to, change.from)
		}
	}
}

// node is a part of a document.
type node = map[string]any

func parsed(t *testing.T, raw []byte) (doc node) {
	t.Helper()
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func child(n any, path ...string) node {
	for _, name := range path {
		m, _ := n.(node)
		n = m[name]
	}
	m, _ := n.(node)
	return m
}

// comparison collects in what a document falls behind an older one.
type comparison struct {
	then, now node
	seen      map[string]bool
	found     []string
}

func (c *comparison) sayf(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	if !slices.Contains(c.found, what) {
		c.found = append(c.found, what)
	}
}

func promisesBroken(then, now node) []string {
	c := &comparison{then: then, now: now, seen: make(map[string]bool)}
	for path, methods := range child(then, "paths") {
		for method, op := range child(methods) {
			c.operation(strings.ToUpper(method)+" "+path, child(op), child(now, "paths", path, method))
		}
	}
	for name, methods := range child(then, "webhooks") { // what receivers get
		body := func(n node) node { return child(n, "requestBody", "content", "application/json", "schema") }
		for method, op := range child(methods) {
			data := child(body(child(op)), "properties", "data", "properties")
			if name != "task.updated" { // the first document named what only one type ever had in all of them
				delete(data, "added")
			}
			if name != "task.failed" {
				delete(data, "error")
			}
			c.answer("webhook "+name, body(child(op)), body(child(now, "webhooks", name, method)))
		}
	}
	slices.Sort(c.found)
	return c.found
}

func (c *comparison) operation(name string, then, now node) {
	if now == nil {
		c.sayf("%s: is gone", name)
		return
	}
	parameters := func(op node) map[string]node {
		out := make(map[string]node)
		list, _ := op["parameters"].([]any)
		for _, p := range list {
			out[fmt.Sprint(child(p)["in"], " ", child(p)["name"])] = child(p)
		}
		return out
	}
	before, after := parameters(then), parameters(now)
	for key, p := range before {
		if after[key] == nil {
			c.sayf("%s: the parameter %s is gone", name, key)
			continue
		}
		c.request(name+" "+key, child(p, "schema"), child(after[key], "schema"))
	}
	for key, p := range after {
		if before[key] == nil && p["required"] == true {
			c.sayf("%s: the new parameter %s is required", name, key)
		}
	}
	content := func(n node, name string) node { return child(n, "content", name, "schema") }
	if body := child(then, "requestBody"); body != nil {
		c.request(name+" body", content(body, "application/json"), content(child(now, "requestBody"), "application/json"))
	} else if child(now, "requestBody")["required"] == true {
		c.sayf("%s: a body is required", name)
	}
	for status, answer := range child(then, "responses") {
		again := child(now, "responses", status)
		if again == nil {
			c.sayf("%s: the status %s is gone", name, status)
			continue
		}
		for _, media := range []string{"application/json", "application/problem+json"} {
			if schema := content(child(answer), media); schema != nil {
				c.answer(name+" "+status, schema, content(again, media))
			}
		}
	}
}

// flat resolves a reference, and a choice between one schema and null. It returns which types a schema has; none for any.
func flat(doc, s node) (node, []string) {
	types := func(s node) (out []string) {
		switch v := s["type"].(type) {
		case string:
			return []string{v}
		case []any:
			for _, t := range v {
				out = append(out, fmt.Sprint(t))
			}
		}
		return out
	}
	if ref, ok := s["$ref"].(string); ok {
		return flat(doc, child(doc, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...))
	}
	if choices, ok := s["anyOf"].([]any); ok && len(choices) == 2 && child(choices[1])["type"] == "null" {
		inner, of := flat(doc, child(choices[0]))
		return inner, append(slices.Clone(of), "null")
	}
	return s, types(s)
}

func missing(from, in []string) (out []string) {
	for _, s := range from {
		if !slices.Contains(in, s) {
			out = append(out, s)
		}
	}
	return out
}

func texts(v any) (out []string) {
	list, _ := v.([]any)
	for _, s := range list {
		out = append(out, fmt.Sprint(s))
	}
	return out
}

// answer compares what is answered: clients must find what they were promised, and nothing of another kind.
func (c *comparison) answer(at string, then, now node) {
	then, before := flat(c.then, then)
	now, after := flat(c.now, now)
	if len(before) > 0 && (len(after) == 0 || missing(after, before) != nil) {
		c.sayf("%s: was %v, is %v", at, before, after)
	}
	if enum := texts(then["enum"]); enum != nil {
		if more := missing(texts(now["enum"]), enum); more != nil || now["enum"] == nil {
			c.sayf("%s: may be %v too", at, more)
		}
	}
	if fewer := missing(texts(then["required"]), texts(now["required"])); fewer != nil {
		c.sayf("%s: may lack %v", at, fewer)
	}
	if f := then["format"]; f != nil && f != now["format"] {
		c.sayf("%s: had the format %v", at, f)
	}
	c.deeper(at, then, now, c.answer)
}

// request compares what is accepted: what clients were told that they may send.
func (c *comparison) request(at string, then, now node) {
	then, before := flat(c.then, then)
	now, after := flat(c.now, now)
	if len(after) > 0 && missing(before, after) != nil {
		c.sayf("%s: took %v, takes %v", at, before, after)
	}
	if fewer := missing(texts(then["enum"]), texts(now["enum"])); fewer != nil && now["enum"] != nil {
		c.sayf("%s: does not take %v", at, fewer)
	}
	if more := missing(texts(now["required"]), texts(then["required"])); more != nil {
		c.sayf("%s: requires %v", at, more)
	}
	for _, bound := range []string{"minimum", "minLength", "minItems", "minProperties", "maximum", "maxLength", "maxItems", "maxProperties"} {
		was, had := then[bound].(float64)
		is, has := now[bound].(float64)
		if lower := strings.HasPrefix(bound, "min"); has && (!had && !(lower && is == 0) || had && lower && is > was || had && !lower && is < was) {
			c.sayf("%s: has the %s %v", at, bound, is)
		}
	}
	c.deeper(at, then, now, c.request)
}

func (c *comparison) deeper(at string, then, now node, compare func(string, node, node)) {
	if len(at) > 400 || c.seen[at] {
		return
	}
	c.seen[at] = true
	for name, p := range child(then, "properties") {
		again := child(now, "properties", name)
		if again == nil {
			c.sayf("%s.%s: is gone", at, name)
			continue
		}
		compare(at+"."+name, child(p), again)
	}
	if items := child(then, "items"); items != nil {
		compare(at+"[]", items, child(now, "items"))
	}
	if more := child(then, "additionalProperties"); more != nil {
		compare(at+".*", more, child(now, "additionalProperties"))
	}
}
