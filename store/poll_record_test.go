package store_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

func TestTheBudgetHoldsUnderConcurrency(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	const perSecond = 50
	if _, err := b.UpdateAccount(t.Context(), b.account.ID, store.AccountChange{RequestsPerSecond: new(float64(perSecond))}); err != nil {
		t.Fatal(err)
	}
	sh, err := b.AcquireLease(t.Context(), b.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	// A second process with its own groups shares the account, as a shift that was believed dead would.
	keys, _ := store.ParseKeyring(storetest.EncryptionKey)
	other, err := store.New(b.pool, store.Config{Keys: keys, Encode: encode})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var slots []time.Time
	var wg sync.WaitGroup
	stop := time.Now().Add(2 * time.Second)
	for i := range 8 {
		s := b.Store
		if i%2 == 1 {
			s = other
		}
		wg.Go(func() {
			for time.Now().Before(stop) {
				slot, err := s.TakeSlot(context.Background(), store.SlotRequest{Account: b.account.ID, Lease: sh.ID, Any: true})
				if err != nil {
					t.Error(err)
					return
				}
				if slot.Granted {
					mu.Lock()
					slots = append(slots, time.Now().Add(slot.Wait))
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	// Those of the last fifth of a second are given out ahead of their time.
	if n := len(slots); n > 2.2*perSecond+2 || n < perSecond {
		t.Errorf("%d slots in two seconds at %d a second", n, perSecond)
	}
	// A newer shift takes the account: the older one gets no more.
	if _, err := b.AcquireLease(t.Context(), b.account.ID); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if slot, err := b.TakeSlot(t.Context(), store.SlotRequest{Account: b.account.ID, Lease: sh.ID, Any: true}); err != nil || slot.Granted || !slot.Lost {
		t.Errorf("an older shift got %+v, %v", slot, err)
	}
}

func TestASlotTellsWhatIsNew(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	before := b.register("before", "https://a.example/").Task
	sh, err := b.AcquireLease(t.Context(), b.account.ID)
	if err != nil || len(sh.Targets) != 1 || sh.Targets[0].ID != before.ID {
		t.Fatalf("%+v, %v", sh, err)
	}
	first, second := b.register("first", "https://a.example/").Task, b.register("second", "https://a.example/").Task
	take := func() []store.PollTarget {
		t.Helper()
		for {
			slot, err := b.TakeSlot(t.Context(), store.SlotRequest{Account: b.account.ID, Lease: sh.ID, Any: true})
			if err != nil {
				t.Fatal(err)
			}
			if slot.Granted {
				return slot.Admitted
			}
		}
	}
	if a, b := take(), take(); len(a) != 2 || a[0].ID != first.ID || a[1].ID != second.ID || len(b) != 0 {
		t.Errorf("got %v, %v", a, b)
	}
	if _, err := b.pool.Exec(t.Context(), `update tasks set last_polled_at = now() - interval '10 s'`); err != nil {
		t.Fatal(err)
	}
	if err := b.HintTask(t.Context(), b.app.HintToken, []string{"second"}, nil); err != nil {
		t.Fatal(err)
	}
	if got := take(); len(got) != 1 || got[0].ID != second.ID || got[0].HintedAt == nil {
		t.Errorf("after a hint: %v", got)
	}
	if err := b.HintTask(t.Context(), "another-token", []string{"first"}, nil); err != nil {
		t.Fatal(err)
	}
	if got := take(); len(got) != 0 {
		t.Errorf("a hint with a wrong token: %v", got)
	}
	third := b.register("third", "https://a.example/").Task
	if mine, err := b.ReloadLease(t.Context(), sh); err != nil || !mine || len(sh.Targets) != 4 {
		t.Errorf("read anew: %t, %v, %v", mine, sh.Targets, err)
	}
	if got := take(); len(got) != 0 {
		t.Errorf("what was read anew is told again: %v", got)
	}
	if _, err := b.AcquireLease(t.Context(), b.account.ID); err != nil {
		t.Fatal(err)
	}
	if err := b.HintTask(t.Context(), b.app.HintToken, []string{"third"}, nil); err != nil {
		t.Fatal(err)
	}
	if mine, err := b.ReloadLease(t.Context(), sh); err != nil || mine {
		t.Errorf("an older shift reads anew: %t, %v", mine, err)
	}
	if n := b.count(`select count(*) from tasks where id = $1 and urgent`, third.ID); n != 1 {
		t.Error("an older shift takes the news from the newer one")
	}
}

// A registration that is under way when the last shift ends must not be left without a poll job. The
// interleavings are forced by holding one transaction open.
func TestNoRegistrationIsLeftWithoutAPollJob(t *testing.T) {
	t.Parallel()
	idleShift := func(t *testing.T) (*bundle, *store.Lease) {
		t.Helper()
		b := newBundle(t)
		first := b.register("first", "https://a.example/")
		sh, err := b.AcquireLease(t.Context(), b.account.ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.CancelTask(t.Context(), store.OfApp(b.app.ID), first.Task.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := b.pool.Exec(t.Context(), `delete from river_job`); err != nil { // the running job ends with the shift
			t.Fatal(err)
		}
		return b, sh
	}
	t.Run("the shift ends while a registration holds the account", func(t *testing.T) {
		t.Parallel()
		b, sh := idleShift(t)
		tx, err := b.pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }()
		// As a registration does: it has read that there is a poll job, and has not committed its task yet.
		if _, err := tx.Exec(t.Context(), `select poll_job from accounts where id = $1 for key share`, b.account.ID); err != nil {
			t.Fatal(err)
		}
		if goOn, err := b.ReleaseLease(t.Context(), sh, store.LeaseEnd{}); err != nil || !goOn {
			t.Errorf("the job goes on for the registration that is under way: %v %v", goOn, err)
		}
	})
	t.Run("a registration comes while the shift's end is not committed", func(t *testing.T) {
		t.Parallel()
		b, _ := idleShift(t)
		tx, err := b.pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// As the shift's end does.
		if _, err := tx.Exec(t.Context(), `select id from accounts where id = $1 for update`, b.account.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `update accounts set poll_job = false where id = $1`, b.account.ID); err != nil {
			t.Fatal(err)
		}
		registered := make(chan error, 1)
		go func() {
			_, err := b.RegisterTask(context.Background(), b.task("second", "https://a.example/"))
			registered <- err
		}()
		waitForLock(t, b.pool)
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-registered; err != nil {
			t.Fatal(err)
		}
		if n := b.count(livePollJobs); n != 1 {
			t.Errorf("%d poll jobs", n)
		}
	})
	t.Run("nothing is left", func(t *testing.T) {
		t.Parallel()
		b, sh := idleShift(t)
		if goOn, err := b.ReleaseLease(t.Context(), sh, store.LeaseEnd{}); err != nil || goOn {
			t.Errorf("the job of an idle account goes on: %v %v", goOn, err)
		}
		b.register("next", "https://a.example/")
		if n := b.count(livePollJobs); n != 1 {
			t.Errorf("%d poll jobs after the next registration", n)
		}
	})
}

// waitForLock waits until somebody waits for a lock.
func waitForLock(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var n int
		if err := pool.QueryRow(t.Context(), `select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody waits for the lock")
		}
	}
}

// A lease whose tasks cannot be read within the time of other statements is had all the same: an account with hundreds of
// thousands of new tasks would otherwise never be polled.
func TestALeaseMayTakeLong(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	task := b.register("task", "https://a.example/").Task
	tx, err := b.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const long = 6 * time.Second // more than a statement's 5 s
	var held sync.WaitGroup
	defer held.Wait()
	_, err = tx.Exec(t.Context(), `select 1 from tasks where id = $1 for update`, task.ID)
	held.Go(func() {
		time.Sleep(long)
		_ = tx.Rollback(context.Background())
	})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	lease, err := b.AcquireLease(t.Context(), b.account.ID)
	if err != nil || len(lease.Targets) != 1 {
		t.Fatalf("%+v, %v", lease, err)
	}
	if took := time.Since(began); took < long-time.Second {
		t.Errorf("the lease was had in %s: nothing held it up", took)
	}
}

// A larger budget counts from now on, not after the interval of the one before.
func TestALargerBudgetCountsAtOnce(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	if _, err := b.UpdateAccount(t.Context(), b.account.ID, store.AccountChange{RequestsPerSecond: new(0.01), UploadsPerMinute: new(0.01)}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.ReserveSlot(t.Context(), b.account.ID); err != nil {
		t.Fatal(err)
	}
	b.upload("https://example.com/1")
	b.upload("https://example.com/2")
	l := b.uploadLease()
	b.take(l)
	if next := b.take(l); next.Wait < time.Hour {
		t.Errorf("with the small budget the next upload is %s away", next.Wait)
	}
	if _, err := b.UpdateAccount(t.Context(), b.account.ID, store.AccountChange{RequestsPerSecond: new(5.0), UploadsPerMinute: new(30.0)}); err != nil {
		t.Fatal(err)
	}
	if next := b.take(l); next.Wait > 2*time.Second {
		t.Errorf("the next upload is %s away", next.Wait)
	}
	if _, wait, err := b.ReserveSlot(t.Context(), b.account.ID); err != nil || wait > store.SlotInterval(5)+200*time.Millisecond {
		t.Errorf("the next slot is %s away, %v", wait, err)
	}
}

// A key that goes from one account to another keeps its budget: the poller that has it takes no further slot, and the account
// that has it now waits for an interval after the last that was given out.
func TestAKeyThatMovesKeepsItsBudget(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	near := func(what string, account uuid.UUID, least, most time.Duration) {
		t.Helper()
		if _, wait, err := b.ReserveSlot(t.Context(), account); err != nil || wait < least || wait > most {
			t.Errorf("%s: the first slot is %s away, %v", what, wait, err)
		}
	}
	if _, err := b.UpdateAccount(t.Context(), b.account.ID, store.AccountChange{RequestsPerSecond: new(0.01)}); err != nil {
		t.Fatal(err)
	}
	lease, err := b.AcquireLease(t.Context(), b.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.UpdateAccount(t.Context(), b.account.ID, store.AccountChange{APIKey: new("sk-mavi-2")}); err != nil {
		t.Fatal(err)
	}
	slot, err := b.TakeSlot(t.Context(), store.SlotRequest{Account: b.account.ID, Lease: lease.ID, Any: true})
	if err != nil || !slot.Lost {
		t.Errorf("the poller with the replaced key: %+v, %v", slot, err)
	}
	near("the account that was changed", b.account.ID, 90*time.Second, 102*time.Second)
	other, err := b.CreateAccount(t.Context(), store.NewAccount{Name: "other", APIKey: "sk-mavi-1", RequestsPerSecond: 0.01})
	if err != nil {
		t.Fatal(err)
	}
	near("the account that was created", other.ID, 100*time.Millisecond, 2*time.Second)
}
