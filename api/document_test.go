package api

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/memhook/memhook/store"
)

// node is a schema of the document.
type node struct {
	Ref, Description, Format string
	Type                     any
	Properties               map[string]*node
	Items                    *node
	AnyOf, OneOf             []*node
	AdditionalProperties     any
	Examples                 []any
	Enum                     []any
}

type documented struct {
	Servers []struct{ URL string }
	Paths   map[string]map[string]struct {
		OperationID, Description, Summary string
		Parameters                        []struct{ Name, Description string }
		RequestBody                       documentedBody
		Responses                         map[string]documentedBody
	}
	Webhooks map[string]struct {
		Post struct{ RequestBody documentedBody }
	}
	Components struct{ Schemas map[string]*node }
}

type documentedBody struct {
	Content map[string]struct{ Schema *node }
}

func readDocument(t *testing.T) documented {
	t.Helper()
	raw, err := OpenAPI("")
	if err != nil {
		t.Fatal(err)
	}
	raw = []byte(strings.ReplaceAll(string(raw), `"$ref"`, `"ref"`))
	var doc documented
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// walk calls fn for each schema in a schema, by its path. It follows references if doc is not nil.
func (n *node) walk(path string, doc *documented, seen map[*node]bool, fn func(path string, n *node)) {
	if n == nil || seen[n] {
		return
	}
	seen[n] = true
	fn(path, n)
	if n.Ref != "" && doc != nil {
		name := strings.TrimPrefix(n.Ref, schemaPrefix)
		doc.Components.Schemas[name].walk(name, doc, seen, fn)
	}
	for name, p := range n.Properties {
		p.walk(path+"."+name, doc, seen, fn)
	}
	n.Items.walk(path+"[]", doc, seen, fn)
	for _, one := range slices.Concat(n.AnyOf, n.OneOf) {
		one.walk(path, doc, seen, fn)
	}
}

func TestTheDocumentDescribesEveryPropertyAndParameter(t *testing.T) {
	t.Parallel()
	doc := readDocument(t)
	properties := 0
	check := func(path string, n *node) {
		for name, p := range n.Properties {
			if properties++; p.Description == "" {
				t.Errorf("%s.%s has no description", path, name)
			}
		}
	}
	for name, s := range doc.Components.Schemas {
		s.walk(name, nil, map[*node]bool{}, check)
		if strings.HasSuffix(name, "Body") {
			t.Errorf("schema %s: give its type a name", name)
		}
	}
	for path, operations := range doc.Paths {
		for method, op := range operations {
			for _, p := range op.Parameters {
				if p.Description == "" {
					t.Errorf("%s %s: the parameter %s has no description", method, path, p.Name)
				}
			}
			bodies := []documentedBody{op.RequestBody}
			for _, r := range op.Responses {
				bodies = append(bodies, r)
			}
			for _, b := range bodies {
				for _, content := range b.Content {
					if content.Schema.Properties != nil {
						t.Errorf("%s %s: a body without a named schema", method, path)
					}
				}
			}
		}
	}
	if properties < 200 {
		t.Errorf("only %d properties were looked at", properties)
	}
	if len(doc.Servers) == 0 {
		t.Error("the document names no server")
	}
}

func TestTheDocumentSaysWhichIDsAreUUIDs(t *testing.T) {
	t.Parallel()
	doc := readDocument(t)
	// Ids of memories.ai and of requests, of events, and of uploads' own choice.
	others := []string{"task_id", "unique_id", "video_id", "collection_id", "event_id", "request_id"}
	for name, s := range doc.Components.Schemas {
		if s.AdditionalProperties == false || name == "Event" { // requests: what is not a UUID is a problem that names the field
			continue
		}
		s.walk(name, nil, map[*node]bool{}, func(path string, n *node) {
			for field, p := range n.Properties {
				if isID := field == "id" || field == "task" || strings.HasSuffix(field, "_id"); !isID || p.Ref != "" || len(p.AnyOf) > 0 || slices.Contains(others, field) {
					continue
				}
				if p.Format != "uuid" {
					t.Errorf("%s.%s has the format %q", path, field, p.Format)
				}
			}
		})
	}
}

// A client that was made of today's document must bear what tomorrow's answers have beside it, and a request's mistyped
// member must be refused.
func TestAnswersMayGrowAndRequestsAreStrict(t *testing.T) {
	t.Parallel()
	doc := readDocument(t)
	answers, requests := 0, 0
	closed := func(n *node) bool { return n.AdditionalProperties == false }
	answered := func(b documentedBody) {
		for _, content := range b.Content {
			content.Schema.walk("answer", &doc, map[*node]bool{}, func(path string, n *node) {
				if answers++; closed(n) {
					t.Errorf("%s has additionalProperties: false", path)
				}
			})
		}
	}
	for _, operations := range doc.Paths {
		for _, op := range operations {
			for _, r := range op.Responses {
				answered(r)
			}
			for _, content := range op.RequestBody.Content {
				content.Schema.walk("request", &doc, map[*node]bool{}, func(path string, n *node) {
					if n.Properties == nil {
						return
					}
					if requests++; !closed(n) {
						t.Errorf("%s of a request takes any member", path)
					}
				})
			}
		}
	}
	for _, w := range doc.Webhooks {
		answered(w.Post.RequestBody)
	}
	if answers == 0 || requests == 0 {
		t.Errorf("%d schemas of answers and %d of requests were looked at", answers, requests)
	}
}

func TestEveryEventTypeHasANamedWebhook(t *testing.T) {
	t.Parallel()
	doc := readDocument(t)
	for _, eventType := range store.EventTypes {
		content := doc.Webhooks[eventType].Post.RequestBody.Content["application/json"]
		if content.Schema == nil || content.Schema.Ref == "" {
			t.Errorf("%s has no named schema", eventType)
			continue
		}
		s := doc.Components.Schemas[strings.TrimPrefix(content.Schema.Ref, schemaPrefix)]
		if got := s.Properties["type"].Enum; len(got) != 1 || got[0] != eventType {
			t.Errorf("the schema of %s is of the types %v", eventType, got)
		}
	}
	if len(doc.Webhooks) != len(store.EventTypes) || len(doc.Components.Schemas[anyWebhook].OneOf) != len(store.EventTypes) {
		t.Errorf("%d webhooks, of which %s has %d, for %d event types",
			len(doc.Webhooks), anyWebhook, len(doc.Components.Schemas[anyWebhook].OneOf), len(store.EventTypes))
	}
}

// Each code is a constant and stands in codes, which the document lists.
func TestTheDocumentListsEveryCode(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if name := entry.Name(); !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), entry.Name(), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if fn, ok := n.Fun.(*ast.Ident); ok && fn.Name == "problemFor" {
					if lit, ok := n.Args[1].(*ast.BasicLit); ok {
						t.Errorf("%s: problemFor with the literal code %s; make it a constant", entry.Name(), lit.Value)
					}
				}
			case *ast.ValueSpec:
				for i, name := range n.Names {
					if !strings.HasPrefix(name.Name, "code") || i >= len(n.Values) {
						continue
					}
					lit, ok := n.Values[i].(*ast.BasicLit)
					if !ok {
						continue
					}
					if code, _ := strconv.Unquote(lit.Value); !slices.Contains(codes, code) {
						t.Errorf("codes does not have %s", code)
					}
				}
			}
			return true
		})
	}
	description := readDocument(t).Components.Schemas["Problem"].Properties["code"].Description
	for _, code := range codes {
		if !strings.Contains(description, code) {
			t.Errorf("the document does not list %s", code)
		}
	}
}
