package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store/localpg"
)

// pair is a primary and its synchronous standby, each behind a proxy that can go silent.
type pair struct {
	t                *testing.T
	primary, standby *localpg.Server
	ways             [2]*silentProxy
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t}
	var addr [2]string
	start := func(i int) localpg.Options {
		addr[i] = freeAddr(t)
		host, port, err := net.SplitHostPort(addr[i])
		if err != nil {
			t.Fatal(err)
		}
		return localpg.Options{Durable: true, Settings: map[string]string{"listen_addresses": host, "port": port, "shared_buffers": "64MB"}}
	}
	var err error
	if p.primary, err = localpg.Start(t.Context(), start(0)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.primary.Thaw(); _ = p.primary.Stop() })
	if p.standby, err = localpg.StartStandby(t.Context(), p.primary, start(1)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.standby.Stop() })
	p.exec(p.primary, `alter system set synchronous_standby_names = '*'`, `select pg_reload_conf()`)
	until(t, 20*time.Second, "the standby is synchronous", func() bool {
		var state string
		p.scan(p.primary, &state, `select coalesce(max(sync_state), '') from pg_stat_replication`)
		return state == "sync"
	})
	for i := range p.ways {
		p.ways[i] = newSilentProxy(t, addr[i])
	}
	return p
}

// url names both, as an operator does.
func (p *pair) url() string {
	u := url.URL{Scheme: "postgres", User: url.User("memhook"), Host: p.ways[0].addr() + "," + p.ways[1].addr(), Path: "/postgres"}
	return u.String() + "?sslmode=disable&target_session_attrs=read-write"
}

func (p *pair) scan(server *localpg.Server, into any, sql string) {
	p.t.Helper()
	conn, err := pgx.Connect(p.t.Context(), server.URL("postgres"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = conn.Close(p.t.Context()) }()
	if err := conn.QueryRow(p.t.Context(), sql).Scan(into); err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
}

func (p *pair) exec(server *localpg.Server, statements ...string) {
	p.t.Helper()
	conn, err := pgx.Connect(p.t.Context(), server.URL("postgres"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = conn.Close(p.t.Context()) }()
	for _, sql := range statements {
		if _, err := conn.Exec(p.t.Context(), sql); err != nil {
			p.t.Fatalf("%s: %v", sql, err)
		}
	}
}

// promote makes the standby the primary and returns when it takes writes.
func (p *pair) promote() {
	p.t.Helper()
	p.exec(p.standby, `select pg_promote()`)
}

// silentProxy passes bytes on until it is cut: then it still accepts connections and keeps them, and passes nothing on.
type silentProxy struct {
	listener net.Listener
	target   string
	silent   atomic.Bool
}

func newSilentProxy(t *testing.T, target string) *silentProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	p := &silentProxy{listener: l, target: target}
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(from)
		}
	}()
	return p
}

func (p *silentProxy) addr() string { return p.listener.Addr().String() }

func (p *silentProxy) serve(from net.Conn) {
	to, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = from.Close()
		return
	}
	pass := func(from, to net.Conn) {
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			if p.silent.Load() {
				return // neither end hears of the other again
			}
			if n > 0 {
				if _, werr := to.Write(buf[:n]); werr != nil {
					err = werr
				}
			}
			if err != nil {
				_ = from.Close()
				_ = to.Close()
				return
			}
		}
	}
	go pass(from, to)
	pass(to, from)
}

// faultOf is one way for a primary to go, and how soon after the promotion registrations must be accepted again.
type faultOf struct {
	name   string
	strike func(*pair)
	within time.Duration
}

var failovers = []faultOf{
	{"killed", func(p *pair) { _ = p.primary.Shutdown(syscall.SIGKILL) }, 5 * time.Second},
	{"hung", func(p *pair) {
		if err := p.primary.Freeze(); err != nil {
			p.t.Fatal(err)
		}
	}, 15 * time.Second},
	{"cut off", func(p *pair) { p.ways[0].silent.Store(true) }, 15 * time.Second},
	{"demoted", func(p *pair) {
		p.exec(p.primary, `alter system set default_transaction_read_only = on`, `select pg_reload_conf()`)
	}, 15 * time.Second},
	{"switched over", func(p *pair) {
		if err := p.primary.Shutdown(syscall.SIGINT); err != nil {
			p.t.Fatal(err)
		}
	}, 5 * time.Second},
}

// A primary goes in one of several ways under load, and its synchronous standby is promoted three seconds later. Nothing that
// was accepted is lost, no event has two ids, the budget is kept, and meanwhile nobody is told that memhook is ready.
func TestFailover(t *testing.T) {
	t.Parallel()
	faults := failovers
	if !long {
		faults = faults[:2]
	}
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			if !long {
				t.Parallel()
			}
			p := newPair(t)
			failover(t, fault.name, p.url(), fault.within, func() (silent, promoted time.Time) {
				fault.strike(p)
				silent = time.Now()
				time.Sleep(time.Until(silent.Add(3 * time.Second))) // what an operator's automation takes to be sure
				promoted = time.Now()                               // or a little later: nobody takes writes before
				p.promote()
				return silent, promoted
			})
		})
	}
}

