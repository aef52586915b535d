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
	"github.com/memhook/memhook/webhook"
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
	Info    struct{ Description string }
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

// Bounds that no schema can express stand in the descriptions.
func TestTheDocumentStatesBounds(t *testing.T) {
	t.Parallel()
	doc := readDocument(t)
	for _, c := range []struct {
		schema, property string
		says             []string
	}{
		{"NewTask", "metadata", []string{"1 to 128 bytes", "at most 2,048"}},
		{"NewTask", "callback_url", []string{"at most 2,048 characters", "not ending in /*", "at most 1,000"}},
		{"NewUpload", "metadata", []string{"create-task"}},
		{"NewUpload", "urls", []string{"at most 2,048 characters"}},
		{"NewUpload", "source_url", []string{"at most 2,048 characters"}},
		{"NewEndpoint", "url", []string{"at most 2,048 characters", "without user name, query and fragment"}},
		{"NewEndpoint", "headers", append([]string{"at most 100", "at most 1,024 printable ASCII characters", "webhook-"}, reservedHeaders...)},
		{"EndpointPatch", "headers", []string{"new endpoint"}},
		{"NewAccount", "api_key", []string{"printable ASCII characters without blanks"}},
		{"AccountPatch", "api_key", []string{"printable ASCII characters without blanks"}},
	} {
		s := doc.Components.Schemas[c.schema]
		if s == nil || s.Properties[c.property] == nil {
			t.Errorf("there is no %s.%s", c.schema, c.property)
			continue
		}
		for _, part := range c.says {
			if !strings.Contains(s.Properties[c.property].Description, part) {
				t.Errorf("%s.%s does not say %q: %s", c.schema, c.property, part, s.Properties[c.property].Description)
			}
		}
	}
	hint := doc.Paths["/v1/hints/{token}"]["post"].Description
	for _, part := range []string{"64 KiB", strconv.Itoa(hintRate), strconv.Itoa(hintBurst)} {
		if !strings.Contains(hint, part) {
			t.Errorf("the hint's description does not say %s: %s", part, hint)
		}
	}
	for _, part := range []string{"at most 1 MiB and 20 levels", "at most 8 KiB"} {
		if !strings.Contains(doc.Info.Description, part) {
			t.Errorf("the document does not say %q", part)
		}
	}
	bounds := []int{maxMetadataKey, maxMetadataText, maxHeaderValue, maxUploadURL, webhook.MaxURLLength, maxBody, maxURL, maxDepth}
	if want := []int{128, 2048, 1024, 2048, 2048, 1 << 20, 8 << 10, 20}; !slices.Equal(bounds, want) {
		t.Errorf("the bounds are %v, the document has %v", bounds, want)
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
