package memories

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/memhook/memhook/internal/outbound"
)

// datalake is the second generation: a task is an operation about one video, and errors are HTTP statuses
// with a JSON object.
type datalake struct {
	wire *wire
	// bearer holds the keys that the service wants as "Bearer <key>". Most accounts send the bare key; a 401
	// that asks for Bearer changes that for the next request. There is no retry within a call, since each
	// request costs a slot of the account's budget.
	bearer sync.Map
}

const (
	datalakeOperations = "/serve/datalake/v1/operations/"
	datalakeVideos     = "/serve/datalake/v1/videos"
)

func (d *datalake) authorization(key string) string {
	if _, asked := d.bearer.Load(key); asked {
		return "Bearer " + key
	}
	return key
}

func (d *datalake) taskStatus(ctx context.Context, key, taskID, _ string) Status {
	id := operationID(taskID)
	if id == "" || id == "." || id == ".." { // a path cannot name it
		return Status{Outcome: TaskRefused, Code: "invalid_operation", Message: "this is not the id of an operation"}
	}
	authorization := d.authorization(key)
	a := d.wire.get(ctx, datalakeOperations+url.PathEscape(id), authorization)
	if !a.ok() || a.err != nil {
		return d.refusal(a, key, authorization)
	}
	return readOperation(a, id)
}

type operation struct {
	Operation text            `json:"operation"`
	Done      loose           `json:"done"`
	Cancelled loose           `json:"cancelled"`
	Resource  loose           `json:"resource"`
	VideoID   loose           `json:"video_id"`
	Progress  json.RawMessage `json:"progress"`
	Error     json.RawMessage `json:"error"`
}

// readOperation classifies a successful answer about an operation. An error is failure, also of an
// operation that is done (some of its work failed). Progress is only for display.
func readOperation(a answer, id string) Status {
	s := a.plain()
	var o operation
	if err := decode(a.body, &o); err != nil {
		return s.malformed("%s", err)
	}
	if o.Done != "true" && o.Done != "false" {
		return s.malformed("the answer does not say whether the operation is done")
	}
	if o.Operation != "" && operationID(string(o.Operation)) != id {
		s.Outcome, s.Message = ForeignTask, "the answer is about another operation"
		return s
	}
	s.Message, s.Progress = "", readProgress(o.Progress)
	f, failed := readFault(o.Error)
	switch {
	case failed:
		s.Outcome = Failed
		return s.saying(cmp.Or(f.code, "failed"), cmp.Or(f.message, "the operation failed"))
	case o.Cancelled == "true":
		s.Outcome = Failed
		return s.saying("cancelled", "the operation was cancelled")
	case o.Done == "true":
		video := cmp.Or(lastSegment(o.Resource.told()), o.VideoID.told())
		if !validID(video) {
			return s.malformed("the operation is done but names no video: %.40q", video)
		}
		s.Done, s.Videos = true, []Video{{ID: video, Status: VideoParsed}}
	}
	s.Outcome = Listed
	return s
}

// operationID returns an operation's id, also of a path such as operations/ID.
func operationID(name string) string {
	const collection = "operations/"
	if i := strings.LastIndex(name, collection); i >= 0 {
		return name[i+len(collection):]
	}
	return name
}

// lastSegment returns the id of a resource's name: the name itself, or what a path ends in.
func lastSegment(name string) string {
	name, _, _ = strings.Cut(name, "?")
	name = strings.TrimRight(name, "/")
	return name[strings.LastIndexByte(name, '/')+1:]
}

func readProgress(raw json.RawMessage) *Progress {
	var told map[string]json.RawMessage
	if json.Unmarshal(raw, &told) != nil || len(told) == 0 {
		return nil
	}
	var p Progress
	for _, name := range slices.Sorted(maps.Keys(told)) {
		var v loose
		value := told[name]
		if v.UnmarshalJSON(value) != nil {
			continue
		}
		if name == "percent" {
			p.Percent = v.number(100)
			continue
		}
		said := v.told()
		if value[0] == '{' || value[0] == '[' {
			said = string(value)
		}
		if said != "" && len(p.Stages) < maxStages && len(name) <= maxWord && printable(name) {
			if p.Stages == nil {
				p.Stages = make(map[string]string)
			}
			p.Stages[name] = cut(said, maxWord)
		}
	}
	return &p
}

