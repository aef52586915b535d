package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/memhook/memhook/api"
)

var update = flag.Bool("update", false, "write what is generated")

//go:generate go test -run TestTheReferenceIsCurrent . -update

// docs/api.md is made from the OpenAPI document, so that it cannot drift.
func TestTheReferenceIsCurrent(t *testing.T) {
	t.Parallel()
	document, err := api.OpenAPI("")
	if err != nil {
		t.Fatal(err)
	}
	want := apiReference(t, document)
	path := repository(t, "docs/api.md")
	have, _ := os.ReadFile(path)
	if string(have) == want {
		return
	}
	if !*update {
		t.Fatal("docs/api.md is behind the API: run make generate")
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

type schemaJSON struct {
	Ref         string `json:"$ref"`
	Type        any    `json:"type"`
	Format      string `json:"format"`
	Description string
	Enum        []any
	Properties  map[string]schemaJSON
	Required    []string
	Items       *schemaJSON
	AnyOf       []schemaJSON `json:"anyOf"`
}

func (s schemaJSON) kind() string {
	if s.Ref != "" {
		name := s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
		return fmt.Sprintf("[%s](#%s)", name, strings.ToLower(name))
	}
	if len(s.AnyOf) > 0 {
		kinds := make([]string, len(s.AnyOf))
		for i, one := range s.AnyOf {
			kinds[i] = one.kind()
		}
		return strings.Join(kinds, " or ")
	}
	if list, ok := s.Type.([]any); ok {
		kinds := make([]string, len(list))
		for i, one := range list {
			kinds[i] = fmt.Sprint(one)
		}
		return strings.Join(kinds, " or ")
	}
	if s.Items != nil {
		return "array of " + s.Items.kind()
	}
	return strings.TrimSpace(fmt.Sprint(cmp.Or(s.Type, any("any"))) + " " + s.Format)
}

func apiReference(t *testing.T, raw []byte) string {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]struct {
			Summary, Description string
			Tags                 []string
			Parameters           []struct{ Name, In, Description string }
			RequestBody          struct {
				Content map[string]struct{ Schema schemaJSON }
			}
			Responses map[string]struct {
				Description string
				Content     map[string]struct{ Schema schemaJSON }
			}
		}
		Components struct{ Schemas map[string]schemaJSON }
		Tags       []struct{ Name string }
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("# The API\n\nMade from the OpenAPI document by `make generate`; a running memhook has it at `/openapi.json` and, readable, at `/docs/`.\n\nErrors are `application/problem+json` with a stable `code`. Every `POST` under `/v1` honours `Idempotency-Key` for 24 hours.\n")
	paths := make([]string, 0, len(doc.Paths))
	operations, written := 0, 0
	for path, methods := range doc.Paths {
		paths = append(paths, path)
		operations += len(methods)
	}
	slices.Sort(paths)
	for _, tag := range doc.Tags {
		fmt.Fprintf(&b, "\n## %s\n", tag.Name)
		for _, path := range paths {
			for _, method := range []string{"get", "post", "patch", "delete"} {
				op, ok := doc.Paths[path][method]
				if !ok || !slices.Contains(op.Tags, tag.Name) {
					continue
				}
				written++
				fmt.Fprintf(&b, "\n### %s %s\n\n%s. %s\n\n", strings.ToUpper(method), path, op.Summary, op.Description)
				for _, p := range op.Parameters {
					if p.In == "query" {
						fmt.Fprintf(&b, "- `?%s` %s\n", p.Name, p.Description)
					}
				}
				if body, ok := op.RequestBody.Content["application/json"]; ok {
					fmt.Fprintf(&b, "- takes %s\n", body.Schema.kind())
				}
				statuses := make([]string, 0, len(op.Responses))
				for status := range op.Responses {
					statuses = append(statuses, status)
				}
				slices.Sort(statuses)
				for _, status := range statuses {
					if status == "default" || status == "500" {
						continue
					}
					kind := ""
					for _, content := range op.Responses[status].Content {
						kind = ", " + content.Schema.kind()
					}
					fmt.Fprintf(&b, "- answers %s%s\n", status, kind)
				}
			}
		}
	}
	if written != operations {
		t.Fatalf("%d of %d operations are written", written, operations)
	}
	b.WriteString("\n## Schemas\n")
	names := make([]string, 0, len(doc.Components.Schemas))
	for name := range doc.Components.Schemas {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		s := doc.Components.Schemas[name]
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n| field | type | |\n| --- | --- | --- |\n", name, s.Description)
		fields := make([]string, 0, len(s.Properties))
		for field := range s.Properties {
			fields = append(fields, field)
		}
		slices.Sort(fields)
		for _, field := range fields {
			p := s.Properties[field]
			what := p.Description
			if len(p.Enum) > 0 {
				values := make([]string, len(p.Enum))
				for i, v := range p.Enum {
					values[i] = fmt.Sprintf("`%v`", v)
				}
				what = strings.TrimSpace(what + " One of " + strings.Join(values, ", ") + ".")
			}
			if slices.Contains(s.Required, field) {
				field = "**" + field + "**"
			}
			fmt.Fprintf(&b, "| %s | %s | %s |\n", field, p.kind(), strings.ReplaceAll(what, "|", "\\|"))
		}
	}
	return b.String()
}
