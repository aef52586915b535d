// Package memoriestest simulates memories.ai over HTTP: uploads, the task status that memhook polls,
// the request limit, the service's own callbacks, and faults. Tests and the demo script the tasks'
// lives, in Go or through the control API under /control; tasks that nobody scripted draw theirs.
package memoriestest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Config shapes a Server.
type Config struct {
	// RequestsPerSecond is the limit of an account that has none of its own; 0 means none. An account
	// may have one request more than the limit in any second.
	RequestsPerSecond float64
	// Draw gives the time from upload to the first video of a task that nobody scripted, and the number
	// of its videos, 0 for never. nil refuses such tasks with code 0003.
	Draw func(*rand.Rand) (after time.Duration, videos int)
	Seed uint64
}

// Server is the simulated service, an http.Handler. Each API key is an account of its own unless
// SetAccount says otherwise.
type Server struct {
	cfg Config
	mux *http.ServeMux

	mu       sync.Mutex
	rand     *rand.Rand
	tasks    map[string]*task
	accounts map[string]*account // by key
	faults   []Fault             // of the whole service
	stats    Stats
	jumped   time.Duration // of the service's clock
	stalled  time.Time     // until then nothing is answered
	timers   []*time.Timer
	calls    sync.WaitGroup
}

// Task is the script of a task's life.
type Task struct {
	TaskID string  `json:"task_id"`
	Steps  []Step  `json:"steps"`            // by time; before the first the list is empty
	Shape  string  `json:"shape,omitempty"`  // ShapeIDs (default), ShapeVideos, ShapeBoth
	Empty  string  `json:"empty,omitempty"`  // how an empty list is told: "list" (default), "null", "object"
	Faults []Fault `json:"faults,omitempty"` // the first polls meet these, in order
	// Callback is where the service posts its own news of the task.
	Callback string `json:"callback_url,omitempty"`
}

// The shapes of an answer.
const (
	ShapeIDs    = "video_ids"
	ShapeVideos = "videos"
	ShapeBoth   = "both"
)

// Step is what a task's list holds from some time after its upload on.
type Step struct {
	AfterMS int64   `json:"after_ms"`
	Videos  []Video `json:"videos"`
}

// Video is one video of a list.
type Video struct {
	ID     string `json:"video_id"`
	Status string `json:"status,omitempty"` // told in ShapeVideos; "" means UNPARSE
}

// Stats counts what the service has seen.
type Stats struct {
	Requests     int            `json:"requests"`       // status requests
	Violations   int            `json:"violations"`     // of the limit, each answered 0429
	MaxPerWindow int            `json:"max_per_window"` // most requests of one account in any window (a second, or longer where the limit is below 1/s)
	Faults       map[string]int `json:"faults"`         // by kind
	Callbacks    int            `json:"callbacks"`
	ViolatedAt   []time.Time    `json:"violated_at"` // the first thousand violations
}

// Life is what became of a task.
type Life struct {
	TaskID     string      `json:"task_id"`
	UploadedAt time.Time   `json:"uploaded_at"`
	ReadyAt    *time.Time  `json:"ready_at"` // when its list is first not empty
	Polls      []time.Time `json:"polls"`
}

type task struct {
	Task
	uploaded time.Time
	polls    []time.Time
}

type account struct {
	id       string
	rps      float64
	refusal  string // a code that every request gets
	requests []time.Time
}

// New makes a simulated service.
func New(cfg Config) *Server {
	s := &Server{
		cfg: cfg, mux: http.NewServeMux(), rand: rand.New(rand.NewPCG(cfg.Seed, 1)),
		tasks: make(map[string]*task), accounts: make(map[string]*account), stats: Stats{Faults: make(map[string]int)},
	}
	s.mux.HandleFunc("GET /serve/api/v1/get_video_ids_by_task_id", s.status)
	s.mux.HandleFunc("POST /serve/api/v1/scraper_url", s.upload)
	s.control()
	return s
}

