package main

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store/localpg"
)

// A job whose fetching was committed while its answer was lost with the connection is said to run on an instance that
// has never heard of it. It is freed within seconds, while the instance goes on.
func TestAJobLostOnItsWayIsFreed(t *testing.T) {
	t.Parallel()
	for queue, path := range map[string]string{"poll": "polling", "deliver_first": "deliveries"} {
		t.Run(queue, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, memoriestest.Config{})
			b.fast()
			in := b.start("")
			if status := in.admin(http.MethodPost, "/admin/v1/"+path+"/pause", nil, nil); status >= 300 {
				t.Fatalf("pause: %d", status)
			}
			until(t, 20*time.Second, "the queue is paused", func() bool {
				return b.query(`select count(*) from river_queue where name = $1 and paused_at is not null`, queue) == 1
			})
			time.Sleep(time.Second) // for a fetch that is under way
			b.sim.Add(readyAfter("lost", 0, "PI-1"))
			in.register("lost", nil)
			until(t, 20*time.Second, "the job waits", func() bool {
				return b.query(`select count(*) from river_job where queue = $1 and state = 'available'`, queue) == 1
			})
			b.exec(`
				update river_job
				set state = 'running', attempt = attempt + 1, attempted_at = now(), attempted_by = array[(select id::text from instances)]
				where queue = $1 and state = 'available'`, queue)
			if status := in.admin(http.MethodPost, "/admin/v1/"+path+"/resume", nil, nil); status >= 300 {
				t.Fatalf("resume: %d", status)
			}
			b.receiver.await(t, 1, 30*time.Second)
		})
	}
}

func TestTheDatabaseRestarts(t *testing.T) {
	t.Parallel()
	for name, sig := range map[string]syscall.Signal{"fast": syscall.SIGINT, "immediate": syscall.SIGQUIT} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pg, err := localpg.Start(t.Context(), localpg.Options{Durable: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = pg.Stop() })
			b := newBench(t, memoriestest.Config{})
			b.database = pg.URL("postgres")
			b.env["DATABASE_URL"] = b.database
			b.fast()
			in := b.start("")
			var stop atomic.Bool
			var accepted []string
			var wg sync.WaitGroup
			wg.Go(func() {
				for i := 0; !stop.Load(); i++ {
					id := fmt.Sprintf("task-%d", i)
					b.sim.Add(readyAfter(id, 0, "PI-"+id))
					if in.call(http.MethodPost, "/v1/tasks", map[string]any{"task_id": id, "callback_url": b.receiver.URL}, nil) == http.StatusCreated {
						accepted = append(accepted, id)
					}
					time.Sleep(2 * time.Millisecond)
				}
			})
			b.receiver.await(t, 100, 10*time.Second)
			if err := pg.Shutdown(sig); err != nil {
				t.Fatal(err)
			}
			until(t, 20*time.Second, "/readyz says so", func() bool {
				resp, err := http.Get(in.url + "/readyz")
				if err != nil {
					return false
				}
				_ = resp.Body.Close()
				return resp.StatusCode == http.StatusServiceUnavailable
			})
			time.Sleep(time.Second)
			if err := pg.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			back := time.Now()
			before := len(b.receiver.all())
			b.receiver.await(t, before+50, 30*time.Second)
			t.Logf("delivering again %s after the database was back", time.Since(back))
			stop.Store(true)
			wg.Wait()
			until(t, 2*time.Minute, "all accepted tasks' events have come", func() bool {
				got := make(map[string]bool)
				for _, r := range b.receiver.all() {
					got[r.task.TaskID] = true
				}
				for _, id := range accepted {
					if !got[id] {
						return false
					}
				}
				return true
			})
		})
	}
}
