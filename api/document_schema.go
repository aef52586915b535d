package api

import (
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// schemaPrefix is what references to schemas begin with.
const schemaPrefix = "#/components/schemas/"

// schemaName names the schema of a type. That of a List[Task] is TaskList.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	if of, ok := strings.CutPrefix(name, "List"); ok && of != "" {
		return of + "List"
	}
	return name
}

// documentedUUID is a UUID as the document shows it.
type documentedUUID struct{}

// Schema is that of a string.
func (documentedUUID) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "uuid"}
}

// TransformSchema lists the codes. Clients must bear new ones, so it is no enum.
func (*Problem) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	code := s.Properties["code"]
	code.Description += " One of " + strings.Join(codes, ", ") + "; more may be added."
	code.Extensions = map[string]any{"x-extensible-enum": codes}
	return s
}

// TransformSchema documents what the payload is.
func (Event) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Properties["payload"] = &huma.Schema{Ref: schemaPrefix + anyWebhook, Description: s.Properties["payload"].Description}
	return s
}

// openAnswers lets answers and webhooks have members that the document does not name, as the next version may have. A
// request's unknown members are refused: they are mistakes.
func openAnswers(doc *huma.OpenAPI) {
	asked := make(map[*huma.Schema]bool)
	each := func(s *huma.Schema, fn func(*huma.Schema) bool) { walkSchema(doc.Components.Schemas, s, fn) }
	for _, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op == nil || op.RequestBody == nil {
				continue
			}
			for _, content := range op.RequestBody.Content {
				each(content.Schema, func(s *huma.Schema) bool {
					seen := asked[s]
					asked[s] = true
					return !seen
				})
			}
		}
	}
	for _, s := range doc.Components.Schemas.Map() {
		if closed, ok := s.AdditionalProperties.(bool); ok && !closed && !asked[s] {
			s.AdditionalProperties = nil
		}
	}
}

// walkSchema calls fn for a schema and all that it consists of, as long as fn returns true.
func walkSchema(r huma.Registry, s *huma.Schema, fn func(*huma.Schema) bool) {
	if s == nil {
		return
	}
	if s.Ref != "" {
		s = r.SchemaFromRef(s.Ref)
	}
	if !fn(s) {
		return
	}
	for _, p := range s.Properties {
		walkSchema(r, p, fn)
	}
	walkSchema(r, s.Items, fn)
	for _, list := range [][]*huma.Schema{s.AllOf, s.AnyOf, s.OneOf} {
		for _, one := range list {
			walkSchema(r, one, fn)
		}
	}
	if more, ok := s.AdditionalProperties.(*huma.Schema); ok {
		walkSchema(r, more, fn)
	}
}
