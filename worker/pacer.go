package worker

import (
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	// lateMost is how much later than its slot a request may leave. Requests stay apart however late they are, see
	// pacer; the bound is for another instance, which may have the account by then.
	lateMost = 250 * time.Millisecond
	// answerMost is how long the database may take to give a slot out, of which half counts as the way there: what
	// took longer says too little about when the slot is.
	answerMost = time.Second
	// pacerTolerance is how late a request may be without those after it being late, too: what a timer and the scheduler
	// take. It is a small part of what the slots leave for the way to memories.ai (store.SlotInterval).
	pacerTolerance = 5 * time.Millisecond
	// catchUp is the part of the time between slots that requests which are late keep apart: a little less, so that they
	// become punctual again.
	catchUp = 0.99
)

// pacer keeps one account's requests apart by when they really leave this process. Slots are evenly spaced by the
// database's clock; what its answers take, and what a busy machine makes of a timer, are not, and a request that
// is late must not crowd the next one.
type pacer struct {
	mu   sync.Mutex
	gap  time.Duration
	next time.Time // the earliest time of the next request
}

// pacers has one an account, which goes on from shift to shift.
type pacers struct {
	mu   sync.Mutex
	byID map[uuid.UUID]*pacer
}

// of gives an account's pacer, with slots so far apart from now on.
func (p *pacers) of(account uuid.UUID, interval time.Duration) *pacer {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byID == nil {
		p.byID = make(map[uuid.UUID]*pacer)
	}
	pc := p.byID[account]
	if pc == nil {
		pc = &pacer{}
		p.byID[account] = pc
	}
	pc.mu.Lock()
	defer pc.mu.Unlock()
	pc.gap = time.Duration(catchUp * float64(interval))
	return pc
}

// pass waits until a request may leave, and tells whether that was no later than latest. If not it must not be sent.
func (p *pacer) pass(latest time.Time) bool {
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
	p.next = latestOf(p.next, now.Add(-pacerTolerance)).Add(p.gap)
	return true
}

func latestOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
