package polling_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/memhook/memhook/worker/polling"
)

// slots gives slots to tasks, one an interval, for as long as it says, and returns how many each app got. before is called
// before each slot.
func slots(tasks []polling.Task, interval, during time.Duration, before func(now polling.Moment),
	polled func(t *polling.Task, now polling.Moment),
) map[int32]int {
	var shares polling.Shares
	survival := polling.NewSurvival()
	got := make(map[int32]int)
	for now := at(10_000); now < at(10_000).Add(during); now = now.Add(interval) {
		before(now)
		i, _ := shares.Choose(survival, tasks, now)
		if i < 0 {
			continue
		}
		t := &tasks[i]
		shares.Serve(t)
		got[t.App]++
		t.Polled = now
		polled(t, now)
	}
	return got
}

// An app with a thousand tasks that are hinted without end has half of the slots while another has tasks to poll.
func TestHintsCostAnotherAppNoSlot(t *testing.T) {
	t.Parallel()
	const interval = 500 * time.Millisecond
	tasks := make([]polling.Task, 1000, 1024)
	for i := range tasks {
		tasks[i] = polling.Task{Registered: at(9000)}
	}
	for range 24 {
		tasks = append(tasks, polling.Task{Registered: at(9000), App: 1})
	}
	hint := func(now polling.Moment) {
		for i := range 1000 {
			tasks[i].Hinted = now
		}
	}
	ignore := func(*polling.Task, polling.Moment) {}
	if got := slots(tasks, interval, 100*time.Second, hint, ignore); got[0] != 100 || got[1] != 100 {
		t.Errorf("of 200 slots the apps got %v", got)
	}
	// With one task that is due every two seconds, the other app never waits for more than one slot.
	one := append(tasks[:1000:1000], polling.Task{Registered: at(9000), App: 1})
	var last polling.Moment
	got := slots(one, interval, 100*time.Second, hint, func(p *polling.Task, now polling.Moment) {
		if p.App != 1 {
			return
		}
		if last != 0 && now.Sub(last) > polling.MinInterval+interval {
			t.Errorf("its only task was polled after %s", now.Sub(last))
		}
		last = now
	})
	if got[1] < 40 || got[0]+got[1] != 200 {
		t.Errorf("of 200 slots the apps got %v", got)
	}
	for i := range tasks {
		tasks[i].Polled = 0
	}
	if got := slots(tasks[1000:], interval, 100*time.Second, func(polling.Moment) {}, ignore); got[1] != 200 {
		t.Errorf("alone, the other app got %v of 200 slots", got)
	}
}

// An app that returns is next, and does not catch up on what it did not want.
func TestAnIdleAppSavesUpNoSlots(t *testing.T) {
	t.Parallel()
	tasks := make([]polling.Task, 200)
	for i := range tasks {
		tasks[i] = polling.Task{Registered: at(9000), App: int32(i / 100), Busy: i >= 100}
	}
	var order []int32
	slots(tasks, 100*time.Millisecond, 20*time.Second, func(now polling.Moment) {
		if now == at(10_010) {
			for i := range tasks {
				tasks[i].Busy = false
			}
			order = nil
		}
	}, func(p *polling.Task, _ polling.Moment) { order = append(order, p.App) })
	if order[0] != 1 {
		t.Errorf("the app that returns is not next")
	}
	for i := 1; i+1 < 20; i++ {
		if order[i] == order[i+1] {
			t.Fatalf("the apps do not take turns: %v", order[:20])
		}
	}
}

