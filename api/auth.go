package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

type ctxKey int

const (
	ctxIdentity ctxKey = iota
	ctxRequestID
)

// identityOf is who calls; set by authenticated.
func identityOf(ctx context.Context) store.Identity {
	id, _ := ctx.Value(ctxIdentity).(store.Identity)
	return id
}

// scopeOf is the scope of the app that calls; without an identity it matches nothing.
func scopeOf(ctx context.Context) store.Scope { return store.OfApp(identityOf(ctx).AppID) }

// authenticated lets only requests with an app's key through.
func (s *server) authenticated(ctx huma.Context, next func(huma.Context)) {
	id, err := s.keys.identity(ctx.Context(), bearer(ctx))
	if errors.Is(err, store.ErrNotFound) {
		unauthorized(ctx, "send an API key of an app as Authorization: Bearer <key>")
		return
	}
	if err != nil {
		p := s.problemOf(ctx.Context(), err)
		refuse(ctx, p)
		return
	}
	next(huma.WithValue(ctx, ctxIdentity, id))
}

// administrator lets only requests with the operator's token through.
func (s *server) administrator(ctx huma.Context, next func(huma.Context)) {
	if s.cfg.AdminToken == "" {
		refuse(ctx, adminDisabled())
		return
	}
	given, want := sha256.Sum256([]byte(bearer(ctx))), sha256.Sum256([]byte(s.cfg.AdminToken))
	if subtle.ConstantTimeCompare(given[:], want[:]) != 1 {
		s.counts.refused.WithLabelValues("wrong-bearer").Inc()
		s.log.Warn("refused at the admin API", "method", ctx.Method(), "path", ctx.Operation().Path, "client", middleware.GetClientIP(ctx.Context()))
		unauthorized(ctx, "send the admin token as Authorization: Bearer <token>")
		return
	}
	next(ctx)
}

func adminDisabled() *Problem {
	return problemFor(http.StatusServiceUnavailable, codeAdminDisabled, "set MEMHOOK_ADMIN_TOKEN to use the admin API and the dashboard")
}

// refuseWebhooks refuses webhooks, ours and others': one that calls the API could make it send webhooks without end. A
// hint URL takes them.
func refuseWebhooks(ctx huma.Context, next func(huma.Context)) {
	if ctx.Header(webhook.HeaderID) != "" {
		refuse(ctx, problemFor(http.StatusBadRequest, codeWebhook, "the API takes no webhooks: leave out the header "+webhook.HeaderID))
		return
	}
	next(ctx)
}

func bearer(ctx huma.Context) string {
	scheme, token, _ := strings.Cut(ctx.Header("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

func unauthorized(ctx huma.Context, detail string) {
	ctx.SetHeader("WWW-Authenticate", `Bearer realm="memhook"`)
	refuse(ctx, problemFor(http.StatusUnauthorized, codeUnauthorized, detail))
}

// refuse answers with a problem from a middleware.
func refuse(ctx huma.Context, p *Problem) {
	p.RequestID = requestIDOf(ctx.Context())
	ctx.SetHeader("Content-Type", p.ContentType(""))
	ctx.SetStatus(p.Status)
	_ = huma.DefaultJSONFormat.Marshal(ctx.BodyWriter(), p)
}

const (
	// keyFresh is how long a key that was found is not looked up again: a revoked one works no longer.
	keyFresh = time.Second
	keysKept = 10_000
	// touchInterval is how soon a key's last use is noted.
	touchInterval = 30 * time.Second
)

// keyCache spares a query a request.
type keyCache struct {
	store *store.Store

	mu     sync.Mutex
	byHash map[[sha256.Size]byte]cachedKey
	used   map[uuid.UUID]time.Time // not noted yet
}

type cachedKey struct {
	identity store.Identity
	until    time.Time
}

func newKeyCache(s *store.Store) *keyCache {
	return &keyCache{store: s, byHash: make(map[[sha256.Size]byte]cachedKey), used: make(map[uuid.UUID]time.Time)}
}

// identity tells whose key it is, or store.ErrNotFound.
func (c *keyCache) identity(ctx context.Context, key string) (store.Identity, error) {
	if key == "" {
		return store.Identity{}, store.ErrNotFound
	}
	now := time.Now()
	hash := sha256.Sum256([]byte(key))
	c.mu.Lock()
	cached, ok := c.byHash[hash]
	c.mu.Unlock()
	if !ok || now.After(cached.until) {
		id, err := c.store.Authenticate(ctx, key)
		if err != nil {
			return id, err
		}
		cached = cachedKey{id, now.Add(keyFresh)}
	}
	c.note(hash, cached, now)
	return cached.identity, nil
}

// note keeps a key and its use; the uses are written down together, some time after the first.
func (c *keyCache) note(hash [sha256.Size]byte, k cachedKey, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.byHash) >= keysKept {
		clear(c.byHash)
	}
	c.byHash[hash] = k
	if len(c.used) == 0 {
		time.AfterFunc(touchInterval, c.touch)
	}
	c.used[k.identity.KeyID] = now
}

func (c *keyCache) touch() {
	c.mu.Lock()
	used := c.used
	c.used = make(map[uuid.UUID]time.Time)
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = c.store.TouchKeys(ctx, used) // only a convenience: the next use is noted again
}
