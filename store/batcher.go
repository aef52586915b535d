package store

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// groupTimeout bounds one batch: its wait for a connection and its statements.
const groupTimeout = 5 * time.Second

// Batcher answers concurrent calls in batches: while a batch is under way the next one gathers, and a
// call that finds nothing under way runs at once. So nobody waits for company when idle, and under load a
// statement serves hundreds of callers. (Measured: three to seven times the deliveries a second of a
// statement each.) A batch that follows another at once and would be small lingers for some milliseconds
// first: the calls of a busy time cost a fifth of the CPU together.
type Batcher[In, Out any] struct {
	max     int // calls a batch
	linger  time.Duration
	patient bool // see Patient
	run     func(context.Context, []In) ([]Out, error)

	mu      sync.Mutex
	waiting []call[In, Out]
	running bool
}

type call[In, Out any] struct {
	in   In
	done chan answer[Out]
}

type answer[Out any] struct {
	out Out
	err error
}

// NewBatcher makes a Batcher around run, which must answer each input, in order.
func NewBatcher[In, Out any](most int, linger time.Duration, run func(context.Context, []In) ([]Out, error)) *Batcher[In, Out] {
	return &Batcher[In, Out]{max: most, linger: linger, run: run}
}

// Patient makes a call that finds nothing under way linger, too, and returns the Batcher: for calls whose callers can wait. Where
// they come one by one, a few milliseconds apart, each would otherwise be a batch of its own.
func (g *Batcher[In, Out]) Patient() *Batcher[In, Out] {
	g.patient = true
	return g
}

// Do answers in, together with whoever calls at the same time. When ctx ends first Do returns its
// error; the batch goes on.
func (g *Batcher[In, Out]) Do(ctx context.Context, in In) (Out, error) {
	c := call[In, Out]{in: in, done: make(chan answer[Out], 1)}
	g.mu.Lock()
	g.waiting = append(g.waiting, c)
	if !g.running {
		g.running = true
		go g.drain()
	}
	g.mu.Unlock()
	select {
	case a := <-c.done:
		return a.out, a.err
	case <-ctx.Done():
		var zero Out
		return zero, ctx.Err()
	}
}

func (g *Batcher[In, Out]) drain() {
	var took time.Duration // the batch before
	for first := !g.patient; ; first = false {
		if !first {
			g.gather(took)
		}
		g.mu.Lock()
		n := min(len(g.waiting), g.max)
		if n == 0 {
			g.running = false
			g.mu.Unlock()
			return
		}
		batch := g.waiting[:n:n]
		g.waiting = g.waiting[n:]
		if len(g.waiting) == 0 {
			g.waiting = nil // lets go of the array that the batch holds
		}
		g.mu.Unlock()
		start := time.Now()
		g.answer(batch)
		took = time.Since(start)
	}
}

// gather lets more calls come where few are waiting. Patient ones have waited while the batch before was under way.
func (g *Batcher[In, Out]) gather(took time.Duration) {
	g.mu.Lock()
	waiting := len(g.waiting)
	g.mu.Unlock()
	if waiting == 0 || waiting >= g.max/4 {
		return
	}
	linger := g.linger
	if g.patient {
		linger -= took
	}
	time.Sleep(linger)
}

func (g *Batcher[In, Out]) answer(batch []call[In, Out]) {
	ins := make([]In, len(batch))
	for i, c := range batch {
		ins[i] = c.in
	}
	// The batch belongs to many callers, so none of their contexts ends it.
	ctx, cancel := context.WithTimeout(context.Background(), groupTimeout)
	defer cancel()
	outs, err := g.run(ctx, ins)
	if err == nil && len(outs) != len(ins) {
		err = fmt.Errorf("a batch of %d got %d answers", len(ins), len(outs))
	}
	if err != nil && len(batch) > 1 && isOneRows(err) {
		// One row must not fail its neighbours.
		for _, c := range batch {
			g.answer([]call[In, Out]{c})
		}
		return
	}
	for i, c := range batch {
		a := answer[Out]{err: err}
		if err == nil {
			a.out = outs[i]
		}
		c.done <- a
	}
}
