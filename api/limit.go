package api

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"golang.org/x/time/rate"
)

// limitersKept bounds how many keys' limiters are held; beyond it all begin anew.
const limitersKept = 10_000

// keyLimits bound the requests of each API key to this instance: a second's worth may come at once.
type keyLimits struct {
	standard float64 // requests a second of keys without a limit of their own; 0 means none

	mu    sync.Mutex
	byKey map[uuid.UUID]*rate.Limiter
}

// of gives a key's limiter, or nil where it has no limit.
func (l *keyLimits) of(key uuid.UUID, own *float64) *rate.Limiter {
	limit := l.standard
	if own != nil {
		limit = *own
	}
	if limit <= 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byKey == nil || len(l.byKey) >= limitersKept {
		l.byKey = make(map[uuid.UUID]*rate.Limiter)
	}
	lim := l.byKey[key]
	if lim == nil || float64(lim.Limit()) != limit {
		lim = rate.NewLimiter(rate.Limit(limit), max(1, int(math.Ceil(limit))))
		l.byKey[key] = lim
	}
	return lim
}

// limited lets a key's requests through as fast as its limit is, and tells of it in the RateLimit fields
// (draft-ietf-httpapi-ratelimit-headers).
func (s *server) limited(ctx huma.Context, next func(huma.Context)) {
	who := identityOf(ctx.Context())
	lim := s.limits.of(who.KeyID, who.RateLimit)
	if lim == nil {
		next(ctx)
		return
	}
	now := time.Now()
	allowed := lim.AllowN(now, 1)
	left := max(0, lim.TokensAt(now))
	wait := max(0, 1-left) / float64(lim.Limit()) // seconds until a request is allowed again
	window := float64(lim.Burst()) / float64(lim.Limit())
	ctx.SetHeader("RateLimit-Policy", fmt.Sprintf(`"key";q=%d;w=%d`, lim.Burst(), int(math.Ceil(window))))
	ctx.SetHeader("RateLimit", fmt.Sprintf(`"key";r=%d;t=%d`, int(left), int(math.Ceil(wait))))
	if !allowed {
		ctx.SetHeader("Retry-After", strconv.Itoa(max(1, int(math.Ceil(wait)))))
		refuse(ctx, problemFor(http.StatusTooManyRequests, codeRateLimited, "this API key is used for more requests than its limit; try again later"))
		return
	}
	next(ctx)
}
