package worker

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

// An instance whose clock is off neither expires nor purges, says so once, and goes on when its clock is right.
func TestAnInstanceWithAWrongClockDoesNotSweep(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	s := storetest.New(t, store.Config{Encode: EncodeEvent, Now: now})
	var log bytes.Buffer
	w := &Worker{cfg: Config{Store: s}, log: slog.New(slog.NewTextHandler(&log, nil))}
	for _, c := range []struct {
		ahead time.Duration
		runs  int
	}{{0, 2}, {25 * time.Hour, 0}, {-6 * time.Second, 0}, {4 * time.Second, 2}} {
		ahead.Store(int64(c.ahead))
		runs := 0
		for range 2 {
			w.punctual(func(context.Context) { runs++ })(t.Context())
		}
		if runs != c.runs {
			t.Errorf("%s ahead: swept %d times of 2, want %d", c.ahead, runs, c.runs)
		}
	}
	if n := strings.Count(log.String(), "differs from the database's"); n != 1 {
		t.Errorf("said %d times, want once:\n%s", n, log.String())
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
