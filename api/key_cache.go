package api

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/memhook/memhook/internal/recent"
	"github.com/memhook/memhook/store"
)

const (
	// keyFresh is how long a key is not looked up again. A revoked key stops working within this time.
	keyFresh = time.Second
	// touchInterval is the delay until the last use of a key is written to the database.
	touchInterval = 30 * time.Second
)

// keyCache saves most requests the query that authenticates them.
type keyCache struct {
	store  *store.Store
	byHash *lru.Cache[[sha256.Size]byte, cachedKey]

	mu   sync.Mutex
	used map[uuid.UUID]time.Time // last uses that are not written yet
}

type cachedKey struct {
	identity store.Identity
	until    time.Time
}

func newKeyCache(s *store.Store) *keyCache {
	return &keyCache{store: s, byHash: recent.Cache[[sha256.Size]byte, cachedKey](), used: make(map[uuid.UUID]time.Time)}
}

// identity returns whose key it is, or store.ErrNotFound.
func (c *keyCache) identity(ctx context.Context, key string) (store.Identity, error) {
	if key == "" {
		return store.Identity{}, store.ErrNotFound
	}
	now := time.Now()
	hash := sha256.Sum256([]byte(key))
	cached, ok := c.byHash.Get(hash)
	if !ok || now.After(cached.until) {
		id, err := c.store.Authenticate(ctx, key)
		if err != nil {
			return id, err
		}
		cached = cachedKey{id, now.Add(keyFresh)}
		c.byHash.Add(hash, cached)
	}
	c.noteUse(cached.identity.KeyID, now)
	return cached.identity, nil
}

// noteUse remembers a use. All uses are written together, touchInterval after the first.
func (c *keyCache) noteUse(key uuid.UUID, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.used) == 0 {
		time.AfterFunc(touchInterval, c.writeUses)
	}
	c.used[key] = now
}

func (c *keyCache) writeUses() {
	c.mu.Lock()
	used := c.used
	c.used = make(map[uuid.UUID]time.Time)
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = c.store.TouchKeys(ctx, used) // informative only: the next use is written again
}
