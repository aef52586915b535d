package memoriestest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// operation answers a poll of the second generation. The task's first list that is not empty is the
// operation's success, and its first video the resource.
func (s *Server) operation(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("operation")
	p := s.poll(r, id, true)
	switch {
	case p.exceeds:
		refuse(w, http.StatusTooManyRequests, "rate_limited", "too many requests", 1)
	case p.bearer:
		refuse(w, http.StatusUnauthorized, "unauthorized", "send the API key as Authorization: Bearer <key>", 0)
	case p.refusal != "":
		refuseAs(w, p.refusal)
	case p.broken:
		p.fault.answerOperation(w, r, id)
	case p.task == nil:
		refuse(w, http.StatusNotFound, "not_found", "no such operation", 0)
	default:
		answerJSON(w, http.StatusOK, p.task.operation(p.list, p.age))
	}
}

// operation is the state of an operation whose list is what it is at an age.
func (t *Task) operation(list []Video, age time.Duration) map[string]any {
	o := map[string]any{
		"operation": t.TaskID, "kind": "video.ingest", "done": len(list) > 0, "cancelled": false, "resource": nil, "error": nil,
	}
	percent := 0
	if len(list) > 0 {
		percent = 100
		if o["resource"] = list[0].ID; t.Shape == ShapePath {
			o["resource"] = "videos/" + list[0].ID
		}
	} else if total := t.firstVideo(); total > 0 {
		percent = int(min(99, 100*age/total))
	}
	if e := t.End; e != nil && age >= time.Duration(e.AfterMS)*time.Millisecond {
		o["done"] = true
		if !e.Partial {
			o["resource"] = nil
		}
		switch {
		case e.Cancelled:
			o["cancelled"] = true
		case e.Code != "":
			o["error"] = map[string]any{"code": e.Code, "message": e.Message}
		default:
			o["error"] = e.Message
		}
	}
	o["progress"] = map[string]any{
		"preprocess": min(100, 3*percent), "index": max(0, min(100, 3*percent-100)), "derive": max(0, 3*percent-200), "percent": percent,
	}
	return o
}

// firstVideo is the age at which the first video is there; 0 where that is at once or never.
func (t *Task) firstVideo() time.Duration {
	for _, step := range t.Steps {
		if len(step.Videos) > 0 {
			return time.Duration(step.AfterMS) * time.Millisecond
		}
	}
	return 0
}

// refuseAs answers one of v1's codes in the Datalake's format.
func refuseAs(w http.ResponseWriter, code string) {
	status, word := http.StatusBadRequest, "invalid_argument"
	switch code {
	case "0401":
		status, word = http.StatusUnauthorized, "unauthorized"
	case "0402":
		status, word = http.StatusPaymentRequired, "insufficient_balance"
	case "0403", "9009":
		status, word = http.StatusForbidden, "permission_denied"
	case "0003":
		status, word = http.StatusNotFound, "not_found"
	case "0409":
		status, word = http.StatusConflict, "conflict"
	}
	refuse(w, status, word, refusals[code], 0)
}

// refuse answers with the Datalake's error object, and retryAfter seconds both ways where it is not 0.
func refuse(w http.ResponseWriter, status int, code, message string, retryAfter int) {
	if retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	refuseInBody(w, status, code, message, retryAfter)
}

func refuseInBody(w http.ResponseWriter, status int, code, message string, retryAfter int) {
	e := map[string]any{"code": code, "message": message, "request_id": "req-1", "retry_after": nil}
	if retryAfter > 0 {
		e["retry_after"] = retryAfter
	}
	w.Header().Set("X-Request-ID", "req-1")
	answerJSON(w, status, map[string]any{"error": e})
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
