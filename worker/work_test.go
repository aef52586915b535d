package worker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
	"github.com/memhook/memhook/webhook"
)

// bundle is a worker that works when it is told to, on a database of its own, with a simulated memories.ai and a
// receiver.
type bundle struct {
	*Worker
	store    *store.Store
	account  store.Account
	app      store.App
	got      atomic.Int64 // requests at the receiver
	receiver atomic.Pointer[http.HandlerFunc]
	url      string
}

func newBundle(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{store: storetest.New(t, store.Config{Encode: EncodeEvent})}
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server notice that the client has gone
		b.got.Add(1)
		if handle := b.receiver.Load(); handle != nil {
			(*handle)(w, r)
		}
	}))
	sim := memoriestest.New(memoriestest.Config{RequestsPerSecond: 50})
	upstream := httptest.NewServer(sim)
	t.Cleanup(func() {
		for _, s := range []*httptest.Server{receiver, upstream} {
			s.CloseClientConnections()
			s.Close()
		}
		sim.Close()
	})
	b.url = receiver.URL
	var err error
	if b.account, err = b.store.CreateAccount(t.Context(), store.NewAccount{Name: "account", APIKey: "sk-mavi-test", RequestsPerSecond: 50}); err != nil {
		t.Fatal(err)
	}
	if b.app, err = b.store.CreateApp(t.Context(), "app", b.account.ID); err != nil {
		t.Fatal(err)
	}
	guard := webhook.NewGuard(webhook.Policy{AllowHTTP: true, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	b.Worker, err = New(Config{
		Store: b.store, Memories: memories.New(upstream.URL, 10, "test"),
		Sender:   webhook.NewSender(webhook.SenderConfig{Guard: guard, Timeout: 10 * time.Second, UserAgent: "test", ConnsPerHost: 10}),
		Schedule: []time.Duration{time.Hour}, Name: t.Name(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(b.stopping); b.background.Wait() })
	return b
}

// register registers a task for the receiver.
func (b *bundle) register(t *testing.T) *store.Task {
	t.Helper()
	r, err := b.store.RegisterTask(t.Context(), store.Registration{
		AppID: b.app.ID, UpstreamID: uuid.NewString(), UniqueID: "default",
		CallbackURL: b.url, Until: store.UntilDownloaded, ExpiresIn: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r.Task
}

// delivery makes an event with one delivery.
func (b *bundle) delivery(t *testing.T) uuid.UUID {
	t.Helper()
	task := b.register(t)
	if _, err := b.store.RecordPoll(t.Context(), store.Poll{TaskID: task.ID, At: time.Now(), Videos: []store.Video{{ID: "PI-1"}}}); err != nil {
		t.Fatal(err)
	}
	list, err := b.store.TaskDeliveries(t.Context(), task.ID, 100)
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	return list[0].ID
}

func (b *bundle) workFirst(ctx context.Context, ids ...uuid.UUID) error {
	return (&firstWorker{Worker: b.Worker}).Work(ctx, &river.Job[store.FirstArgs]{JobRow: &rivertype.JobRow{ID: 1}, Args: store.FirstArgs{Deliveries: ids}})
}

func (b *bundle) work(ctx context.Context, args store.DeliverArgs) error {
	return (&deliverWorker{Worker: b.Worker}).Work(ctx, &river.Job[store.DeliverArgs]{JobRow: &rivertype.JobRow{ID: 2}, Args: args})
}

func (b *bundle) poll(ctx context.Context, account uuid.UUID) error {
	return (&pollWorker{Worker: b.Worker}).Work(ctx, &river.Job[store.PollArgs]{JobRow: &rivertype.JobRow{ID: 3}, Args: store.PollArgs{AccountID: account}})
}

// attempts gives a delivery's attempts that are on disk.
func (b *bundle) attempts(t *testing.T, id uuid.UUID) []store.Attempt {
	t.Helper()
	d, err := b.store.Delivery(t.Context(), store.Everything(), id)
	if err != nil {
		t.Fatal(err)
	}
	return d.Attempts
}

func snoozed(err error) bool {
	var s *river.JobSnoozeError
	return errors.As(err, &s)
}

func TestJobsThatAreOutOfDateDoNothing(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	id := b.delivery(t)
	if err := b.workFirst(t.Context(), id, uuid.New()); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"first attempts that were made":     b.workFirst(t.Context(), id),
		"a delivery that was delivered":     b.work(t.Context(), store.DeliverArgs{DeliveryID: id}),
		"a delivery that there is not":      b.work(t.Context(), store.DeliverArgs{DeliveryID: uuid.New()}),
		"a job of another generation":       b.work(t.Context(), store.DeliverArgs{DeliveryID: b.delivery(t), Generation: 5}),
		"an account that there is not":      b.poll(t.Context(), uuid.New()),
		"an account with nothing to poll":   func() error { b.stopPolling(t); return b.poll(t.Context(), b.account.ID) }(),
		"first attempts, of which are none": b.workFirst(t.Context()),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := b.got.Load(); got != 1 || len(b.attempts(t, id)) != 1 {
		t.Errorf("%d requests, %d attempts; want one", got, len(b.attempts(t, id)))
	}
}

// stopPolling cancels whatever is polled.
func (b *bundle) stopPolling(t *testing.T) {
	t.Helper()
	if _, err := b.store.Pool().Exec(t.Context(), `update tasks set polling = false`); err != nil {
		t.Fatal(err)
	}
}

func TestAJobBeforeItsTimeSnoozes(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.receiver.Store(new(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })))
	id := b.delivery(t)
	if err := b.workFirst(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := b.work(t.Context(), store.DeliverArgs{DeliveryID: id}); !snoozed(err) {
		t.Errorf("got %v, want a snooze of about an hour", err)
	}
	if got := b.got.Load(); got != 1 {
		t.Errorf("%d requests, want one", got)
	}
}

// An attempt that the end of the worker has cut short says nothing of its receiver: it is made again, and not counted.
func TestAnAttemptThatIsCutShortIsNotCounted(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.receiver.Store(new(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })))
	first, again := b.delivery(t), b.delivery(t)
	for name, work := range map[string]func(context.Context) error{
		"first": func(ctx context.Context) error { return b.workFirst(ctx, first) },
		"again": func(ctx context.Context) error { return b.work(ctx, store.DeliverArgs{DeliveryID: again}) },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		before := b.got.Load()
		done := make(chan error, 1)
		go func() { done <- work(ctx) }()
		for deadline := time.Now().Add(10 * time.Second); b.got.Load() == before; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("nothing was sent")
			}
		}
		cancel()
		if err := <-done; !snoozed(err) {
			t.Errorf("%s: got %v, want a snooze", name, err)
		}
	}
	if n := len(b.attempts(t, first)) + len(b.attempts(t, again)); n != 0 {
		t.Errorf("%d attempts are counted", n)
	}
}

