package api

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// limitersKept bounds each set of limiters. When it is full, the limiter that was used least recently is evicted.
const limitersKept = 10_000

// newLRU makes a cache of a constant size.
func newLRU[K comparable, V any](size int) *lru.Cache[K, V] {
	c, err := lru.New[K, V](size)
	if err != nil { // only for a size that is not positive
		panic(err)
	}
	return c
}

// limiterOf returns the limiter of a key in a set, made by create where there is none yet.
func limiterOf[K comparable](set *lru.Cache[K, *rate.Limiter], key K, create func() *rate.Limiter) *rate.Limiter {
	if l, ok := set.Get(key); ok {
		return l
	}
	l := create()
	if first, ok, _ := set.PeekOrAdd(key, l); ok { // another request was faster
		return first
	}
	return l
}

// keyLimits bounds the requests of each API key to this instance. A second's worth may come at once.
type keyLimits struct {
	standard float64 // requests/s of keys without a limit of their own; 0 means no limit
	byKey    *lru.Cache[uuid.UUID, *rate.Limiter]
}

func newKeyLimits(standard float64) *keyLimits {
	return &keyLimits{standard, newLRU[uuid.UUID, *rate.Limiter](limitersKept)}
}

// of returns a key's limiter, or nil if it has no limit.
func (l *keyLimits) of(key uuid.UUID, own *float64) *rate.Limiter {
	limit := l.standard
	if own != nil {
		limit = *own
	}
	if limit <= 0 {
		return nil
	}
	create := func() *rate.Limiter { return rate.NewLimiter(rate.Limit(limit), max(1, int(math.Ceil(limit)))) }
	lim := limiterOf(l.byKey, key, create)
	if float64(lim.Limit()) != limit {
		lim = create()
		l.byKey.Add(key, lim)
	}
	return lim
}

// limited is a middleware that enforces a key's limit and reports it in the RateLimit fields
// (draft-ietf-httpapi-ratelimit-headers).
func (s *server) limited(ctx huma.Context, next func(huma.Context)) {
	who := callerOf(ctx.Context())
	lim := s.limits.of(who.KeyID, who.RateLimit)
	if lim == nil {
		next(ctx)
		return
	}
	now := time.Now()
	allowed := lim.AllowN(now, 1)
	left := max(0, lim.TokensAt(now))
	wait := max(0, 1-left) / float64(lim.Limit()) // seconds until the next request is allowed
	window := float64(lim.Burst()) / float64(lim.Limit())
	ctx.SetHeader("RateLimit-Policy", fmt.Sprintf(`"key";q=%d;w=%d`, lim.Burst(), int(math.Ceil(window))))
	ctx.SetHeader("RateLimit", fmt.Sprintf(`"key";r=%d;t=%d`, int(left), int(math.Ceil(wait))))
	if !allowed {
		seconds := max(1, int(math.Ceil(wait)))
		ctx.SetHeader("Retry-After", strconv.Itoa(seconds))
		refuse(ctx, problemFor(http.StatusTooManyRequests, codeRateLimited,
			fmt.Sprintf("this API key sends more than its limit of %v requests a second; try again in %d s", lim.Limit(), seconds)))
		return
	}
	next(ctx)
}
