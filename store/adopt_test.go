package store_test

import (
	"time"
)

// adopted calls AdoptOrphans until it adopts something, for at most a time.
func (b *bundle) adopted(within time.Duration) (n int, err error) {
	b.t.Helper()
	for deadline := time.Now().Add(within); n == 0 && err == nil && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		n, err = b.AdoptOrphans(b.t.Context())
	}
	return n, err
}
