package memoriestest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"
)

// Upload is a submission that the service took.
type Upload struct {
	TaskID         string            `json:"task_id"` // of the Datalake the operation
	API            string            `json:"api"`     // v1 or datalake
	Account        string            `json:"account"`
	URLs           []string          `json:"urls"`
	CallbackURL    string            `json:"callback_url,omitempty"`
	CollectionID   string            `json:"collection_id,omitempty"`
	Metadata       map[string]string `json:"metadata,omitempty"`
	IdempotencyKey string            `json:"idempotency_key,omitempty"`
	At             time.Time         `json:"at"`
}

// Uploads returns what was taken so far, in order. A repetition under the same idempotency key is not
// taken again.
func (s *Server) Uploads() []Upload {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.uploads)
}

// uploadV1 takes post URLs and answers the id of a task whose life is drawn.
func (s *Server) uploadV1(w http.ResponseWriter, r *http.Request) {
	var body struct {
		URLs        []string `json:"video_urls"`
		CallbackURL string   `json:"callback_url"`
		Callback    string   `json:"callback"`
	}
	understood := readUpload(r, &body)
	callback := cmp.Or(body.CallbackURL, body.Callback)
	u, q, fault := s.take(r, Upload{API: "v1", URLs: body.URLs, CallbackURL: callback}, understood && len(callback) <= 299)
	switch {
	case q.exceeds:
		envelope(w, http.StatusOK, "0429", "Request has exceeded the limit.", nil)
	case q.refusal != "":
		envelope(w, http.StatusOK, q.refusal, refusals[q.refusal], nil)
	case fault.Kind != "":
		fault.answer(w, r, u.TaskID)
	default:
		envelope(w, http.StatusOK, "0000", "success", map[string]any{"taskId": u.TaskID})
	}
}

// uploadVideo takes one video and answers its operation.
func (s *Server) uploadVideo(w http.ResponseWriter, r *http.Request) {
	var body struct {
		CollectionID   string            `json:"collection_id"`
		SourceURL      string            `json:"source_url"`
		Metadata       map[string]string `json:"metadata"`
		IdempotencyKey string            `json:"idempotency_key"`
	}
	understood := readUpload(r, &body)
	u, q, fault := s.take(r, Upload{
		API: "datalake", URLs: []string{body.SourceURL}, CollectionID: body.CollectionID,
		Metadata: body.Metadata, IdempotencyKey: body.IdempotencyKey,
	}, understood && body.SourceURL != "")
	switch {
	case q.exceeds:
		refuse(w, http.StatusTooManyRequests, "rate_limited", "too many requests", 1)
	case q.bearer:
		refuse(w, http.StatusUnauthorized, "unauthorized", "send the API key as Authorization: Bearer <key>", 0)
	case q.refusal != "":
		refuseAs(w, q.refusal)
	case fault.Kind != "":
		fault.answerOperation(w, r, u.TaskID)
	default:
		answerJSON(w, http.StatusAccepted, map[string]any{"video_id": s.videoOf(u.TaskID), "operation": u.TaskID, "status": "processing"})
	}
}

// readUpload reads a body, all of it, whatever it is.
func readUpload(r *http.Request, into any) bool {
	raw, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	return err == nil && json.Unmarshal(raw, into) == nil
}

// take counts a submission and, where nothing is against it, makes its task.
func (s *Server) take(r *http.Request, u Upload, understood bool) (Upload, request, Fault) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.begin(r, u.API == "datalake", true, now)
	if !understood && q.refusal == "" {
		q.refusal = "0001"
	}
	if q.exceeds || q.refusal != "" || q.bearer {
		return u, q, Fault{}
	}
	var fault Fault
	if len(s.spoiled) > 0 {
		fault, s.spoiled = s.spoiled[0], s.spoiled[1:]
		s.stats.Faults[fault.Kind]++
		if !slices.Contains([]string{FaultCut, FaultHang, FaultTruncated, FaultHTML, FaultHTML200}, fault.Kind) {
			return u, q, fault
		}
	}
	known := u.API + "\x00" + q.key + "\x00" + u.IdempotencyKey
	if i, ok := s.byKey[known]; ok && u.IdempotencyKey != "" {
		return s.uploads[i], q, fault
	}
	u.TaskID, u.Account, u.At = s.newID(), q.account.ID, now
	t := Task{TaskID: u.TaskID}
	if s.cfg.Draw != nil {
		t = s.drawn(u.TaskID)
	}
	t.Callback = u.CallbackURL
	s.add(t, now)
	s.byKey[known] = len(s.uploads)
	s.uploads = append(s.uploads, u)
	return u, q, fault
}

func (s *Server) newID() string {
	r := s.rand
	return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x_%016x%016x",
		r.Uint32(), r.Uint32N(1<<16), r.Uint32N(1<<12), r.Uint32N(1<<12), r.Uint64N(1<<48), r.Uint64(), r.Uint64())
}

// videoOf is the video that an operation is going to make.
func (s *Server) videoOf(taskID string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, step := range s.tasks[taskID].Steps {
		if len(step.Videos) > 0 {
			return step.Videos[0].ID
		}
	}
	return "pending-" + taskID[:8]
}
