package worker

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

// An instance whose clock is off neither expires nor purges, and does both when its clock is right.
func TestAnInstanceWithAWrongClockDoesNotPurge(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	s := storetest.New(t, store.Config{Encode: EncodeEvent, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	w := &Worker{cfg: Config{Store: s, Retention: time.Hour}, log: slog.New(slog.DiscardHandler)}
	if _, err := s.Pool().Exec(t.Context(), `
		insert into tasks (id, app_id, account_id, task_id, unique_id, polling, created_at, expires_at, ended_at)
		select gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'task', 'default', false, now(), now(), now() - interval '2 h'`); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ahead time.Duration
		left  int
	}{{25 * time.Hour, 1}, {-6 * time.Second, 1}, {4 * time.Second, 0}} {
		ahead.Store(int64(c.ahead))
		if err := s.Heartbeat(t.Context(), store.Instance{ID: uuid.New(), Name: "instance", StartedAt: time.Now()}); err != nil {
			t.Fatal(err)
		}
		w.purge(t.Context())
		var left int
		if err := s.Pool().QueryRow(t.Context(), `select count(*) from tasks`).Scan(&left); err != nil || left != c.left {
			t.Errorf("%s ahead: %d tasks are left, want %d; %v", c.ahead, left, c.left, err)
		}
	}
}

// What takes long runs less often.
func TestSweepsAreSparing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		sweep := sparing(func(context.Context) { runs++; time.Sleep(time.Second) })
		for range 60 {
			sweep(t.Context())
			time.Sleep(time.Second)
		}
		if runs < 3 || runs > 4 {
			t.Errorf("a sweep of a second ran %d times in a minute, want 3 or 4", runs)
		}
	})
}
