package memoriestest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"time"
)

// control adds the control API: scripts in, observations out.
//
//	POST /control/tasks     a Task, or a list of them
//	GET  /control/tasks     every task's Life
//	GET  /control/tasks/ID  one task's Life
//	POST /control/faults    a list of Fault, for the whole service's polls
//	POST /control/upload_faults  a list of Fault, for its uploads
//	GET  /control/uploads   every Upload
//	POST /control/accounts  an Account
//	POST /control/clock     {"jump_ms"}
//	POST /control/stall     {"for_ms"}
//	GET  /control/stats     Stats
func (s *Server) control() {
	s.mux.HandleFunc("POST /control/tasks", func(w http.ResponseWriter, r *http.Request) {
		var raw json.RawMessage
		var tasks []Task
		if !read(w, r, &raw) {
			return
		}
		if err := json.Unmarshal(raw, &tasks); err != nil {
			tasks = make([]Task, 1)
			if err := json.Unmarshal(raw, &tasks[0]); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		for _, t := range tasks {
			s.Add(t)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	s.mux.HandleFunc("GET /control/tasks", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		lives := make([]Life, 0, len(s.tasks))
		for _, t := range s.tasks {
			lives = append(lives, t.life())
		}
		s.mu.Unlock()
		answerJSON(w, http.StatusOK, lives)
	})
	s.mux.HandleFunc("GET /control/tasks/{id}", func(w http.ResponseWriter, r *http.Request) {
		life, ok := s.Life(r.PathValue("id"))
		if !ok {
			http.NotFound(w, r)
			return
		}
		answerJSON(w, http.StatusOK, life)
	})
	s.mux.HandleFunc("POST /control/faults", func(w http.ResponseWriter, r *http.Request) {
		var faults []Fault
		if read(w, r, &faults) {
			s.Break(faults...)
			w.WriteHeader(http.StatusNoContent)
		}
	})
	s.mux.HandleFunc("POST /control/upload_faults", func(w http.ResponseWriter, r *http.Request) {
		var faults []Fault
		if read(w, r, &faults) {
			s.BreakUploads(faults...)
			w.WriteHeader(http.StatusNoContent)
		}
	})
	s.mux.HandleFunc("GET /control/uploads", func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, http.StatusOK, s.Uploads()) })
	s.mux.HandleFunc("POST /control/accounts", func(w http.ResponseWriter, r *http.Request) {
		var a Account
		if read(w, r, &a) {
			s.Set(a)
			w.WriteHeader(http.StatusNoContent)
		}
	})
	s.mux.HandleFunc("POST /control/clock", func(w http.ResponseWriter, r *http.Request) {
		var c struct {
			JumpMS int64 `json:"jump_ms"`
		}
		if read(w, r, &c) {
			s.Jump(time.Duration(c.JumpMS) * time.Millisecond)
			w.WriteHeader(http.StatusNoContent)
		}
	})
	s.mux.HandleFunc("POST /control/stall", func(w http.ResponseWriter, r *http.Request) {
		var c struct {
			ForMS int64 `json:"for_ms"`
		}
		if read(w, r, &c) {
			s.Stall(time.Duration(c.ForMS) * time.Millisecond)
			w.WriteHeader(http.StatusNoContent)
		}
	})
	s.mux.HandleFunc("GET /control/stats", func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, http.StatusOK, s.Stats()) })
}

func read(w http.ResponseWriter, r *http.Request, into any) bool {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

// scheduleCallbacks posts memories.ai's own news of a task: that it was downloaded, then that each
// video was indexed. Once each, unsigned, never retried.
func (s *Server) scheduleCallbacks(t *task) {
	for _, step := range t.Steps {
		if len(step.Videos) == 0 {
			continue
		}
		var bodies []map[string]string
		for _, v := range step.Videos {
			body := map[string]string{"videoId": v.ID, "message": "Video indexing succeed", "taskId": t.TaskID, "status": "INDEXING_SUCCEEDED"}
			if t.HintVideos {
				body = map[string]string{"videoNo": v.ID, "status": "PARSE"}
			}
			bodies = append(bodies, body)
		}
		if !t.HintVideos {
			bodies = slices.Insert(bodies, 0, map[string]string{"message": "Download succeeded", "taskId": t.TaskID, "status": "SUCCEEDED"})
		}
		s.calls.Add(1)
		s.timers = append(s.timers, time.AfterFunc(time.Duration(step.AfterMS)*time.Millisecond, func() {
			defer s.calls.Done()
			for _, b := range bodies {
				s.post(t.Callback, b)
			}
		}))
		return
	}
}

func (s *Server) post(url string, body any) {
	raw, err := json.Marshal(body)
	if err != nil {
		return
	}
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Post(url, "application/json", bytes.NewReader(raw))
	if err != nil {
		return // the real service does not try again either
	}
	_ = resp.Body.Close()
	s.mu.Lock()
	s.stats.Callbacks++
	s.mu.Unlock()
}
