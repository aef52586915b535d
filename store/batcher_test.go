package store_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
)

func TestGroupKeepsNeighboursFromBadRows(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			n := b.task(fmt.Sprintf("task-%d", i), "https://a.example/")
			if i == 7 {
				n.UpstreamID = "a\x00b" // PostgreSQL stores no NUL
			}
			if _, err := b.RegisterTask(context.Background(), n); (err != nil) != (i == 7) {
				t.Errorf("task %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}