// ServeHTTP answers as memories.ai would, and the control API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Close stops the service's callbacks and waits for those under way.
func (s *Server) Close() {
	s.mu.Lock()
	for _, t := range s.timers {
		if t.Stop() {
			s.calls.Done()
		}
	}
	s.timers = nil
	s.mu.Unlock()
	s.calls.Wait()
}

// Add scripts a task; its upload is now.
func (s *Server) Add(t Task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(t, time.Now())
}

func (s *Server) add(t Task, now time.Time) *task {
	added := &task{Task: t, uploaded: now}
	s.tasks[t.TaskID] = added
	if t.Callback != "" {
		s.scheduleCallbacks(added)
	}
	return added
}

// SetAccount lets keys share one account with a limit (0 means none). refusal, where not empty, is the
// code that all its requests get, such as "0401".
func (s *Server) SetAccount(id string, keys []string, requestsPerSecond float64, refusal string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &account{id: id, rps: requestsPerSecond, refusal: refusal}
	for _, existing := range s.accounts {
		if existing.id == id {
			a.requests = existing.requests
		}
	}
	for _, k := range keys {
		s.accounts[k] = a
	}
}

// Break lets the next requests to the whole service meet faults, in order.
func (s *Server) Break(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, faults...)
}

// Stall lets the service answer nothing for a time. What comes meanwhile is counted when it comes.
func (s *Server) Stall(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stalled = time.Now().Add(d)
}

// Jump moves the service's clock: lists are what they will be, or were, so much later or earlier.
func (s *Server) Jump(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jumped += d
}

// Stats gives the counts so far.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.ViolatedAt = slices.Clone(s.stats.ViolatedAt)
	st.Faults = make(map[string]int, len(s.stats.Faults))
	maps.Copy(st.Faults, s.stats.Faults)
	return st
}

// Life tells what became of a task.
func (s *Server) Life(taskID string) (Life, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tasks[taskID]
	if t == nil {
		return Life{}, false
	}
	return t.life(), true
}

func (t *task) life() Life {
	l := Life{TaskID: t.TaskID, UploadedAt: t.uploaded, Polls: append([]time.Time{}, t.polls...)}
	for _, step := range t.Steps {
		if len(step.Videos) > 0 {
			at := t.uploaded.Add(time.Duration(step.AfterMS) * time.Millisecond)
			l.ReadyAt = &at
			break
		}
	}
	return l
}

// status answers the one call that memhook makes.
func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	key, id := r.Header.Get("Authorization"), r.URL.Query().Get("task_id")
	s.mu.Lock()
	life := now.Add(s.jumped) // what the service takes for the time when it looks at its tasks
	s.stats.Requests++
	a := s.accountOf(key)
	exceeds, stalled := a.count(now, s.limit(a), &s.stats), time.Until(s.stalled)
	if stalled > 0 {
		s.mu.Unlock()
		select {
		case <-time.After(stalled):
		case <-r.Context().Done():
		}
		s.mu.Lock()
	}
	if exceeds {
		s.mu.Unlock()
		envelope(w, http.StatusOK, "0429", "Request has exceeded the limit.", nil)
		return
	}
	if a.refusal != "" {
		s.mu.Unlock()
		envelope(w, http.StatusOK, a.refusal, refusals[a.refusal], nil)
		return
	}
	t := s.find(id, now)
	if t != nil {
		t.polls = append(t.polls, now)
	}
	fault, broken := s.nextFault(t)
	s.mu.Unlock()

	switch {
	case key == "":
		envelope(w, http.StatusOK, "0401", refusals["0401"], nil)
	case broken:
		fault.answer(w, r, id)
	case t == nil:
		envelope(w, http.StatusOK, "0003", "task not found", nil)
	default:
		envelope(w, http.StatusOK, "0000", "success", t.data(life))
	}
}

func (s *Server) accountOf(key string) *account {
	a := s.accounts[key]
	if a == nil {
		a = &account{id: key, rps: -1}
		s.accounts[key] = a
	}
	return a
}

