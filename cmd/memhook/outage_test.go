package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/webhook"
)

// refusedForLong makes tasks that have been refused now and then look refused four times over five minutes: their next refusal fails
// them, if it counts as their own. The long forms wait instead.
const refusedForLong = `update tasks set refusals = 4, first_refusal_at = now() - interval '5 minutes'`

// wellTasks registers tasks and waits until memories.ai has answered each of them.
func (in *instance) wellTasks(n int) {
	in.t.Helper()
	for i := range n {
		in.sim.Add(memoriestest.Task{TaskID: fmt.Sprint(i)})
		in.register(fmt.Sprint(i), nil)
	}
	until(in.t, 2*time.Minute, "each task was answered once", func() bool {
		return in.query(`select count(*) from tasks where last_polled_at is not null and last_error is null`) == n
	})
}

// For ten minutes memories.ai calls the parameters of every task invalid. The instance is killed meanwhile.
func TestAnOutageOfRefusals(t *testing.T) {
	t.Parallel()
	const tasks = 50
	outage := pick(10*time.Second, 10*time.Minute)
	account := memoriestest.Account{ID: "one", Keys: []string{"sk-mavi-test"}, RequestsPerSecond: pick(50., 1)}
	b := newBench(t, memoriestest.Config{})
	b.env["MEMORIES_REQUESTS_PER_SECOND"] = fmt.Sprint(account.RequestsPerSecond)
	b.sim.Set(account)
	in := b.start("")
	in.wellTasks(tasks)

	account.Refusal = "0001"
	b.sim.Set(account)
	end := time.Now().Add(outage)
	until(t, 30*time.Second, "the account backs off", func() bool {
		return b.query(`select count(*) from accounts where state = 'unavailable' and state_reason like '0001: %'`) == 1
	})
	if !long {
		b.exec(refusedForLong)
	}
	asked := b.sim.Stats().Requests
	in.kill()
	b.start(strings.TrimPrefix(in.url, "http://"))
	time.Sleep(time.Until(end))
	if n := b.sim.Stats().Requests - asked; n < pick(2, 8) || n > pick(20, 40) {
		t.Errorf("%d requests in the outage", n)
	}
	if n := b.query(`select count(*) from tasks where status = 'waiting'`); n != tasks {
		t.Errorf("%d of %d tasks wait at the end of the outage", n, tasks)
	}

	account.Refusal = ""
	for i := range tasks {
		b.sim.Add(readyAfter(fmt.Sprint(i), 0, fmt.Sprintf("VI-%d", i)))
	}
	b.sim.Set(account)
	over := time.Now()
	delivered := make(map[string]bool)
	for _, got := range b.receiver.await(t, tasks, 3*time.Minute) {
		if got.event.Type != webhook.TaskReady || delivered[got.task.TaskID] {
			t.Errorf("event %s", got.body)
		}
		delivered[got.task.TaskID] = true
	}
	t.Logf("%d tasks were delivered %s after the outage", len(delivered), time.Since(over).Round(time.Second))
	if st := b.sim.Stats(); len(delivered) != tasks || st.Violations > 0 {
		t.Errorf("%d of %d tasks were delivered, %d requests exceeded the limit", len(delivered), tasks, st.Violations)
	}
}

// One of the same tasks is refused while the others are well: it fails, and no other.
func TestATaskThatIsRefusedAlone(t *testing.T) {
	t.Parallel()
	const tasks = 50
	b := newBench(t, memoriestest.Config{RequestsPerSecond: pick(50., 1)})
	b.env["MEMORIES_REQUESTS_PER_SECOND"] = fmt.Sprint(pick(50, 1))
	in := b.start("")
	in.wellTasks(tasks)
	b.sim.Add(memoriestest.Task{TaskID: "7", Refusal: "0001"})
	refused := time.Now()
	until(t, 2*time.Minute, "the task was refused", func() bool { return b.query(`select refusals from tasks where task_id = '7'`) > 0 })
	if !long {
		b.exec(refusedForLong + ` where task_id = '7'`)
	}
	got := b.receiver.await(t, 1, 9*time.Minute)[0]
	if got.event.Type != webhook.TaskFailed || got.task.TaskID != "7" || got.task.Error == nil || got.task.Error.Code != "0001" {
		t.Errorf("event %s", got.body)
	}
	if took := time.Since(refused); long && took < 5*time.Minute {
		t.Errorf("failed after %s", took)
	}
	if n := b.query(`select count(*) from tasks where status = 'waiting' and last_error is null`); n != tasks-1 {
		t.Errorf("%d of the other %d tasks are well", n, tasks-1)
	}
	if n := b.query(`select count(*) from accounts where state = 'active'`); n != 1 {
		t.Error("the account backs off")
	}
}