// failover runs memhook under load on a database whose primary fails. strike returns since when the primary has taken no
// writes and when its standby was promoted; registrations must be accepted within a time after that.
func failover(t *testing.T, name, databaseURL string, within time.Duration, strike func() (silent, promoted time.Time)) {
	const budget, perSecond = 60, 40
	b := newBench(t, memoriestest.Config{RequestsPerSecond: budget})
	b.env["DATABASE_URL"] = databaseURL
	b.env["MEMORIES_REQUESTS_PER_SECOND"] = fmt.Sprint(budget)
	in := b.start("")
	l := startLoad(in, perSecond)
	b.receiver.await(t, 100, 30*time.Second)
	silent, promoted := strike()
	until(t, time.Minute, "registrations are accepted again", func() bool { return l.firstAfter(promoted, &l.accepted) < time.Minute })
	back := l.firstAfter(promoted, &l.accepted)
	until(t, time.Minute, "memhook is ready again", func() bool { return l.firstAfter(promoted, &l.ready) < time.Minute })
	before := len(b.receiver.all())
	b.receiver.await(t, before+50, time.Minute)
	accepted := l.stop()
	until(t, 2*time.Minute, "all accepted tasks' webhooks have come", func() bool {
		got := make(map[string]bool)
		for _, r := range b.receiver.all() {
			got[r.task.TaskID] = true
		}
		for _, id := range accepted {
			if !got[id] {
				return false
			}
		}
		return true
	})
	ids := make(map[string]map[string]bool)
	var last time.Time
	var gap time.Duration
	for _, r := range b.receiver.all() {
		if ids[r.task.TaskID] == nil {
			ids[r.task.TaskID] = make(map[string]bool)
		}
		ids[r.task.TaskID][r.id] = true
		if !last.IsZero() {
			gap = max(gap, r.at.Sub(last))
		}
		last = r.at
	}
	for task, of := range ids {
		if len(of) != 1 {
			t.Errorf("%s has %d ids", task, len(of))
		}
	}
	st := b.sim.Stats()
	lied := l.between(&l.ready, silent, promoted)
	t.Logf("| %s | %d | %d | %.1f s | %.1f s | %.1f s | %d | %d of %d |", name, len(accepted), len(b.receiver.all())-len(ids),
		promoted.Sub(silent).Seconds(), back.Seconds(), gap.Seconds(), lied, st.MaxPerWindow, budget+1)
	if back > within {
		t.Errorf("accepted again %s after the promotion", back)
	}
	if lied > 0 {
		t.Errorf("/readyz said 200 %d times while nothing could be written", lied)
	}
	if st.Violations > 0 || st.MaxPerWindow > budget+1 {
		t.Errorf("the budget was exceeded: %+v", st)
	}
}

// load registers tasks at a rate and asks /readyz, and keeps when each was answered well.
type load struct {
	in   *instance
	quit chan struct{}
	wg   sync.WaitGroup

	mu              sync.Mutex
	ids             []string
	accepted, ready []span
}

// span is when a request was sent and answered.
type span struct{ from, to time.Time }

func startLoad(in *instance, perSecond int) *load {
	l := &load{in: in, quit: make(chan struct{})}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	every := func(interval time.Duration, fn func(n int)) {
		l.wg.Go(func() {
			ticker := time.NewTicker(interval)
			defer ticker.Stop()
			for n := 0; ; n++ {
				select {
				case <-l.quit:
					return
				case <-ticker.C:
					l.wg.Go(func() { fn(n) })
				}
			}
		})
	}
	every(time.Second/time.Duration(perSecond), func(n int) {
		id := fmt.Sprintf("task-%d", n)
		in.sim.Add(readyAfter(id, 0, "PI-"+id))
		body, _ := json.Marshal(map[string]any{"task_id": id, "callback_url": in.receiver.URL})
		req, _ := http.NewRequest(http.MethodPost, in.url+"/v1/tasks", bytes.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+testAPIKey)
		req.Header.Set("Content-Type", "application/json")
		if sent, ok := l.ask(client, req, http.StatusCreated); ok {
			l.mu.Lock()
			l.ids, l.accepted = append(l.ids, id), append(l.accepted, sent)
			l.mu.Unlock()
		}
	})
	every(100*time.Millisecond, func(int) {
		req, _ := http.NewRequest(http.MethodGet, in.url+"/readyz", nil)
		if sent, ok := l.ask(client, req, http.StatusOK); ok {
			l.mu.Lock()
			l.ready = append(l.ready, sent)
			l.mu.Unlock()
		}
	})
	return l
}

func (l *load) ask(client *http.Client, req *http.Request, want int) (span, bool) {
	from := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return span{}, false
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return span{from, time.Now()}, resp.StatusCode == want
}

// firstAfter returns how long after a time the first of the requests was answered well; an hour if none was.
func (l *load) firstAfter(at time.Time, of *[]span) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := time.Hour
	for _, s := range *of {
		if s.to.After(at) {
			first = min(first, s.to.Sub(at))
		}
	}
	return first
}

// between counts requests that were sent and answered well between two times.
func (l *load) between(of *[]span, from, to time.Time) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range *of {
		if s.from.After(from) && s.to.Before(to) {
			n++
		}
	}
	return n
}

// stop ends the load and returns the tasks that were accepted.
func (l *load) stop() []string {
	close(l.quit)
	l.wg.Wait()
	return l.ids
}
