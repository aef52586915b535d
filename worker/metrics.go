package worker

import "github.com/prometheus/client_golang/prometheus"

// metrics are what the workers count.
type metrics struct {
	polls    *prometheus.CounterVec // by outcome
	attempts *prometheus.CounterVec // by outcome
	lost     prometheus.Counter     // slots that were taken and not used
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		polls:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "memhook_polls_total", Help: "Requests to memories.ai, by what the answer meant."}, []string{"outcome"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "memhook_attempts_total", Help: "Webhooks posted, by outcome."}, []string{"outcome"}),
		lost:     prometheus.NewCounter(prometheus.CounterOpts{Name: "memhook_slots_lost_total", Help: "Slots of the request budgets that were taken and not used."}),
	}
	if r != nil {
		r.MustRegister(m.polls, m.attempts, m.lost)
	}
	return m
}
