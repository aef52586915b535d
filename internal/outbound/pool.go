package outbound

import (
	"slices"
	"sync"
	"time"
)

const (
	// idleFor is how long a connection is kept that nothing uses.
	idleFor = time.Minute
	// sweepEvery is how often idle connections are examined: those that the peer has closed are closed here too.
	sweepEvery = 10 * time.Second
)

// pool keeps idle connections by the key of their route.
type pool struct {
	most, mostPerHost int

	mu       sync.Mutex
	idle     map[string][]*conn // the last one was used last
	count    int
	sweeping bool
	closed   bool
}

// take returns the connection that was used last and that the peer has not closed; nil if there is none.
func (p *pool) take(key string) *conn {
	for {
		c := p.pop(key)
		if c == nil || c.usable() {
			return c
		}
		c.abort()
	}
}

func (p *pool) pop(key string) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[key]
	if len(list) == 0 {
		return nil
	}
	c := list[len(list)-1]
	p.set(key, list[:len(list)-1])
	return c
}

// put keeps a connection, or closes it if there are enough.
func (p *pool) put(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[c.route.key]
	if p.closed || p.count >= p.most || len(list) >= p.mostPerHost {
		c.abort()
		return
	}
	c.idleSince = time.Now()
	p.set(c.route.key, append(list, c))
	if !p.sweeping {
		p.sweeping = true
		time.AfterFunc(sweepEvery, p.sweep)
	}
}

func (p *pool) drop(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retain(key, func(*conn) bool { return false })
}

// sweep closes connections that have been idle for too long or that the peer has closed. It comes again while any is left.
func (p *pool) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.idle {
		p.retain(key, func(c *conn) bool { return time.Since(c.idleSince) < idleFor && c.usable() })
	}
	if p.sweeping = p.count > 0; p.sweeping {
		time.AfterFunc(sweepEvery, p.sweep)
	}
}

// close closes all idle connections. Those in use are closed when their exchange ends.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for key := range p.idle {
		p.retain(key, func(*conn) bool { return false })
	}
}

// retain closes the connections of a key for which good returns false. p.mu is held.
func (p *pool) retain(key string, good func(*conn) bool) {
	p.set(key, slices.DeleteFunc(slices.Clone(p.idle[key]), func(c *conn) bool {
		if good(c) {
			return false
		}
		c.abort()
		return true
	}))
}

// set replaces the list of a key. p.mu is held.
func (p *pool) set(key string, list []*conn) {
	p.count += len(list) - len(p.idle[key])
	if len(list) == 0 {
		delete(p.idle, key)
		return
	}
	if p.idle == nil {
		p.idle = make(map[string][]*conn)
	}
	p.idle[key] = list
}
