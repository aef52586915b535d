package simulate_test

import (
	"testing"
	"time"

	"github.com/memhook/memhook/worker/polling/simulate"
)

// The claims of the README, on the two quicker workloads; `memhook-dev bench polling` has all.
func TestThePolicyBeatsTheOthers(t *testing.T) {
	t.Parallel()
	mean := func(w simulate.Workload, p func() simulate.Policy) (sum time.Duration) {
		for seed := range uint64(2) {
			sum += simulate.Simulate(w, p(), time.Second, seed+1).Mean() / 2
		}
		return sum
	}
	for _, i := range []int{1, 3} { // the saturated ones
		w := simulate.Workloads()[i]
		learnt, known, lru := mean(w, simulate.Learnt), mean(w, func() simulate.Policy { return simulate.Knowing(w) }), mean(w, simulate.LeastRecent)
		t.Logf("%s: learnt %s, known %s, least recent %s", w.Name, learnt, known, lru)
		most := lru
		if i == 3 {
			most = lru * 3 / 4
		}
		if learnt > most || float64(learnt) > 1.1*float64(known) {
			t.Errorf("%s: learnt %s, known %s, least recent %s", w.Name, learnt, known, lru)
		}
	}
}
