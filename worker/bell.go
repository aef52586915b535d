package worker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// bellInterval is how soon an idle shift hears of a new or hinted task.
const bellInterval = 50 * time.Millisecond

// bell wakes shifts that have budget but nothing to poll when a task of theirs becomes urgent. One
// query an interval asks for all of them; while nobody listens there is none.
type bell struct {
	store *store.Store
	log   *slog.Logger
	wake  chan struct{}

	mu        sync.Mutex
	listeners map[uuid.UUID]chan struct{}
}

func newBell(s *store.Store, log *slog.Logger) *bell {
	return &bell{store: s, log: log, wake: make(chan struct{}, 1), listeners: make(map[uuid.UUID]chan struct{})}
}

// listen gives a channel that gets one value when the account has an urgent task, until cancel.
func (b *bell) listen(account uuid.UUID) (ring <-chan struct{}, cancel func()) {
	ch := make(chan struct{}, 1)
	b.mu.Lock()
	b.listeners[account] = ch
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return ch, func() {
		b.mu.Lock()
		if b.listeners[account] == ch {
			delete(b.listeners, account)
		}
		b.mu.Unlock()
	}
}

func (b *bell) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
		}
		for b.ringOnce(ctx) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(bellInterval):
			}
		}
	}
}

// ringOnce asks once and returns false when nobody listens.
func (b *bell) ringOnce(ctx context.Context) bool {
	b.mu.Lock()
	accounts := make([]uuid.UUID, 0, len(b.listeners))
	for id := range b.listeners {
		accounts = append(accounts, id)
	}
	b.mu.Unlock()
	if len(accounts) == 0 {
		return false
	}
	urgent, err := b.store.UrgentAccounts(ctx, accounts)
	if err != nil {
		if ctx.Err() == nil {
			b.log.Warn("urgent tasks could not be looked for", "error", err)
		}
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range urgent {
		if ch := b.listeners[id]; ch != nil {
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}
	return true
}
