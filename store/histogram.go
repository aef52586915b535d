package store

import (
	"math"
	"time"
)

// histogramSize buckets, each √2 wide, reach from a millisecond to some twelve days.
const histogramSize = 61

// Histogram counts durations: bucket k holds those of at most √2^k milliseconds that no earlier one holds.
type Histogram []int64

func newHistogram() Histogram { return make(Histogram, histogramSize) }

func bound(k int) time.Duration {
	return time.Duration(math.Exp2(float64(k)/2) * float64(time.Millisecond))
}

func (h Histogram) observe(d time.Duration) {
	k := 0
	if ms := float64(d) / float64(time.Millisecond); ms > 1 {
		k = min(int(math.Ceil(2*math.Log2(ms)-1e-9)), histogramSize-1)
	}
	h[k]++
}

// Add adds another histogram's counts.
func (h Histogram) Add(other Histogram) {
	for k := range min(len(h), len(other)) {
		h[k] += other[k]
	}
}

// Quantile returns the duration that the share q does not exceed, to a bucket's width; false where nothing
// was counted.
func (h Histogram) Quantile(q float64) (time.Duration, bool) {
	var total, seen int64
	for _, n := range h {
		total += n
	}
	if total == 0 {
		return 0, false
	}
	rank := q * float64(total)
	for k, n := range h {
		if n > 0 && float64(seen+n) >= rank {
			from := time.Duration(0)
			if k > 0 {
				from = bound(k - 1)
			}
			return from + time.Duration((rank-float64(seen))/float64(n)*float64(bound(k)-from)), true
		}
		seen += n
	}
	return bound(histogramSize - 1), true
}
