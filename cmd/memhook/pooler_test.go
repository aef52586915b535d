package main

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

// Behind PgBouncer, in both modes, what is registered is delivered once, a killed instance's work is taken over at once, and
// the time from registration to webhook is told beside that of a direct connection.
func TestBehindPgBouncer(t *testing.T) {
	t.Parallel()
	const tasks, perSecond = 150, 50
	type way struct {
		name, pooler string
		bench        *bench
		in           *instance
		registered   []time.Time
	}
	var ways []*way
	for _, w := range []*way{{name: "direct"}, {name: "session"}, {name: "transaction", pooler: store.TransactionPooler}} {
		w.bench = newBench(t, memoriestest.Config{})
		w.bench.fast()
		if w.name != "direct" {
			w.bench.env["DATABASE_URL"] = storetest.PgBouncer(t, w.bench.database, w.name)
		}
		if w.pooler != "" {
			w.bench.env["MEMHOOK_DATABASE_POOLER"] = w.pooler
		}
		w.in = w.bench.start("")
		w.registered = make([]time.Time, tasks)
		ways = append(ways, w)
	}
	var wg sync.WaitGroup
	ticker := time.NewTicker(time.Second / perSecond)
	defer ticker.Stop()
	for i := range tasks { // all three in one run, at the same time
		<-ticker.C
		for _, w := range ways {
			id := fmt.Sprintf("task-%d", i)
			w.bench.sim.Add(readyAfter(id, 0, "PI-"+id))
			w.registered[i] = time.Now()
			wg.Go(func() {
				body := map[string]any{"task_id": id, "callback_url": w.bench.receiver.URL}
				if status := w.in.call(http.MethodPost, "/v1/tasks", body, nil); status != http.StatusCreated {
					t.Errorf("%s: register: %d", w.name, status)
				}
			})
		}
	}
	wg.Wait()
	for _, w := range ways {
		got := w.bench.receiver.await(t, tasks, 30*time.Second)
		ids := make(map[string]bool)
		var took []time.Duration
		for _, r := range got {
			ids[r.id] = true
			var n int
			if _, err := fmt.Sscanf(r.task.TaskID, "task-%d", &n); err != nil {
				t.Fatal(err)
			}
			took = append(took, r.at.Sub(w.registered[n]))
		}
		if len(ids) != tasks || len(got) != tasks {
			t.Errorf("%s: %d webhooks of %d events", w.name, len(got), len(ids))
		}
		slices.Sort(took)
		t.Logf("%s: p50 %s, p99 %s", w.name, took[len(took)/2].Round(time.Millisecond), took[len(took)*99/100].Round(time.Millisecond))

		w.in.kill()
		w.bench.sim.Add(readyAfter("after", 0, "PI-after"))
		after := w.bench.start(w.in.url[len("http://"):])
		after.register("after", nil)
		w.bench.receiver.await(t, tasks+1, 15*time.Second)
	}
}
