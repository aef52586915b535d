package api

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/memhook/memhook/store"
)

// Metrics serves a registry, to which it adds the accounts' states.
func Metrics(r *prometheus.Registry, s *store.Store) http.Handler {
	r.MustRegister(&accountStates{store: s})
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}

// accountStates reads the accounts at each scrape.
type accountStates struct{ store *store.Store }

var accountState = prometheus.NewDesc("memhook_account_state", "1 for the state that the account of memories.ai is in.", []string{"account", "state"}, nil)

// Describe says what there is to collect.
func (*accountStates) Describe(ch chan<- *prometheus.Desc) { ch <- accountState }

// Collect reads the states; while the database is away there are none.
func (c *accountStates) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	accounts, err := c.store.AllAccounts(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(accountState, err)
		return
	}
	for _, a := range accounts {
		for _, state := range []string{store.AccountActive, store.AccountRateLimited, store.AccountRefused, store.AccountUnavailable} {
			value := 0.0
			if a.State == state {
				value = 1
			}
			ch <- prometheus.MustNewConstMetric(accountState, prometheus.GaugeValue, value, a.Name, state)
		}
	}
}
