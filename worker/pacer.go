package worker

import (
	"sync"
	"time"

	"github.com/google/uuid"
)

// pacer keeps one account's requests apart by the times at which they leave this process. The database spaces slots
// evenly by its own clock. Its answers and the timers of a busy machine add delays of different lengths, so that a late
// request could otherwise crowd the next one.
type pacer struct {
	mu   sync.Mutex
	gap  time.Duration
	next time.Time // no request leaves before
}

// pacers holds one pacer for each account. It outlives the account's leases.
type pacers struct{ byID sync.Map }

// of returns the account's pacer, which from now on keeps requests an interval apart.
func (p *pacers) of(account uuid.UUID, interval time.Duration) *pacer {
	kept, _ := p.byID.LoadOrStore(account, &pacer{})
	pc := kept.(*pacer) //nolint:forcetypeassert // only of stores in byID
	pc.mu.Lock()
	defer pc.mu.Unlock()
	pc.gap = time.Duration(catchUp * float64(interval))
	return pc
}

// wait waits until a request may leave. It returns false if that is after latest: the request must not be sent.
func (p *pacer) wait(latest time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next.After(latest) {
		return false
	}
	time.Sleep(time.Until(p.next))
	now := time.Now()
	if now.After(latest) {
		return false
	}
	if punctual := now.Add(-pacerTolerance); punctual.After(p.next) {
		p.next = punctual
	}
	p.next = p.next.Add(p.gap)
	return true
}
