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

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

// An instance whose clock is off neither expires nor purges, says so once, and goes on when its clock is right.
func TestAnInstanceWithAWrongClockDoesNotSweep(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	s := storetest.New(t, store.Config{Encode: EncodeEvent, Now: now})
	in := store.Instance{ID: uuid.New(), Name: t.Name(), StartedAt: time.Now()}
	var log bytes.Buffer
	w := &Worker{cfg: Config{Store: s}, log: slog.New(slog.NewTextHandler(&log, nil))}
	skewed := false
	for _, c := range []struct {
		ahead time.Duration
		fits  bool
	}{{0, true}, {25 * time.Hour, false}, {-6 * time.Second, false}, {4 * time.Second, true}} {
		ahead.Store(int64(c.ahead))
		if err := s.Heartbeat(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		if skewed = w.logSkew(skewed); skewed == c.fits || w.clockFits() != c.fits {
			t.Errorf("%s ahead: the clock fits: %t", c.ahead, !skewed)
		}
	}
	if n := strings.Count(log.String(), "clock disagrees"); n != 1 {
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