func TestHintsAndLastPolls(t *testing.T) {
	t.Parallel()
	now := at(1000)
	survival := polling.NewSurvival()
	worth := polling.Task{Registered: at(100), Polled: at(500), Expires: at(9000)}
	hinted := polling.Task{Registered: at(100), Polled: at(990), Hinted: at(999), Expires: at(9000)}
	earlier := polling.Task{Registered: at(100), Polled: at(990), Hinted: at(998), Expires: at(9000)}
	failing := polling.Task{Registered: at(100), Polled: at(990), Hinted: at(999), Expires: at(9000), Failures: 5}
	rested := polling.Task{Registered: at(100), Polled: at(940), Hinted: at(999), Expires: at(9000), Failures: 3}
	last := polling.Task{Registered: at(100), Polled: at(995), Expires: at(1056)}
	sooner := polling.Task{Registered: at(100), Polled: at(990), Expires: at(1052)}
	over := polling.Task{Registered: at(100), Polled: at(900), Expires: at(990)}
	asked := polling.Task{Registered: at(100), Polled: at(997), Expires: at(1050)}
	inVain := polling.Task{Registered: at(100), Polled: at(990), Expires: at(1045), Failures: 1}
	settling := polling.Task{Kind: polling.Settling, Registered: at(100), Polled: at(900), Grown: at(900), Expires: at(1010)}
	for _, c := range []struct {
		name  string
		tasks []polling.Task
		want  int
	}{
		{"the earlier hint", []polling.Task{hinted, earlier}, 1},
		{"a failing task's hint does not bypass its backoff", []polling.Task{failing}, -1},
		{"a failing task's hint gives it no precedence", []polling.Task{rested, worth}, 1},
		{"the last poll before hints", []polling.Task{hinted, last}, 1},
		{"who expires sooner", []polling.Task{last, sooner}, 1},
		{"who has expired and was not asked", []polling.Task{sooner, over}, 1},
		{"who was asked has had it", []polling.Task{asked, worth}, 1},
		{"who was asked in vain", []polling.Task{hinted, inVain}, 1},
		{"what only settles does not expire", []polling.Task{settling, worth}, 1},
	} {
		if got, _ := new(polling.Shares).Choose(survival, c.tasks, now); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}

// Five hundred tasks that expire within the same ten seconds are all asked once more, in the order of their expiry.
func TestTasksThatExpireTogetherAreAllAsked(t *testing.T) {
	t.Parallel()
	tasks := make([]polling.Task, 1000)
	for i := range tasks {
		tasks[i] = polling.Task{Registered: at(9000), Polled: at(9990), Hinted: at(9999), Expires: at(99_000)}
		if i%2 == 0 {
			tasks[i].Expires = at(10_060).Add(time.Duration(i/2) * 20 * time.Millisecond)
		}
	}
	asked := make(map[polling.Moment]bool)
	slots(tasks, time.Second, 520*time.Second, func(polling.Moment) {}, func(p *polling.Task, now polling.Moment) {
		if now >= p.Expires.Add(-time.Minute) {
			asked[p.Expires] = true
		}
	})
	if len(asked) != 500 {
		t.Errorf("%d of 500 tasks were asked", len(asked))
	}
}

func BenchmarkChoose(b *testing.B) {
	const tasks = 100_000
	for _, apps := range []int{1, 100} {
		b.Run(fmt.Sprintf("apps=%d", apps), func(b *testing.B) {
			survival := polling.NewSurvival()
			list := make([]polling.Task, tasks)
			for i := range list {
				list[i] = polling.Task{Registered: at(i % 900), Polled: at(900 + i%100), Expires: at(90_000), App: int32(i % apps)}
			}
			var shares polling.Shares
			b.ReportAllocs()
			for b.Loop() {
				shares.Choose(survival, list, at(1100))
			}
		})
	}
}

// A task that was registered by an instance whose clock is ahead is polled, though it has waited for less than no time.
func TestATaskOfTheFutureIsPolled(t *testing.T) {
	t.Parallel()
	survival := polling.NewSurvival()
	for _, ahead := range []time.Duration{time.Second, time.Minute, 10 * time.Hour} {
		for _, polled := range []polling.Moment{0, at(0)} {
			tasks := []polling.Task{{Registered: at(1000).Add(ahead), Polled: polled}}
			if i, wake := new(polling.Shares).Choose(survival, tasks, at(1000)); i != 0 {
				t.Errorf("%s ahead, polled %v: no task is chosen, to wake at %v", ahead, polled != 0, wake)
			}
		}
	}
}
