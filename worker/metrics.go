package worker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the counters and histograms of the workers.
type metrics struct {
	polls    *prometheus.CounterVec // by outcome
	attempts *prometheus.CounterVec // by class of outcome
	lost     prometheus.Counter     // slots that were taken and not used
	lag      prometheus.Histogram   // from ready to detected
	latency  prometheus.Histogram   // from event to delivered
}

func newMetrics(r prometheus.Registerer, skew func() time.Duration) *metrics {
	counters := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"outcome"})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	}
	m := &metrics{
		polls: counters("memhook_polls_total", "Requests to memories.ai, by what the answer meant."),
		attempts: counters("memhook_attempts_total",
			"Webhooks posted, by outcome: the class of the status, timeout, forbidden or error."),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "memhook_slots_lost_total", Help: "Slots of the request budgets that were taken and not used.",
		}),
		lag: histogram("memhook_detection_lag_seconds",
			"Estimated time from a task's first video to the poll that saw it.", prometheus.ExponentialBuckets(0.125, 2, 16)),
		latency: histogram("memhook_delivery_latency_seconds",
			"Time from an event to its delivery.", prometheus.ExponentialBuckets(0.001, 2, 20)),
	}
	if r != nil {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "memhook_clock_skew_seconds", Help: "How far this instance's clock is ahead of the database's.",
		}, func() float64 { return skew().Seconds() }))
		r.MustRegister(m.polls, m.attempts, m.lost, m.lag, m.latency)
	}
	return m
}
