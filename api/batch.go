package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/memhook/memhook/store"
)

// maxBatch is the most tasks of a batch.
const maxBatch = 1000

// NewTasks is a batch of registrations. Each is checked by itself, so they are kept as they came.
type NewTasks struct {
	Tasks []json.RawMessage `json:"tasks"`
}

// Schema says what the batch holds.
func (NewTasks) Schema(r huma.Registry) *huma.Schema {
	least, most := 1, maxBatch
	return &huma.Schema{
		Type: huma.TypeObject, Required: []string{"tasks"}, AdditionalProperties: false,
		Properties: map[string]*huma.Schema{"tasks": {
			Type: huma.TypeArray, MinItems: &least, MaxItems: &most, Items: r.Schema(reflect.TypeFor[NewTask](), true, "NewTask"),
			Description: "1 to 1,000 registrations. Each is judged by itself: all valid ones are registered.",
		}},
	}
}

// BatchResult is what became of one registration of a batch.
type BatchResult struct {
	Status  int      `json:"status" enum:"200,201,422" doc:"201: registered; 200: it was there already; 422: problem says what is wrong."`
	Task    *Task    `json:"task,omitempty"`
	Problem *Problem `json:"problem,omitempty"`
}

type (
	batchInput  struct{ Body NewTasks }
	batchOutput struct {
		Body struct {
			Results []BatchResult `json:"results" nullable:"false" doc:"One for each registration, in order."`
		}
	}
)

func (s *server) createTasks(ctx context.Context, in *batchInput) (*batchOutput, error) {
	if n := len(in.Body.Tasks); n < 1 || n > maxBatch {
		return nil, s.fail(ctx, invalid(FieldError{"tasks", fmt.Sprintf("must hold 1 to %d registrations", maxBatch)}))
	}
	out := &batchOutput{}
	out.Body.Results = make([]BatchResult, len(in.Body.Tasks))
	var (
		valid []store.Registration
		place []int // of each valid one in the results
		who   = identityOf(ctx)
		judge = s.newJudge()
	)
	for i, raw := range in.Body.Tasks {
		task, problem := judge.parse(raw)
		if problem == nil {
			n, err := s.newTask(ctx, who, task)
			if err == nil {
				valid, place = append(valid, n), append(place, i)
				continue
			}
			problem = s.problemOf(ctx, err)
		}
		out.Body.Results[i] = BatchResult{Status: problem.Status, Problem: problem}
	}
	if len(valid) == 0 {
		return out, nil
	}
	registered, err := s.store.RegisterTasks(ctx, valid)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	for k, reg := range registered {
		task := wireTask(reg.Task)
		out.Body.Results[place[k]] = BatchResult{Status: registeredStatus(reg), Task: &task}
	}
	return out, nil
}

// judge checks single registrations by the schema that the other call is checked by.
type judge struct {
	registry huma.Registry
	schema   *huma.Schema
	path     *huma.PathBuffer
	result   huma.ValidateResult
}

func (s *server) newJudge() *judge {
	return &judge{registry: s.registry, schema: s.registry.Schema(reflect.TypeFor[NewTask](), true, "NewTask"), path: huma.NewPathBuffer(nil, 0)}
}

func (j *judge) parse(raw []byte) (task NewTask, problem *Problem) {
	var plain any
	if err := json.Unmarshal(raw, &plain); err != nil {
		return task, invalid(FieldError{"body", err.Error()})
	}
	j.path.Reset()
	j.result.Reset()
	huma.Validate(j.registry, j.schema, j.path, huma.ModeWriteToServer, plain, &j.result)
	if len(j.result.Errors) > 0 {
		var wrong []FieldError
		for _, err := range j.result.Errors {
			if d, ok := err.(huma.ErrorDetailer); ok { //nolint:errorlint // huma's own list
				wrong = append(wrong, fieldError(d.ErrorDetail().Location, d.ErrorDetail().Message))
			}
		}
		return task, invalid(wrong...)
	}
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(&task); err != nil {
		return task, invalid(FieldError{"body", err.Error()})
	}
	return task, nil
}

func batchOperation(o *huma.Operation) {
	o.OperationID, o.Summary, o.MaxBodyBytes, o.SkipValidateBody = "create-tasks", "Register up to a thousand tasks", maxBody+1, true
	o.Description = "As many single registrations, in one transaction. Each gets its own result, in order."
	o.Errors = []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge}
}
