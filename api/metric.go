package api

import (
	"context"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/memhook/memhook/api/verdict"
	"github.com/memhook/memhook/store"
)

// requestCounts are the metrics of the API itself. Paths are counted by their pattern, so that there are few of them.
type requestCounts struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	refused  *prometheus.CounterVec
}

func newRequestCounts(r prometheus.Registerer) *requestCounts {
	c := &requestCounts{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "memhook_http_requests_total", Help: "Requests to the API and the dashboard, by route and status.",
		}, []string{"route", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "memhook_http_request_duration_seconds", Help: "How long requests took, by route.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}, []string{"route"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "memhook_admin_refused_total", Help: "Requests that were refused at the dashboard, the portals and the admin API, by reason.",
		}, []string{"reason"}),
	}
	if r != nil {
		r.MustRegister(c.requests, c.duration, c.refused)
	}
	return c
}

// Metrics serves a registry, to which it adds the state of the whole service as the database has it. Where everybody can read
// them, names is false and the label account has an account's id in place of its name.
func Metrics(r *prometheus.Registry, s *store.Store, names bool) http.Handler {
	r.MustRegister(&serviceState{store: s, names: names})
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}

// stateFresh is how long what was read for a scrape answers further ones, so that scrapes cost the database little however
// many there are.
const stateFresh = 5 * time.Second

// serviceState reads the database at a scrape. Every instance exposes the same.
type serviceState struct {
	store *store.Store
	names bool // of accounts, in place of their ids

	mu    sync.Mutex
	read  time.Time
	state gauges
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("memhook_"+name, help, labels, nil)
}

var (
	accountState   = desc("account_state", "1 for the state that the account of memories.ai is in.", "account", "state")
	accountBudget  = desc("account_budget_requests_per_second", "The account's request budget.", "account")
	accountUsed    = desc("account_used_requests_per_second", "Requests a second of the account, over the last minute or so.", "account")
	accountBacklog = desc("account_backlog_tasks", "Tasks of the account that are polled.", "account")
	tasks          = desc("tasks", "Tasks, by status.", "status")
	queueJobs      = desc("queue_jobs", "Jobs in a queue, by state.", "queue", "state")
	queueOldest    = desc("queue_oldest_seconds", "Seconds that the oldest available job has waited for a worker; 0 if paused.", "queue")
	queuePaused    = desc("queue_paused", "1 where an operator has paused the queue.", "queue")
	breakers       = desc("endpoints", "Endpoints, by the state of their breaker.", "breaker")
	disabled       = desc("endpoints_disabled", "Endpoints that are disabled.")
	parked         = desc("deliveries_parked", "Deliveries that wait for their endpoint to take them.")
	undelivered    = desc("undelivered_oldest_seconds", "Age of the oldest webhook that waits for an enabled endpoint after a failed attempt.")
	retrying       = desc("deliveries_retrying", "Deliveries that wait for their next attempt after a failed one.")
	failing        = desc("endpoints_failing", "Enabled endpoints whose last attempts failed.")
	failedShare    = desc("attempts_failed_ratio", "Share of the attempts of the last five minutes that failed, on all instances.")
	queuePausedFor = desc("queue_paused_seconds", "Seconds since an operator paused the queue; 0 if it is not paused.", "queue")
	instances      = desc("instances", "Instances with workers that are alive.")
	poolConns      = desc("database_connections", "Connections of this instance to the database, by state.", "state")
	poolWaits      = desc("database_connection_waits_total", "How often this instance had to wait for a connection.")
	oldestTx       = desc("database_oldest_transaction_seconds", "Age of the oldest transaction that keeps dead rows from being removed.")
	deadRows       = desc("database_dead_rows", "Dead rows of the tables that change most, as PostgreSQL estimates them.", "table")
	poolWaited     = desc("database_connection_waited_seconds_total", "How long this instance has waited for connections.")
)

// Describe sends nothing, so that a gauge need not be listed a second time: what is collected is checked at each scrape.
func (*serviceState) Describe(chan<- *prometheus.Desc) {}

