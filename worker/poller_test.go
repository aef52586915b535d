package worker

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/riverqueue/river/rivertype"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
	"github.com/memhook/memhook/worker/polling"
)

// lossy loses the database's answer to a statement, once it has come.
type lossy struct {
	text   string                 // of the statement
	before atomic.Pointer[func()] // called before the next such statement, whose answer is lost then
	lost   chan struct{}          // gets a value when it is
}

func (l *lossy) TraceQueryStart(ctx context.Context, conn *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	if strings.Contains(q.SQL, l.text) {
		if before := l.before.Swap(nil); before != nil {
			(*before)()
			conn.PgConn().Conn().(*lossyConn).lose.Store(true)
		}
	}
	return ctx
}

func (l *lossy) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

type lossyConn struct {
	net.Conn
	of   *lossy
	lose atomic.Bool
}

func (c *lossyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.lose.Load() {
		return n, err
	}
	_ = c.Close()
	c.of.lost <- struct{}{}
	return 0, net.ErrClosed
}

// over makes the bundle's worker reach the database through l.
func (b *bundle) over(t *testing.T, l *lossy) {
	t.Helper()
	cfg := b.store.Pool().Config()
	cfg.MaxConns = 1 // statements are prepared when their answers are lost
	cfg.ConnConfig.Tracer = l
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = pgconn.DialFunc(func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		return &lossyConn{Conn: conn, of: l}, err
	})
	b.cfg.Store = storetest.Over(t, cfg, store.Config{Encode: EncodeEvent})
}

// The statement that grants a slot also admits new tasks, once. If it was committed and its answer lost, they must not
// wait until the lease ends, which can take minutes.
func TestTasksWhoseAdmissionWasLostAreReadAgain(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	l := &lossy{text: "set urgent = false\n\t\t\tfrom taken", lost: make(chan struct{}, 1)}
	b.over(t, l)
	state := func(task *store.Task) (polls int, urgent bool) {
		if err := b.store.Pool().QueryRow(t.Context(), `select polls, urgent from tasks where id = $1`, task.ID).Scan(&polls, &urgent); err != nil {
			t.Fatal(err)
		}
		return polls, urgent
	}
	polled := func(task *store.Task, within time.Duration) bool {
		for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if n, _ := state(task); n > 0 {
				return true
			}
		}
		return false
	}
	first := b.register(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.poll(ctx, b.account.ID) }()
	t.Cleanup(cancel)
	if !polled(first, 10*time.Second) {
		t.Fatal("nothing is polled")
	}
	var second *store.Task
	l.before.Store(new(func() { second = b.register(t) }))
	select {
	case <-l.lost: // at the latest when the first task is due again
	case <-time.After(10 * time.Second):
		t.Fatal("no slot was asked for")
	}
	if n, urgent := state(second); n > 0 || urgent {
		t.Fatalf("the task was not admitted by the lost answer: %d polls, urgent %t", n, urgent)
	}
	if !polled(second, 15*time.Second) {
		t.Error("the poller goes on and does not know the task")
	}
	cancel()
	<-ended
}

func TestOldFailuresDoNotDelayARetry(t *testing.T) {
	t.Parallel()
	job := &rivertype.JobRow{}
	for range 20 {
		job.Errors = append(job.Errors, rivertype.AttemptError{At: time.Now().Add(-2 * time.Minute)})
	}
	for failures, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second} {
		if got := time.Until(retryPolicy{}.NextRetry(job)); got > want || got < want-500*time.Millisecond {
			t.Errorf("after %d failures: %s, want %s", failures, got, want)
		}
		job.Errors = append(job.Errors, rivertype.AttemptError{At: time.Now()})
	}
}

// A pause of centuries, as an older version believed one, ends within minutes.
func TestAPauseIsBounded(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	a := b.account
	a.State, a.PausedUntil = store.AccountRateLimited, new(time.Date(2319, 1, 1, 0, 0, 0, 0, time.UTC))
	if left := time.Until(newPoller(b.Worker, &store.Lease{Account: &a}).backoff.Until); left > 5*time.Minute {
		t.Errorf("the account is paused for %s", left)
	}
}