// Where the database is away, jobs end with an error and are run again.
func TestJobsFailWhereTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	id := b.delivery(t)
	b.store.Pool().Close()
	for name, err := range map[string]error{
		"first attempts": b.workFirst(t.Context(), id),
		"an attempt":     b.work(t.Context(), store.DeliverArgs{DeliveryID: id}),
		"a poll":         b.poll(t.Context(), b.account.ID),
	} {
		if err == nil || snoozed(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A poller whose account has a new lease ends, and leaves the account to it.
func TestAPollerEndsWhenItsLeaseIsLost(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.register(t)
	done := make(chan error, 1)
	go func() { done <- b.poll(context.Background(), b.account.ID) }()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		a, err := b.store.Account(t.Context(), b.account.ID)
		if err == nil && a.Used > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing is polled: %v", err)
		}
	}
	lease, err := b.store.AcquireLease(t.Context(), b.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("the poller that lost its lease ends with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("two pollers have one account")
	}
	if goOn, err := b.store.ReleaseLease(t.Context(), lease, store.LeaseEnd{}); err != nil || !goOn {
		t.Errorf("the new lease has nothing to go on with: %v", err)
	}
}

// An instance that stops releases its jobs and leaves the list also where a job does not end when it is cancelled, as a
// submission does not.
func TestAStoppedInstanceReleasesWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	reached, release := make(chan struct{}, 1), make(chan struct{})
	hung := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		reached <- struct{}{}
		<-release
	}))
	t.Cleanup(func() { close(release); hung.Close() })
	if _, err := b.store.CreateUpload(t.Context(), store.Upload{
		AppID: b.app.ID, CallbackURL: b.url, Until: store.UntilDownloaded, ExpiresIn: time.Hour,
		Request: store.UploadRequest{URLs: []string{"https://videos.example/1"}},
	}); err != nil {
		t.Fatal(err)
	}
	cfg := b.cfg
	cfg.Memories = memories.New(hung.URL, 10, "test")
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-reached:
	case <-time.After(20 * time.Second):
		t.Error("the upload is not submitted")
	}
	late, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Stop(late); err != nil {
		t.Error(err)
	}
	var listed, running int
	if err := b.store.Pool().QueryRow(t.Context(), `
		select (select count(*) from instances where id::text = $1),
			(select count(*) from river_job where state = 'running' and attempted_by[array_upper(attempted_by, 1)] = $1)`, w.id.String()).
		Scan(&listed, &running); err != nil || listed+running != 0 {
		t.Errorf("%d instances are listed and %d jobs run, %v", listed, running, err)
	}
}