func (s *Server) limit(a *account) float64 {
	if a.rps < 0 {
		return s.cfg.RequestsPerSecond
	}
	return a.rps
}

// count notes a request and tells whether it exceeds the limit: more than one request over the limit
// in any window of a second (or of one request's time, where the limit is below 1/s).
func (a *account) count(now time.Time, rps float64, stats *Stats) (exceeds bool) {
	window := time.Second
	if rps > 0 && rps < 1 {
		window = time.Duration(float64(time.Second) / rps)
	}
	kept := a.requests[:0]
	for _, at := range a.requests {
		if now.Sub(at) < window {
			kept = append(kept, at)
		}
	}
	kept = append(kept, now)
	a.requests = kept
	stats.MaxPerWindow = max(stats.MaxPerWindow, len(a.requests))
	if rps > 0 && float64(len(a.requests)) > rps*window.Seconds()+1+1e-9 {
		stats.Violations++
		if len(stats.ViolatedAt) < 1000 {
			stats.ViolatedAt = append(stats.ViolatedAt, now)
		}
		return true
	}
	return false
}

// find gives the task of an id, drawing the life of one that nobody scripted.
func (s *Server) find(id string, now time.Time) *task {
	if t := s.tasks[id]; t != nil || s.cfg.Draw == nil || id == "" {
		return t
	}
	return s.add(s.drawn(id), now)
}

func (s *Server) drawn(id string) Task {
	t := Task{TaskID: id}
	after, n := s.cfg.Draw(s.rand)
	if n == 0 {
		return t
	}
	step := Step{AfterMS: after.Milliseconds()}
	for range n {
		step.Videos = append(step.Videos, Video{ID: fmt.Sprintf("PI-%018d", s.rand.Int64N(1e18))})
	}
	t.Steps = []Step{step}
	return t
}

// data is the envelope's data at a time.
func (t *task) data(now time.Time) any {
	var list []Video
	for _, step := range t.Steps {
		if now.Sub(t.uploaded) >= time.Duration(step.AfterMS)*time.Millisecond {
			list = step.Videos
		}
	}
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
		status := v.Status
		if status == "" {
			status = "UNPARSE"
		}
		ids[i] = v.ID
		videos[i] = map[string]any{"video_no": v.ID, "status": status, "video_name": "video " + v.ID, "duration": "12", "cause": "null"}
	}
	if t.Shape != ShapeVideos {
		data["video_ids"] = ids
	}
	if t.Shape == ShapeVideos || t.Shape == ShapeBoth {
		data["videos"] = videos
	}
	return data
}

// upload accepts post URLs and answers the id of a task whose life is drawn.
func (s *Server) upload(w http.ResponseWriter, r *http.Request) {
	var body struct {
		CallbackURL string `json:"callback_url"`
		Callback    string `json:"callback"`
	}
	raw, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil || json.Unmarshal(raw, &body) != nil {
		envelope(w, http.StatusOK, "0001", "invalid parameters", nil)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x_%016x%016x", s.rand.Uint32(), s.rand.Uint32N(1<<16), s.rand.Uint32N(1<<12), s.rand.Uint32N(1<<12),
		s.rand.Uint64N(1<<48), s.rand.Uint64(), s.rand.Uint64())
	t := Task{TaskID: id}
	if s.cfg.Draw != nil {
		t = s.drawn(id)
	}
	t.Callback = body.CallbackURL
	if t.Callback == "" {
		t.Callback = body.Callback
	}
	s.add(t, time.Now())
	envelope(w, http.StatusOK, "0000", "success", map[string]any{"taskId": id})
}

func envelope(w http.ResponseWriter, httpStatus int, code, msg string, data any) {
	ok := code == "0000"
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(httpStatus)
	_ = json.NewEncoder(w).Encode(map[string]any{"code": code, "msg": msg, "data": data, "failed": !ok, "success": ok})
}
