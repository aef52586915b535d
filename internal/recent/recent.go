// Package recent keeps what was used last, in constant room. It imports nothing else of memhook.
package recent

import (
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// Kept is how many entries a cache and a set of limiters keep. When it is full, the one that was used least recently is evicted.
const Kept = 10_000

// Cache makes a cache of Kept entries, which is safe for concurrent use.
func Cache[K comparable, V any]() *lru.Cache[K, V] {
	c, err := lru.New[K, V](Kept)
	if err != nil { // only for a size that is not positive
		panic(err)
	}
	return c
}

// Limiters are rate limiters by a key, such as a client's address.
type Limiters[K comparable] struct {
	*lru.Cache[K, *rate.Limiter]
}

// NewLimiters makes a set of Kept limiters, which is safe for concurrent use.
func NewLimiters[K comparable]() Limiters[K] { return Limiters[K]{Cache[K, *rate.Limiter]()} }

// Of returns the limiter of a key: a new one if there is none yet, or one of another rate.
func (l Limiters[K]) Of(key K, perSecond rate.Limit, burst int) *rate.Limiter {
	known, ok := l.Get(key)
	if ok && known.Limit() == perSecond {
		return known
	}
	fresh := rate.NewLimiter(perSecond, burst)
	if ok {
		l.Add(key, fresh)
	} else if first, ok, _ := l.PeekOrAdd(key, fresh); ok { // another request was faster
		return first
	}
	return fresh
}
