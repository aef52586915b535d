package worker

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// Whatever holds requests up, those that leave are as far apart as the budget asks, and those that could leave only much
// too late do not.
func TestPacerKeepsLateRequestsApart(t *testing.T) {
	t.Parallel()
	for _, rps := range []float64{0.2, 1, 4, 25, 1000} {
		synctest.Test(t, func(t *testing.T) {
			var all pacers
			interval := store.SlotInterval(rps)
			p := all.of(uuid.Nil, interval)
			begin := time.Now()
			var left []time.Time
			lost := 0
			for i := range 200 {
				slot := begin.Add(time.Duration(i) * interval)
				time.Sleep(time.Until(slot))
				switch i {
				case 50: // the process is held up: what was due meanwhile comes at once
					time.Sleep(maxLateness - 2*pacerTolerance)
				case 100:
					time.Sleep(5*interval + 2*maxLateness)
				}
				if p.wait(slot.Add(maxLateness)) {
					left = append(left, time.Now())
				} else {
					lost++
				}
			}
			window := max(time.Second, time.Duration(float64(time.Second)/rps))
			allowed := int(rps*window.Seconds()+1e-9) + 1
			for i := allowed; i < len(left); i++ { // one more than allowed must take longer, by what the way may add
				if took := left[i].Sub(left[i-allowed]); took < window+50*time.Millisecond && rps < 1000 || took < window {
					t.Errorf("%g/s: %d requests within %s", rps, allowed+1, took)
				}
			}
			if most := 6 + int(2*maxLateness/interval) + int(maxLateness/interval); lost == 0 || lost > most {
				t.Errorf("%g/s: %d of 200 slots were lost, want 1 to %d", rps, lost, most)
			}
			if last := left[len(left)-1]; last.Sub(begin) > 200*interval+maxLateness {
				t.Errorf("%g/s: the last left after %s", rps, last.Sub(begin))
			}
		})
	}
}

// An account's pacer outlives its leases.
func TestPacersOutliveLeases(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var all pacers
		account := uuid.New()
		begin := time.Now()
		all.of(account, time.Second).wait(begin.Add(time.Second))
		if all.of(account, time.Second).wait(begin.Add(maxLateness)) {
			t.Error("two requests of one account left at once")
		}
		if !all.of(uuid.New(), time.Second).wait(begin.Add(maxLateness)) {
			t.Error("another account's had to wait")
		}
	})
}