// Collect reads the state. While the database is unavailable it sends only the instance's own metrics.
func (c *serviceState) Collect(ch chan<- prometheus.Metric) {
	pool := c.store.Pool().Stat()
	var own gauges
	own.add(poolConns, float64(pool.AcquiredConns()), "acquired")
	own.add(poolConns, float64(pool.IdleConns()), "idle")
	own.add(poolConns, float64(pool.MaxConns()), "max")
	for _, m := range append(own, c.database()...) {
		ch <- m
	}
	ch <- prometheus.MustNewConstMetric(poolWaits, prometheus.CounterValue, float64(pool.EmptyAcquireCount()))
	ch <- prometheus.MustNewConstMetric(poolWaited, prometheus.CounterValue, pool.EmptyAcquireWaitTime().Seconds())
}

// gauges are the values of one scrape.
type gauges []prometheus.Metric

func (g *gauges) add(d *prometheus.Desc, v float64, labels ...string) {
	*g = append(*g, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...))
}

// database returns what the database says, at most stateFresh old.
func (c *serviceState) database() gauges {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.read) >= stateFresh {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		c.read, c.state = time.Now(), c.readDatabase(ctx)
	}
	return c.state
}

// readDatabase returns what the database says, up to its first error.
func (c *serviceState) readDatabase(ctx context.Context) (g gauges) {
	st, err := c.store.Stats(ctx, math.MaxInt32)
	if err != nil {
		return g
	}
	for _, status := range []string{store.TaskWaiting, store.TaskReady, store.TaskFailed, store.TaskExpired, store.TaskCancelled} {
		g.add(tasks, float64(st.Tasks[status]), status)
	}
	g.addAccounts(&st, c.names)
	g.addQueues(&st)
	v := verdict.Of(&st, time.Now())
	g.add(undelivered, v.Oldest.Seconds())
	g.add(retrying, float64(v.Retrying))
	g.add(failing, float64(st.Failing))
	g.add(failedShare, v.FailedShare)
	g.add(instances, float64(len(st.Instances)))
	health, err := c.store.DatabaseHealth(ctx)
	if err != nil {
		return g
	}
	g.add(oldestTx, health.OldestTransaction.Seconds())
	for table, n := range health.DeadRows {
		g.add(deadRows, float64(n), table)
	}
	byBreaker, off, waiting, err := c.store.EndpointCounts(ctx)
	if err != nil {
		return g
	}
	for _, b := range []string{store.BreakerClosed, store.BreakerOpen, store.BreakerHalfOpen} {
		g.add(breakers, float64(byBreaker[b]), b)
	}
	g.add(disabled, float64(off))
	g.add(parked, float64(waiting))
	return g
}

func (g *gauges) addAccounts(st *store.Stats, names bool) {
	for _, a := range st.Accounts {
		account := a.ID.String()
		if names {
			account = a.Name
		}
		g.add(accountBudget, a.RequestsPerSecond, account)
		g.add(accountUsed, a.Used, account)
		g.add(accountBacklog, float64(st.Backlogs[a.ID]), account)
		for _, state := range []string{store.AccountActive, store.AccountRateLimited, store.AccountRefused, store.AccountUnavailable} {
			g.add(accountState, boolean(a.State == state), account, state)
		}
	}
}

func (g *gauges) addQueues(st *store.Stats) {
	depths := make(map[[2]string]store.QueueDepth)
	for _, q := range st.Jobs {
		depths[[2]string{q.Queue, q.State}] = q
	}
	for _, queue := range []string{store.QueuePoll, store.QueueFirst, store.QueueDeliver, store.QueueUpload} {
		for _, state := range []string{"available", "running", "scheduled", "retryable"} {
			g.add(queueJobs, float64(depths[[2]string{queue, state}].Count), queue, state)
		}
		since, paused := st.Paused[queue]
		g.add(queuePaused, boolean(paused), queue)
		oldest, pausedFor := depths[[2]string{queue, "available"}].OldestSecs, 0.0
		if paused { // more workers would not help
			oldest, pausedFor = 0, time.Since(since).Seconds()
		}
		g.add(queueOldest, oldest, queue)
		g.add(queuePausedFor, pausedFor, queue)
	}
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
