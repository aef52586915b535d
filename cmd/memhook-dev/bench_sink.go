package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/memhook/memhook/cmd/internal/app"
)

// answerTime is how long a receiver of the benchmarks takes to answer: a duration, or "mix".
type answerTime string

// mixed is the answer time of receivers that differ: lognormal with a median of 100 ms, of which every hundredth takes
// two to four seconds.
const mixed answerTime = "mix"

// UnmarshalText reads an answer time such as 0, 200ms or mix.
func (a *answerTime) UnmarshalText(text []byte) error {
	if _, err := time.ParseDuration(string(text)); err != nil && string(text) != string(mixed) {
		return fmt.Errorf("an answer time is a duration or %q: %w", mixed, err)
	}
	*a = answerTime(text)
	return nil
}

// none reports whether the receiver answers at once.
func (a answerTime) none() bool { return a.draw() == 0 }

// draw returns how long the receiver takes for one answer.
func (a answerTime) draw() time.Duration {
	if a != mixed {
		d, _ := time.ParseDuration(string(a)) // checked by UnmarshalText
		return d
	}
	if rand.IntN(100) == 0 {
		return 2*time.Second + rand.N(2*time.Second)
	}
	return time.Duration(float64(100*time.Millisecond) * math.Exp(0.5*rand.NormFloat64()))
}

// describe says what kind of receivers they are, for a table.
func (a answerTime) describe() string {
	if a == mixed {
		return "mixed answers"
	}
	return "answer in " + a.draw().String()
}

// sinkCommand is the receiver of the benchmarks. It runs as a process of its own, answers 200, and remembers when
// each webhook arrived.
type sinkCommand struct {
	Addr   string     `required:""`
	Hosts  int        `default:"1"` // listens on as many loopback addresses, which are hosts to memhook
	Answer answerTime `default:"0s"`
}

// Run receives until SIGINT or SIGTERM.
func (c sinkCommand) Run(ctx context.Context) error {
	s := &sink{answer: c.Answer, waits: !c.Answer.none(), first: make(map[string]int64)}
	group, ctx := errgroup.WithContext(ctx)
	for i := range c.Hosts {
		listener, err := net.Listen("tcp", sinkHost(c.Addr, i))
		if err != nil {
			return err
		}
		group.Go(func() error { return app.ServeUntil(ctx, listener, s) })
	}
	return group.Wait()
}

// sinkHost returns the i-th address of a sink at addr: the first is addr, the others are later loopback addresses with the
// same port. Linux has all of 127.0.0.0/8.
func sinkHost(addr string, i int) string {
	if i == 0 {
		return addr
	}
	_, port, _ := strings.Cut(addr, ":")
	return fmt.Sprintf("127.0.%d.%d:%s", i/250, 1+i%250, port)
}

type sink struct {
	answer answerTime
	waits  bool

	mu    sync.Mutex
	first map[string]int64 // webhook-id and path → Unix nanoseconds
	state sinkState
}

// sinkState is what a sink received since it was last drained.
type sinkState struct {
	Count int `json:"count"` // webhooks, duplicates included
	Open  int `json:"open"`  // of them, not answered yet
	Peak  int `json:"peak"`  // the highest Open
}

// ServeHTTP receives webhooks. /results returns what arrived and clears it; /state returns the numbers so far.
func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := time.Now().UnixNano()
	switch r.URL.Path {
	case "/readyz":
		return
	case "/results":
		s.mu.Lock()
		defer s.mu.Unlock()
		_ = json.NewEncoder(w).Encode(s.first)
		s.first, s.state = make(map[string]int64), sinkState{Open: s.state.Open}
		return
	case "/state":
		s.mu.Lock()
		defer s.mu.Unlock()
		_ = json.NewEncoder(w).Encode(s.state)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	s.received(r.Header.Get("webhook-id")+r.URL.Path, now) // an event has the same id for all its receivers
	if s.waits {
		select {
		case <-time.After(s.answer.draw()):
		case <-r.Context().Done():
		}
	}
	w.Header()["Date"] = nil
	w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(w, `{"received":true}`)
	s.mu.Lock()
	s.state.Open--
	s.mu.Unlock()
}

func (s *sink) received(id string, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Count++
	s.state.Open++
	s.state.Peak = max(s.state.Peak, s.state.Open)
	if _, seen := s.first[id]; !seen {
		s.first[id] = now
	}
}

// awaitCount waits until the sink at addr has received n webhooks and answered them, at most within. It returns what
// the sink has received by then, which may be less.
func awaitCount(ctx context.Context, addr string, n int, within time.Duration) (state sinkState, err error) {
	for deadline := time.Now().Add(within); ; {
		if err := getJSON("http://"+addr+"/state", &state); err != nil {
			return state, err
		}
		if state.Count >= n && state.Open == 0 || time.Now().After(deadline) {
			return state, nil
		}
		select {
		case <-ctx.Done():
			return state, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sinkResults drains the sink. It returns when each event first arrived, in Unix nanoseconds by webhook-id, and
// how many webhooks were duplicates.
func sinkResults(addr string) (first map[string]int64, repeated int, err error) {
	var state sinkState
	if err := getJSON("http://"+addr+"/state", &state); err != nil {
		return nil, 0, err
	}
	got, err := drainSink(addr)
	if err != nil {
		return nil, 0, err
	}
	first = make(map[string]int64, len(got))
	for key, at := range got {
		id, _, _ := strings.Cut(key, "/")
		first[id] = at
	}
	return first, state.Count - len(got), nil
}

// drainSink reads when each webhook first arrived, by webhook-id and path, and clears the sink.
func drainSink(addr string) (got map[string]int64, err error) {
	err = getJSON("http://"+addr+"/results", &got)
	return got, err
}

// getJSON reads the JSON at a URL into v.
func getJSON(url string, v any) error {
	resp, err := http.Get(url) //nolint:gosec // a sink of the benchmark
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return json.NewDecoder(resp.Body).Decode(v)
}
