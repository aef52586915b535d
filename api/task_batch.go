package api

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/memhook/memhook/store"
)

// maxBatch is the maximum number of registrations in a batch.
const maxBatch = 1000

// NewTasks is a batch of registrations. Each is checked by itself, so they are kept as they came.
type NewTasks struct {
	Tasks []json.RawMessage `json:"tasks"`

	wrong []FieldError // what is wrong with the batch itself
}

// UnmarshalJSON reads a batch. What is wrong with it is kept for the handler, which can name the field.
func (n *NewTasks) UnmarshalJSON(data []byte) error {
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) != nil || fields == nil {
		n.wrong = []FieldError{{fieldBody, `must be an object: {"tasks":[…]}`}}
		return nil //nolint:nilerr // the handler reports it
	}
	for name := range fields {
		if name != "tasks" {
			n.wrong = append(n.wrong, FieldError{name, fieldNames{takes: []string{"tasks"}}.unknown(name)})
		}
	}
	switch list, ok := fields["tasks"]; {
	case !ok:
		n.wrong = append(n.wrong, FieldError{"tasks", "is required: an array of registrations"})
	case json.Unmarshal(list, &n.Tasks) != nil, string(list) == "null":
		n.wrong = append(n.wrong, FieldError{"tasks", "must be an array of registrations"})
	case len(n.Tasks) < 1 || len(n.Tasks) > maxBatch:
		n.wrong = append(n.wrong, FieldError{"tasks", fmt.Sprintf("must have 1 to %d registrations, not %d", maxBatch, len(n.Tasks))})
	}
	return nil
}

// Schema documents the batch, by reference as that of any other body.
func (NewTasks) Schema(r huma.Registry) *huma.Schema {
	const name = "NewTasks"
	least, most := 1, maxBatch
	r.Map()[name] = &huma.Schema{
		Type: huma.TypeObject, Required: []string{"tasks"}, AdditionalProperties: false,
		Properties: map[string]*huma.Schema{"tasks": {
			Type: huma.TypeArray, MinItems: &least, MaxItems: &most, Items: r.Schema(reflect.TypeFor[NewTask](), true, "NewTask"),
			Description: "1 to 1,000 registrations. Each is checked by itself: the valid ones are registered, whatever the others are.",
		}},
	}
	return &huma.Schema{Ref: schemaPrefix + name}
}

// BatchResult is the result of one registration of a batch.
type BatchResult struct {
	Status  int      `json:"status" enum:"200,201,422" doc:"201: registered; 200: it was registered before; 422: problem says what is wrong."`
	Task    *Task    `json:"task,omitempty" doc:"The registered task, unless there is a problem."`
	Problem *Problem `json:"problem,omitempty" doc:"What is wrong with the registration, if something is."`
}

// BatchResults are the results of a batch.
type BatchResults struct {
	Results []BatchResult `json:"results" nullable:"false" doc:"One result for each registration, in the same order."`
}

func (s *server) createTasks(ctx context.Context, in *body[NewTasks]) (*body[BatchResults], error) {
	if in.Body.wrong != nil {
		return nil, invalid(in.Body.wrong...)
	}
	out := &body[BatchResults]{}
	out.Body.Results = make([]BatchResult, len(in.Body.Tasks))
	var (
		valid []store.Registration
		place []int // of each valid one in the results
		who   = callerOf(ctx)
		check = s.newTaskParser()
	)
	for i, raw := range in.Body.Tasks {
		task, problem := check.parse(raw)
		if problem == nil {
			n, err := s.newTask(ctx, who, task)
			if err == nil {
				valid, place = append(valid, n), append(place, i)
				continue
			}
			problem = s.problemOf(ctx, err, "")
		}
		out.Body.Results[i] = BatchResult{Status: problem.Status, Problem: problem}
	}
	if len(valid) == 0 {
		return out, nil
	}
	registered, err := s.store.RegisterTasks(ctx, valid)
	if err != nil {
		return nil, err
	}
	for k, reg := range registered {
		if reg.Full {
			problem := s.problemOf(ctx, store.ErrFull, "")
			out.Body.Results[place[k]] = BatchResult{Status: problem.Status, Problem: problem}
			continue
		}
		task := wireTask(reg.Task)
		out.Body.Results[place[k]] = BatchResult{Status: registeredStatus(reg), Task: &task}
	}
	return out, nil
}

// taskParser reads single registrations and checks them by the schema of create-task.
type taskParser struct {
	registry huma.Registry
	schema   *huma.Schema
	names    fieldNames
	path     *huma.PathBuffer
	result   huma.ValidateResult
}

func (s *server) newTaskParser() *taskParser {
	p := &taskParser{
		registry: s.registry, schema: s.registry.Schema(reflect.TypeFor[NewTask](), true, "NewTask"), path: huma.NewPathBuffer(nil, 0),
	}
	p.names = fieldNames{
		takes:   propertiesOf(s.registry, p.schema),
		answers: propertiesOf(s.registry, s.registry.Schema(reflect.TypeFor[Task](), true, "Task")),
	}
	return p
}

func (p *taskParser) parse(raw []byte) (task NewTask, problem *Problem) {
	var plain any
	if err := json.Unmarshal(raw, &plain); err != nil {
		return task, invalid(FieldError{fieldBody, jsonFault(raw, err).Error()})
	}
	p.path.Reset()
	p.result.Reset()
	huma.Validate(p.registry, p.schema, p.path, huma.ModeWriteToServer, plain, &p.result)
	if len(p.result.Errors) > 0 {
		var wrong []FieldError
		for _, err := range p.result.Errors {
			if d, ok := err.(*huma.ErrorDetail); ok { //nolint:errorlint // huma's own list
				wrong = append(wrong, fieldError(d, p.names))
			}
		}
		return task, invalid(wrong...)
	}
	if err := json.Unmarshal(raw, &task); err != nil {
		return task, invalid(fieldError(&huma.ErrorDetail{Message: jsonFault(raw, err).Error()}, p.names))
	}
	return task, nil
}
