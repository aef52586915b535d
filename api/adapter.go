package api

import (
	"context"
	"path"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// body is the input or the output of an operation that has a body and nothing else.
type body[T any] struct{ Body T }

// handler registers a handler of the given operation.
type handler func(s *server, api huma.API, op huma.Operation)

// do is the one adapter between handlers and HTTP: it reads an input's id and page before it calls the handler, which returns
// a plain error, and answers with the error's problem.
func do[I, O any](handle func(context.Context, *I) (*O, error)) handler {
	return func(s *server, api huma.API, op huma.Operation) {
		subject := subjectOf(op.Path)
		huma.Register(api, op, func(ctx context.Context, in *I) (out *O, err error) {
			if err = read(in); err == nil {
				out, err = handle(ctx, in)
			}
			if err != nil {
				return nil, s.problemOf(ctx, err, subject)
			}
			return out, nil
		})
	}
}

// read reads what an input embeds: the id of an [IDInput] and the page of a [PageInput].
func read(in any) error {
	if in, ok := in.(interface{ readID() error }); ok {
		if err := in.readID(); err != nil {
			return err
		}
	}
	if in, ok := in.(interface{ readPage() error }); ok {
		return in.readPage()
	}
	return nil
}

// operator is do for handlers whose store methods take no scope. It answers callers who may not see everything with 401,
// also where the route lacks its middleware.
func operator[I, O any](handle func(context.Context, *I) (*O, error)) handler {
	return do(func(ctx context.Context, in *I) (*O, error) {
		if !scopeOf(ctx).All() {
			return nil, unauthorizedProblem("is missing; " + askForAdminToken)
		}
		return handle(ctx, in)
	})
}

// filterByApp adds the query parameter app_id to a list. The administrator middleware turns it into the scope.
func filterByApp(list handler) handler {
	return func(s *server, api huma.API, op huma.Operation) {
		op.Parameters = append(op.Parameters, &huma.Param{
			Name: queryAppID, In: "query", Schema: &huma.Schema{Type: huma.TypeString}, Description: "Return only what belongs to this app.",
		})
		list(s, api, op)
	}
}

// subjectOf names the entity that the last parameter of a path identifies: "task" for /tasks/{id}/events.
func subjectOf(route string) string {
	end := strings.LastIndex(route, "/{")
	if end < 0 {
		return ""
	}
	name := path.Base(route[:end])
	if stem, ok := strings.CutSuffix(name, "ies"); ok {
		return stem + "y"
	}
	return strings.TrimSuffix(name, "s")
}
