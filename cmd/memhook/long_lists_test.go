package main

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/memhook/memhook/cmd/memhook-dev/proc"
	"github.com/memhook/memhook/memories/memoriestest"
)

// Tasks with very long lists do not fill the memory, whoever lists them, neither one by one nor all at once. It runs beside no
// other test of the package, since it measures.
func TestLongListsDoNotFillTheMemory(t *testing.T) { //nolint:paralleltest // see above
	rates := []string{"5"}
	if long {
		rates = append(rates, "1000") // beside other packages' tests what it takes depends on what they leave of the cores
	}
	for _, perSecond := range rates {
		t.Run(perSecond+" polls a second", func(t *testing.T) { longLists(t, perSecond) }) //nolint:paralleltest // see above
	}
}

func longLists(t *testing.T, perSecond string) {
	t.Helper()
	b := newBench(t, memoriestest.Config{})
	b.env["MEMORIES_REQUESTS_PER_SECOND"] = perSecond
	b.env["MEMHOOK_SETTLE_WINDOW"] = "1s"
	in := b.start("")
	const videos = 18_000
	ids := make([]string, videos)
	for i := range ids {
		ids[i] = fmt.Sprintf("PI-6030687752852%05d", i)
	}
	const n = 40
	for i := range n {
		id := fmt.Sprint("long-", i)
		b.sim.Add(readyAfter(id, 0, ids...))
		in.register(id, nil)
	}
	b.receiver.await(t, n, time.Minute)
	polled := proc.PeakMemory(in.cmd.Process.Pid)
	type page struct {
		Data []struct {
			ID            string
			Videos        []any
			VideoIDs      []string `json:"video_ids"`
			VideosOmitted int      `json:"videos_omitted"`
		}
		Next *string `json:"next_cursor"`
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			seen := make(map[string]bool)
			for path := "/v1/tasks?limit=500"; path != ""; {
				var p page
				if status := in.call(http.MethodGet, path, nil, &p); status != http.StatusOK {
					t.Errorf("list: %d", status)
					return
				}
				for _, task := range p.Data {
					seen[task.ID] = true
					if len(task.Videos) != 1000 || len(task.VideoIDs) != 1000 || task.VideosOmitted != videos-1000 {
						t.Errorf("%d videos, %d ids, %d omitted", len(task.Videos), len(task.VideoIDs), task.VideosOmitted)
					}
				}
				if path = ""; p.Next != nil {
					path = "/v1/tasks?limit=500&cursor=" + *p.Next
				}
			}
			if len(seen) != n {
				t.Errorf("%d tasks are listed, want %d", len(seen), n)
			}
		})
	}
	wg.Wait()
	peak := proc.PeakMemory(in.cmd.Process.Pid)
	t.Logf("at most %.0f MiB while %d tasks with %d videos each became ready, %.0f MiB with four lists of them", polled, n, videos, peak)
	if most := pick(240.0, 200); peak > most { // beside other packages' tests less of it is collected in time
		t.Errorf("%.0f MiB", peak)
	}
	var list page
	in.want(http.StatusOK, testAPIKey, http.MethodGet, "/v1/tasks?limit=1", nil, &list)
	var one struct{ Videos []any }
	in.want(http.StatusOK, testAPIKey, http.MethodGet, "/v1/tasks/"+list.Data[0].ID, nil, &one)
	if len(one.Videos) != videos {
		t.Errorf("the task itself has %d videos", len(one.Videos))
	}
}
