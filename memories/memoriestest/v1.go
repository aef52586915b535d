package memoriestest

import (
	"cmp"
	"encoding/json"
	"net/http"
	"time"
)

// status answers a poll of the first generation.
func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("task_id")
	p := s.poll(r, id, false)
	switch {
	case p.exceeds:
		envelope(w, http.StatusOK, "0429", "Request has exceeded the limit.", nil)
	case p.refusal != "":
		envelope(w, http.StatusOK, p.refusal, refusals[p.refusal], nil)
	case p.broken:
		p.fault.answer(w, r, id)
	case p.task == nil:
		envelope(w, http.StatusOK, "0003", "task not found", nil)
	default:
		envelope(w, http.StatusOK, "0000", "success", p.task.data(p.list))
	}
}

// polled is what a poll meets.
type polled struct {
	request
	task   *Task
	list   []Video
	age    time.Duration // since the task's upload
	at     time.Time     // when the service looks at the task, by its own clock
	fault  Fault
	broken bool
}

// poll counts a poll and looks at its task.
func (s *Server) poll(r *http.Request, id string, datalake bool) polled {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := polled{request: s.begin(r, datalake, false, now), at: now.Add(s.jumped)}
	if stalled := time.Until(s.stalled); stalled > 0 {
		s.mu.Unlock()
		select {
		case <-time.After(stalled):
		case <-r.Context().Done():
		}
		s.mu.Lock()
	}
	if p.exceeds || p.refusal != "" || p.bearer {
		return p
	}
	t := s.find(id, now)
	p.fault, p.broken = s.nextFault(t)
	if t == nil {
		return p
	}
	t.polls = append(t.polls, now)
	script := t.Task
	p.task, p.age, p.list, p.refusal = &script, p.at.Sub(t.uploaded), t.list(p.at), t.Refusal
	return p
}

// list is what the task's list holds at a time.
func (t *task) list(now time.Time) (list []Video) {
	for _, step := range t.Steps {
		if now.Sub(t.uploaded) >= time.Duration(step.AfterMS)*time.Millisecond {
			list = step.Videos
		}
	}
	return list
}

// data is the envelope's data for a list.
func (t *Task) data(list []Video) any {
	if len(list) == 0 && t.Empty == "null" {
		return nil
	}
	data := map[string]any{}
	if len(list) == 0 && t.Empty == "object" {
		return data
	}
	data["taskId"] = t.TaskID
	ids, videos := make([]string, len(list)), make([]map[string]any, len(list))
	for i, v := range list {
		ids[i] = v.ID
		videos[i] = map[string]any{
			"video_no": v.ID, "status": cmp.Or(v.Status, "UNPARSE"), "video_name": cmp.Or(v.Name, "video "+v.ID),
			"duration": cmp.Or(v.Duration, "12"), "cause": cmp.Or(v.Cause, "null"),
		}
		if v.URL != "" {
			videos[i]["video_url"] = v.URL
		}
	}
	if t.Shape != ShapeVideos {
		data["video_ids"] = ids
	}
	if t.Shape == ShapeVideos || t.Shape == ShapeBoth {
		data["videos"] = videos
	}
	return data
}

func envelope(w http.ResponseWriter, httpStatus int, code, msg string, data any) {
	ok := code == "0000"
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(httpStatus)
	_ = json.NewEncoder(w).Encode(map[string]any{"code": code, "msg": msg, "data": data, "failed": !ok, "success": ok})
}
