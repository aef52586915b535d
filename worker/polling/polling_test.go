package polling_test

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/memhook/memhook/worker/polling"
)

func at(s int) polling.Moment { return polling.At(time.Unix(int64(s), 0)) }

func TestChoose(t *testing.T) {
	t.Parallel()
	s := polling.NewSurvival()
	now := at(1000)
	waiting := polling.Task{Registered: at(900), Polled: at(980)}
	longer := polling.Task{Registered: at(900), Polled: at(950)}
	hinted := polling.Task{Registered: at(900), Polled: at(990), Hinted: at(995)}
	justPolled := polling.Task{Registered: at(900), Polled: at(999)}
	busy := polling.Task{Registered: at(900), Polled: at(900), Busy: true}
	failing := polling.Task{Registered: at(900), Polled: at(970), Failures: 9}
	settling := polling.Task{Kind: polling.Settling, Registered: at(0), Polled: at(950), Grown: at(600)}
	unknown := polling.Task{Kind: polling.Settling, Registered: at(0), Grown: at(600)}
	indexing := polling.Task{Kind: polling.Indexing, Registered: at(0), Polled: at(950), Grown: at(600)}
	cases := []struct {
		name  string
		tasks []polling.Task
		want  int
	}{
		{"nothing", nil, -1},
		{"the one that waits longer", []polling.Task{waiting, longer}, 1},
		{"a hinted one before all", []polling.Task{longer, hinted}, 1},
		{"none within its least interval", []polling.Task{justPolled}, -1},
		{"none that is under way", []polling.Task{busy, waiting}, 1},
		{"none that keeps failing", []polling.Task{failing, waiting}, 1},
		{"settling counts less", []polling.Task{settling, longer}, 1},
		{"settling, and nobody knows when it was polled", []polling.Task{longer, unknown}, 1},
		{"settling counts less than indexing", []polling.Task{settling, indexing}, 1},
	}
	for _, c := range cases {
		if got, _ := new(polling.Shares).Choose(s, c.tasks, now); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
	if _, wake := new(polling.Shares).Choose(s, []polling.Task{justPolled, failing}, now); wake != at(1001) {
		t.Errorf("wake at %v", wake.Time())
	}
}

func TestSurvivalLearnsAndIsKept(t *testing.T) {
	t.Parallel()
	s := polling.NewSurvival()
	before := s.Ready(90*time.Second, 150*time.Second)
	for range 500 { // every task is ready between 90 and 150 seconds
		s.Observe(0, time.Second, false)
		s.Observe(time.Second, 90*time.Second, false)
		s.Observe(90*time.Second, 150*time.Second, true)
	}
	if p := s.Ready(90*time.Second, 150*time.Second); p < 0.8 || p <= before {
		t.Errorf("between 90 and 150 seconds: %.2f, before %.2f", p, before)
	}
	if p := s.Ready(0, 60*time.Second); p > 0.2 {
		t.Errorf("in the first minute: %.2f", p)
	}
	if p := s.AtOnce(); p > 0.02 {
		t.Errorf("at once: %.3f", p)
	}
	before = s.Growth()
	for range 100 { // no list ever grows
		s.ObserveGrowth(0, 10*time.Minute, false)
	}
	if w := s.Growth(); w > before/10 {
		t.Errorf("growth: weight %.4f after 100 lists that did not grow, %.4f before", w, before)
	}
	values := s.Values()
	kept, err := polling.Restore(values)
	if err != nil || math.Abs(kept.Ready(0, 100*time.Second)-s.Ready(0, 100*time.Second)) > 1e-6 || math.Abs(kept.Growth()-s.Growth()) > 1e-6 {
		t.Errorf("not kept: %v", err)
	}
	fresh, err := polling.Restore(make([]float32, len(values)))
	if err != nil || fresh.Ready(0, time.Minute) != polling.NewSurvival().Ready(0, time.Minute) {
		t.Errorf("zeros are not a new one: %v", err)
	}
	values[3] = -1
	for _, bad := range [][]float32{nil, {1}, make([]float32, len(values)-2), values} {
		if _, err := polling.Restore(bad); err == nil {
			t.Errorf("%v was read", bad)
		}
	}
	at := polling.NewSurvival()
	for range 200 {
		at.Observe(0, time.Millisecond, true)
	}
	if p := at.AtOnce(); p < 0.9 {
		t.Errorf("all are ready at once: %.2f", p)
	}
}

// Probabilities stay between 0 and 1 whatever is observed.
func TestSurvivalStaysADistribution(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := polling.NewSurvival()
		for range rapid.IntRange(0, 50).Draw(t, "observations") {
			last := time.Duration(rapid.Int64Range(0, int64(48*time.Hour)).Draw(t, "last"))
			s.Observe(last, last+time.Duration(rapid.Int64Range(-5, int64(time.Hour)).Draw(t, "more")), rapid.Bool().Draw(t, "ready"))
		}
		a := time.Duration(rapid.Int64Range(0, int64(72*time.Hour)).Draw(t, "a"))
		b := a + time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "b"))
		if p := s.Ready(a, b); !(p >= 0 && p <= 1) {
			t.Fatalf("Ready(%s, %s) = %v", a, b, p)
		}
		if p, q := s.Ready(a, b), s.Ready(a, b+time.Minute); q < p {
			t.Fatalf("Ready falls from %v to %v", p, q)
		}
		if p := s.AtOnce(); !(p >= 0 && p <= 1) {
			t.Fatalf("AtOnce = %v", p)
		}
		if score := polling.Score(s, &polling.Task{Registered: at(0), Polled: at(0).Add(a)}, at(0).Add(b)); !(score >= 0) || math.IsInf(score, 0) {
			t.Fatalf("Score = %v", score)
		}
	})
}
