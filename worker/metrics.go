package worker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the workers count.
type metrics struct {
	polls    *prometheus.CounterVec // by outcome
	attempts *prometheus.CounterVec // by class of outcome
	lost     prometheus.Counter     // slots that were taken and not used
	lag      prometheus.Histogram   // from ready to detected
	latency  prometheus.Histogram   // from event to delivered
}

func newMetrics(r prometheus.Registerer, skew func() time.Duration) *metrics {
	m := &metrics{
		polls:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "memhook_polls_total", Help: "Requests to memories.ai, by what the answer meant."}, []string{"outcome"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "memhook_attempts_total", Help: "Webhooks posted, by what came of them: the class of the status, timeout, forbidden or error."}, []string{"outcome"}),
		lost:     prometheus.NewCounter(prometheus.CounterOpts{Name: "memhook_slots_lost_total", Help: "Slots of the request budgets that were taken and not used."}),
		lag:      prometheus.NewHistogram(prometheus.HistogramOpts{Name: "memhook_detection_lag_seconds", Help: "From a list's first video, as far as can be known, to the poll that saw it.", Buckets: prometheus.ExponentialBuckets(0.125, 2, 16)}),
		latency:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "memhook_delivery_latency_seconds", Help: "From an event to its delivery.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 20)}),
	}
	if r != nil {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "memhook_clock_skew_seconds", Help: "How far this instance's clock is ahead of the database's.",
		}, func() float64 { return skew().Seconds() }))
		r.MustRegister(m.polls, m.attempts, m.lost, m.lag, m.latency)
	}
	return m
}
