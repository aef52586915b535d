package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"
)

// follower reads the feed of all apps while everything goes on, as a client does: by the id of the last event that it has.
type follower struct {
	c    *chaos
	quit chan struct{}
	wg   sync.WaitGroup
	got  []string
}

func (c *chaos) follow() *follower {
	f := &follower{c: c, quit: make(chan struct{})}
	f.wg.Go(func() {
		for {
			select {
			case <-f.quit:
				return
			case <-time.After(50 * time.Millisecond):
				f.read()
			}
		}
	})
	return f
}

// read reads one page and reports whether that was the feed's end.
func (f *follower) read() (end bool) {
	path := "/admin/v1/events?limit=500"
	if len(f.got) > 0 {
		path += "&after=" + f.got[len(f.got)-1]
	}
	var page struct{ Data []struct{ ID string } }
	status, answer := f.c.call(testAdminToken, http.MethodGet, path, nil)
	if status != http.StatusOK || json.Unmarshal(answer, &page) != nil {
		return false // its instance is gone, or the database
	}
	for _, event := range page.Data {
		f.got = append(f.got, event.ID)
	}
	return len(page.Data) == 0
}

// finish reads on to the feed's end and returns all that it has got.
func (f *follower) finish() []string {
	if f.quit != nil {
		close(f.quit)
		f.wg.Wait()
	}
	until(f.c.t, time.Minute, "the feed is read to its end", f.read)
	return f.got
}

// checkFeed judges the feed: its follower has got all of it, each event once and in its order, and it has what the receivers got.
func (c *chaos) checkFeed(v *verdict) {
	late := &follower{c: c} // begins when all is over, and sees what is there
	before := len(late.finish())
	followed := c.follower.finish()
	whole := late.finish()
	v.inFeed = len(whole)
	place := make(map[string]int)
	for i, id := range followed {
		if _, again := place[id]; again {
			v.addf("the feed has told %s again", id)
		}
		place[id] = i
	}
	for _, id := range whole[:before] {
		if _, ok := place[id]; !ok {
			v.addf("the feed has skipped %s", id)
		}
	}
	there := make(map[string]bool)
	for _, id := range whole {
		there[id] = true
	}
	for _, id := range followed {
		if !there[id] {
			v.addf("the feed has told %s, which is not there any more", id)
		}
	}
	if len(followed) == len(whole) && !slices.Equal(followed, whole) {
		v.addf("the feed has changed its order")
	}
	for _, app := range c.apps {
		for _, r := range app.receivers {
			for _, got := range r.all() {
				if !there[got.id] {
					v.addf("%s got %s, which the feed does not have", r.name, got.id)
				}
			}
		}
	}
}
