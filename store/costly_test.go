package store //nolint:testpackage // the cache is not exported

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
)

// Whoever asks for a costly answer that has just expired gets it once more, and the next one a little later; one that expired
// long ago is waited for.
func TestNobodyWaitsForACostlyAnswer(t *testing.T) {
	t.Parallel()
	var reads atomic.Int64
	release := make(chan struct{}, 10)
	c := costly[int64]{fresh: time.Hour, read: func(context.Context) (int64, error) {
		<-release
		return reads.Add(1), nil
	}}
	get := func() int64 {
		n, err := c.get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	release <- struct{}{}
	if n := get(); n != 1 {
		t.Fatalf("%d", n)
	}
	c.lasts, c.until = time.Minute, time.Now().Add(-time.Second)
	for range 3 {
		if n := get(); n != 1 { // it would hang if it waited
			t.Fatalf("%d", n)
		}
	}
	release <- struct{}{}
	for deadline := time.Now().Add(5 * time.Second); get() != 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the next answer never comes")
		}
	}
	if n := reads.Load(); n != 2 {
		t.Errorf("read %d times", n)
	}
	c.lasts, c.until = time.Minute, time.Now().Add(-2*time.Minute)
	release <- struct{}{}
	if n := get(); n != 3 {
		t.Errorf("%d, an old answer", n)
	}
}