// fault is the error object of an operation or of a refused request.
type fault struct {
	code, message, requestID string
	retryAfter               time.Duration
}

// readFault reads an error that is an object, a string, or a list of them. It reports whether there is one.
func readFault(raw json.RawMessage) (fault, bool) {
	if len(raw) == 0 {
		return fault{}, false
	}
	switch raw[0] {
	case '[':
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) != nil || len(list) == 0 {
			return fault{}, false
		}
		return readFault(list[0])
	case '{':
		var o struct {
			Code       loose `json:"code"`
			Message    loose `json:"message"`
			RequestID  loose `json:"request_id"`
			RetryAfter loose `json:"retry_after"`
		}
		if json.Unmarshal(raw, &o) != nil {
			return fault{}, false
		}
		f := fault{code: o.Code.cut(maxWord), message: o.Message.cut(maxMessageLen), requestID: o.RequestID.whole(maxWord)}
		if n := o.RetryAfter.number(1e12); n != nil {
			f.retryAfter = outbound.Seconds(*n, maxRetryAfter)
		}
		return f, true
	}
	var said loose
	if said.UnmarshalJSON(raw) != nil || said.told() == "" || said == "false" {
		return fault{}, false
	}
	return fault{message: said.cut(maxMessageLen)}, true
}

// refusal classifies an answer that is not a success.
func (d *datalake) refusal(a answer, key, authorization string) Status {
	s := a.plain()
	f, told := datalakeFault(a.body)
	if told {
		if f.requestID != "" {
			f.message = cmp.Or(f.message, s.Message) + " (request " + f.requestID + ")"
		}
		s = s.saying(f.code, f.message)
		s.RetryAfter = max(s.RetryAfter, f.retryAfter)
	}
	switch {
	case a.status == http.StatusUnauthorized:
		asks := strings.Contains(strings.ToLower(a.scheme+string(a.body)), "bearer")
		if authorization != key {
			d.bearer.Delete(key) // the next request tries the bare key again
		} else if asks {
			d.bearer.Store(key, true)
			s.Outcome = AskAgain
		}
	case !told || a.status/100 != 4: // a proxy in front of the service answers in its own format
	case a.status == http.StatusForbidden:
		s.Outcome = AccountRefused
	case a.status == http.StatusConflict && strings.Contains(f.code, "not_ready"):
		s.Outcome = Listed
	case a.status == http.StatusBadRequest && strings.Contains(strings.ToLower(f.code+f.message), "deprecated"):
		s.Outcome = Unavailable // the endpoint is gone: no fault of the task
	case s.Outcome == Unavailable && a.status != http.StatusRequestTimeout && a.status != http.StatusTooEarly:
		s.Outcome = TaskRefused
	}
	return s
}

// datalakeFault reads the error object of a refused request. An error that is a string is not the
// service's form: gateways answer that to any path that they do not know.
func datalakeFault(body []byte) (fault, bool) {
	var o struct {
		Error json.RawMessage `json:"error"`
	}
	if decode(body, &o) != nil || len(o.Error) == 0 || o.Error[0] != '{' {
		return fault{}, false
	}
	return readFault(o.Error)
}

func (d *datalake) submit(ctx context.Context, key string, sub Submission) Receipt {
	body, err := json.Marshal(struct {
		CollectionID   string `json:"collection_id,omitempty"`
		SourceURL      string `json:"source_url"`
		IdempotencyKey string `json:"idempotency_key,omitempty"`
	}{sub.CollectionID, sub.SourceURL, sub.IdempotencyKey})
	if err != nil {
		return Receipt{Outcome: NotSent, Message: err.Error()}
	}
	authorization := d.authorization(key)
	a := d.wire.post(ctx, datalakeVideos, authorization, body)
	if !a.ok() || a.err != nil {
		return a.receipt(d.refusal(a, key, authorization))
	}
	var taken struct {
		Operation text `json:"operation"`
	}
	s := a.plain()
	if err := decode(a.body, &taken); err != nil {
		return a.receipt(s.malformed("%s", err))
	}
	id := operationID(string(taken.Operation))
	if !validID(id) {
		return a.receipt(s.malformed("the answer names no operation"))
	}
	return Receipt{Outcome: Accepted, TaskID: id, HTTPStatus: a.status}
}
