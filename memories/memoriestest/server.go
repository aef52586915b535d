// Package memoriestest simulates memories.ai over HTTP, in both generations of its API: uploads, the
// status of tasks and operations that memhook polls, the request limits, the service's own callbacks, and
// faults. Tests and the demo script the tasks' lives, in Go or through the control API under /control;
// tasks that nobody scripted draw theirs. One script can be asked for in either generation.
package memoriestest

import (
	"fmt"
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
	// Draw returns the time from upload to the first video of a task that nobody scripted, and the number
	// of its videos, 0 for never. nil refuses such tasks with code 0003.
	Draw func(*rand.Rand) (after time.Duration, videos int)
	Seed uint64
	// UploadsPerMinute is the limit of submissions of an account that has none of its own; 0 means none.
	// An account may have one more in any minute.
	UploadsPerMinute float64
}

// Server is the simulated service, an http.Handler. Each API key is an account of its own unless
// SetAccount sets another.
type Server struct {
	cfg Config
	mux *http.ServeMux

	mu       sync.Mutex
	rand     *rand.Rand
	tasks    map[string]*task
	accounts map[string]*account // by key
	faults   []Fault             // of the whole service's status requests
	spoiled  []Fault             // of the whole service's uploads
	uploads  []Upload
	byKey    map[string]int // the place in uploads of an account's idempotency key
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
	Shape  string  `json:"shape,omitempty"`  // of v1 ShapeIDs (default), ShapeVideos, ShapeBoth; of the Datalake's resource ShapePath
	Empty  string  `json:"empty,omitempty"`  // how an empty list is told: "list" (default), "null", "object"
	Faults []Fault `json:"faults,omitempty"` // the first polls meet these, in order
	// Refusal is the code that every poll of the task gets, such as "0001".
	Refusal string `json:"refusal,omitempty"`
	// End is how the operation ends where it does not just succeed with its first video; for the Datalake only.
	End *End `json:"end,omitempty"`
	// Callback is where the service posts its own news of the task. HintVideos lets them name the videos only,
	// as those of a direct upload do.
	Callback   string `json:"callback_url,omitempty"`
	HintVideos bool   `json:"hint_videos,omitempty"`
}

// The shapes of an answer.
const (
	ShapeIDs    = "video_ids"
	ShapeVideos = "videos"
	ShapeBoth   = "both"
	ShapePath   = "path" // an operation's resource is videos/ID
)

// End is a Datalake operation's end: with an error, or cancelled.
type End struct {
	AfterMS   int64  `json:"after_ms"`
	Code      string `json:"code,omitempty"` // with none, the error is a string
	Message   string `json:"message,omitempty"`
	Partial   bool   `json:"partial,omitempty"` // the operation is done with its video all the same
	Cancelled bool   `json:"cancelled,omitempty"`
}

// Step is what a task's list holds from some time after its upload on.
type Step struct {
	AfterMS int64   `json:"after_ms"`
	Videos  []Video `json:"videos"`
}

// Video is one video of a list.
type Video struct {
	ID string `json:"video_id"`
	// What ShapeVideos tells besides.
	Status   string `json:"status,omitempty"`   // "" means UNPARSE
	Cause    string `json:"cause,omitempty"`    // "" is told as "null"
	Name     string `json:"name,omitempty"`     // "" is told as "video ID"
	URL      string `json:"url,omitempty"`      // "" is not told
	Duration string `json:"duration,omitempty"` // "" is told as "12"
}

// Stats counts what the service has seen.
type Stats struct {
	Requests     int            `json:"requests"`       // status requests
	Violations   int            `json:"violations"`     // of the limit, each answered 0429
	MaxPerWindow int            `json:"max_per_window"` // see Account.RequestsPerSecond
	Faults       map[string]int `json:"faults"`         // by kind
	Callbacks    int            `json:"callbacks"`
	Uploads      int            `json:"uploads"`           // requests to submit
	OverUploads  int            `json:"upload_violations"` // of the upload limit
	ViolatedAt   []time.Time    `json:"violated_at"`       // the first thousand violations
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

// New makes a simulated service.
func New(cfg Config) *Server {
	s := &Server{
		cfg: cfg, mux: http.NewServeMux(), rand: rand.New(rand.NewPCG(cfg.Seed, 1)),
		tasks: make(map[string]*task), accounts: make(map[string]*account), byKey: make(map[string]int),
		stats: Stats{Faults: make(map[string]int)},
	}
	s.mux.HandleFunc("GET /serve/api/v1/get_video_ids_by_task_id", s.status)
	s.mux.HandleFunc("POST /serve/api/v1/scraper_url", s.uploadV1)
	s.mux.HandleFunc("GET /serve/datalake/v1/operations/{operation}", s.operation)
	s.mux.HandleFunc("POST /serve/datalake/v1/videos", s.uploadVideo)
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

// Break lets the next polls, of whatever task, meet faults, in order.
func (s *Server) Break(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, faults...)
}

// BreakUploads lets the next submissions meet faults, in order. The service has taken the submission when
// it meets FaultCut, FaultHang, FaultTruncated or a page; it has not with any other.
func (s *Server) BreakUploads(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spoiled = append(s.spoiled, faults...)
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

// Stats returns the counts so far.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.ViolatedAt = slices.Clone(s.stats.ViolatedAt)
	st.Faults = make(map[string]int, len(s.stats.Faults))
	maps.Copy(st.Faults, s.stats.Faults)
	return st
}

// Life returns the state of a task.
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

// find returns the task of an id, drawing the life of one that nobody scripted.
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