// A task that is hinted again keeps its place in line until it is polled.
func TestTheTaskList(t *testing.T) {
	t.Parallel()
	l := newTaskList(0)
	target := store.PollTarget{ID: uuid.New(), AppID: uuid.New(), CreatedAt: start, HintedAt: new(start.Add(time.Second)), Well: true}
	l.put(target, 0)
	target.HintedAt = new(start.Add(5 * time.Second))
	l.put(target, 0)
	if got := l.find(target.ID).Hinted; got != polling.At(start.Add(time.Second)) {
		t.Errorf("hinted at %s", got.Time())
	}
	target.LastPolledAt, target.HintedAt = new(start.Add(6*time.Second)), new(start.Add(9*time.Second))
	l.put(target, 0)
	if got := l.find(target.ID).Hinted; got != polling.At(start.Add(9*time.Second)) {
		t.Errorf("hinted after its poll at %s", got.Time())
	}
	other := store.PollTarget{ID: uuid.New(), AppID: uuid.New(), CreatedAt: start}
	l.put(other, 0)
	if l.find(other.ID).App == l.find(target.ID).App {
		t.Error("two apps are one")
	}
	if first, second := l.targets[0], l.targets[1]; l.othersWell(&first) || !l.othersWell(&second) {
		t.Error("the first task is not the only one that is well")
	}
	l.drop(target.ID)
	if l.othersWell(&l.targets[0]) || l.find(other.ID) == nil {
		t.Error("the task that is well was not dropped")
	}
}

// A poller whose instance has a wrong clock records its polls by the database's clock, and reads what others have recorded by
// its own: what is decided by these times (refusals over five minutes, a list that no longer grows) is decided alike everywhere.
func TestAPollerWithAWrongClockRecordsTheDatabases(t *testing.T) {
	t.Parallel()
	const ahead = 25 * time.Hour
	b := newBundle(t)
	task := b.register(t)
	b.cfg.Store = storetest.On(t, b.store.Pool(), store.Config{Encode: EncodeEvent, Now: func() time.Time { return time.Now().Add(ahead) }})
	if err := b.cfg.Store.Heartbeat(t.Context(), store.Instance{ID: uuid.New(), Name: "ahead", StartedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	lease, err := b.store.AcquireLease(t.Context(), b.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	p := newPoller(b.Worker, lease)
	if got, want := p.tasks.policy[0].Expires, polling.At(task.ExpiresAt.Add(ahead)); got != want {
		t.Errorf("the task expires at %s, want %s", got.Time(), want.Time())
	}
	// The clock of this process is right, so a poll that is corrected by 25 hours is as early.
	near := func(what string, got, want time.Time) {
		t.Helper()
		if off := got.Sub(want).Abs(); off > time.Minute {
			t.Errorf("%s: %s, want about %s", what, got, want)
		}
	}
	choice, _ := p.shares.Choose(p.survival, p.tasks.policy, polling.At(time.Now()))
	p.send(t.Context(), choice, time.Now(), 0)
	a := <-p.answers
	if a.err != nil || a.polled.Target.LastPolledAt == nil {
		t.Fatalf("%+v", a)
	}
	near("recorded", *a.polled.Target.LastPolledAt, time.Now().Add(-ahead))
	p.handle(a)
	near("kept", p.tasks.policy[0].Polled.Time(), time.Now())

	p.setBackoff(&answer{status: memories.Status{Outcome: memories.RateLimited}, failed: true, sentAt: time.Now()})
	account, err := b.store.Account(t.Context(), b.account.ID)
	if err != nil || account.PausedUntil == nil {
		t.Fatalf("%+v, %v", account, err)
	}
	near("paused", *account.PausedUntil, time.Now().Add(-ahead))
	near("paused, as the next poller reads it", newPoller(b.Worker, &store.Lease{Account: &account}).backoff.Until, time.Now())
}
