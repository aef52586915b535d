package worker

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// notifier wakes pollers that have budget and no task that may be polled, when a task of theirs is registered or hinted.
// One query every notifyInterval serves all of them. Without listeners there is no query.
type notifier struct {
	store *store.Store
	log   *slog.Logger
	wake  chan struct{} // gets a value when there is a listener

	mu        sync.Mutex
	listeners map[uuid.UUID]chan struct{} // by account
}

func newNotifier(s *store.Store, log *slog.Logger) *notifier {
	return &notifier{store: s, log: log, wake: make(chan struct{}, 1), listeners: make(map[uuid.UUID]chan struct{})}
}

// listen returns a channel that gets a value when the account has an urgent task, until cancel is called. Each account
// has one listener: a new one replaces the old one.
func (n *notifier) listen(account uuid.UUID) (urgent <-chan struct{}, cancel func()) {
	ch := make(chan struct{}, 1)
	n.mu.Lock()
	n.listeners[account] = ch
	n.mu.Unlock()
	trySend(n.wake)
	return ch, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.listeners[account] == ch {
			delete(n.listeners, account)
		}
	}
}

// run notifies listeners until ctx is done.
func (n *notifier) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		}
		for n.notify(ctx) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(notifyInterval):
			}
		}
	}
}

// notify asks once for urgent tasks and notifies their accounts' listeners. It returns false if there are no listeners.
func (n *notifier) notify(ctx context.Context) bool {
	n.mu.Lock()
	accounts := slices.Collect(maps.Keys(n.listeners))
	n.mu.Unlock()
	if len(accounts) == 0 {
		return false
	}
	urgent, err := n.store.UrgentAccounts(ctx, accounts)
	if warn(ctx, n.log, err, "notifier cannot look for urgent tasks") {
		return true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range urgent {
		if ch := n.listeners[id]; ch != nil {
			trySend(ch)
		}
	}
	return true
}

// trySend sends on a channel that has room, else it does nothing.
func trySend(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
