package api

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"golang.org/x/time/rate"
)

// keyLimiter returns the limiter of an API key on this instance, or nil if the key has no limit. A second's worth may come at once.
func (s *server) keyLimiter(key uuid.UUID, own *float64) *rate.Limiter {
	limit := s.cfg.KeyLimit
	if own != nil {
		limit = *own
	}
	if limit <= 0 {
		return nil
	}
	return s.limits.Of(key, rate.Limit(limit), max(1, int(math.Ceil(limit))))
}

// limited is a middleware that enforces a key's limit and reports it in the RateLimit fields
// (draft-ietf-httpapi-ratelimit-headers).
func (s *server) limited(ctx huma.Context, next func(huma.Context)) {
	who := callerOf(ctx.Context())
	lim := s.keyLimiter(who.KeyID, who.RateLimit)
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
