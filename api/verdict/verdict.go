// Package verdict judges whether webhooks come in time, and says where to act if not. The overview, /admin/v1/stats, the
// metrics and the alerts speak of the same findings.
package verdict

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/memhook/memhook/store"
)

const (
	// lateQueue is how long a delivery may wait for a worker.
	lateQueue = 10 * time.Second
	// lateWebhook is how old a webhook may be that waits after a failed attempt.
	lateWebhook = 30 * time.Second
	// lateLatency is the p95 from event to delivery above which there is a finding.
	lateLatency = time.Minute
	// lateRound is how long polling each task of an account once may take.
	lateRound = 15 * time.Minute
	// recently is the time whose attempts count for the share of those that failed. failedMost is the largest share without
	// a finding, and failedLeast the number of attempts below which a share says nothing.
	recently    = 5 * time.Minute
	failedMost  = 0.1
	failedLeast = 10
	// endpointsNamed is how many endpoints are named one by one.
	endpointsNamed = 5
)

// Finding is something that delays webhooks, or may.
type Finding struct {
	Code string // stable, such as endpoint-failing
	Bad  bool   // everybody's webhooks wait; otherwise some receivers' do, or may
	Text string
	Link string // the path of the dashboard's page where to act, or empty
}

// Verdict is the judgment of one moment.
type Verdict struct {
	Findings []Finding // the worst first; none: webhooks come in time

	Oldest      time.Duration // age of the oldest webhook that waits for an enabled endpoint after a failed attempt
	Retrying    int64         // deliveries that wait for their next attempt
	Parked      int64         // deliveries that wait for their endpoint to take them
	FailedShare float64       // of the attempts of the last five minutes
}

// Of judges the state of the service.
func Of(st *store.Stats, now time.Time) (v Verdict) {
	for _, w := range st.Waiting {
		v.Retrying, v.Parked = v.Retrying+w.Retrying, v.Parked+w.Parked
		if w.Enabled {
			v.Oldest = max(v.Oldest, w.Age(now))
		}
	}
	if len(st.Instances) == 0 {
		v.add(Finding{
			"no-instance", true, "No instance with workers is running. Nothing is polled and nothing is delivered.", "/admin/#instances",
		})
	}
	v.pauses(st, now)
	for i := range st.Accounts {
		v.account(&st.Accounts[i], st.Backlogs[st.Accounts[i].ID])
	}
	v.queue(st)
	v.endpoints(st, now)
	v.attempts(st, now)
	if p95, ok := store.Totals(st.Minutes).Latency.Quantile(0.95); ok && p95 > lateLatency {
		v.add(Finding{
			"latency", false, "In the last hour, one delivery in twenty took longer than " + Span(p95) + ".", "/admin/deliveries?status=failed",
		})
	}
	sort.SliceStable(v.Findings, func(i, j int) bool { return v.Findings[i].Bad && !v.Findings[j].Bad })
	return v
}

func (v *Verdict) add(f Finding) { v.Findings = append(v.Findings, f) }

// pauses says what an operator has paused and perhaps forgotten.
func (v *Verdict) pauses(st *store.Stats, now time.Time) {
	for _, what := range []struct{ name, text string }{
		{"deliveries", "Deliveries have been paused for %s. Events wait until they are resumed."},
		{"polling", "Polling has been paused for %s. No task becomes ready and nothing is submitted until it is resumed."},
	} {
		var longest time.Duration
		paused := false
		for _, queue := range store.Pausable[what.name] {
			if since, ok := st.Paused[queue]; ok {
				paused, longest = true, max(longest, now.Sub(since))
			}
		}
		if paused {
			v.add(Finding{what.name + "-paused", true, fmt.Sprintf(what.text, Span(longest)), "/admin/#queues"})
		}
	}
}

// Round is how long polling each task of an account once takes.
func Round(a *store.Account, backlog int64) time.Duration {
	return time.Duration(float64(backlog) / a.RequestsPerSecond * float64(time.Second))
}

func (v *Verdict) account(a *store.Account, backlog int64) {
	f := Finding{Bad: true, Link: "/admin/accounts/" + a.ID.String()}
	reason := "."
	if a.StateReason != nil {
		reason = ": " + *a.StateReason
	}
	switch {
	case a.State == store.AccountRefused:
		f.Code, f.Text = "account-refused", fmt.Sprintf("memories.ai refuses the account %s%s", a.Name, reason)
	case a.State == store.AccountUnavailable:
		f.Code, f.Text = "account-unavailable", fmt.Sprintf("memories.ai does not answer for the account %s%s", a.Name, reason)
	case a.State == store.AccountRateLimited:
		f.Code = "account-rate-limited"
		f.Text = fmt.Sprintf("memories.ai rate-limits the account %s, so something else uses its budget%s", a.Name, reason)
	case Round(a, backlog) > lateRound:
		f.Code, f.Bad = "account-full", false
		f.Text = fmt.Sprintf("Polling each of the %s of the account %s once takes %s at its budget of %s requests/s.",
			Count(backlog, "task"), a.Name, Span(Round(a, backlog)), strconv.FormatFloat(a.RequestsPerSecond, 'f', 2, 64))
	default:
		return
	}
	v.add(f)
}

func (v *Verdict) queue(st *store.Stats) {
	var oldest time.Duration
	for _, j := range st.Jobs {
		if j.State == "available" && st.Paused[j.Queue].IsZero() && slices.Contains(store.Pausable["deliveries"], j.Queue) {
			oldest = max(oldest, time.Duration(j.OldestSecs*float64(time.Second)))
		}
	}
	if oldest > lateQueue {
		v.add(Finding{
			"queue-late", true,
			"Deliveries wait for a worker, the oldest for " + Span(oldest) + ". Add an instance, or look for what blocks the workers.",
			"/admin/jobs/",
		})
	}
}

func (v *Verdict) attempts(st *store.Stats, now time.Time) {
	var failed, all int64
	for _, m := range st.Minutes {
		if now.Sub(m.Minute) < recently+time.Minute {
			failed, all = failed+m.FailedAttempts, all+m.FailedAttempts+m.Deliveries
		}
	}
	if all == 0 {
		return
	}
	v.FailedShare = float64(failed) / float64(all)
	if st.Failing > 0 && all >= failedLeast && v.FailedShare > failedMost {
		v.add(Finding{
			"attempts-failing", false, fmt.Sprintf("%.0f %% of the %s of the last five minutes failed.", 100*v.FailedShare, Count(all, "attempt")),
			"/admin/endpoints?state=failing",
		})
	}
}

// endpoints says which endpoints do not take their webhooks.
func (v *Verdict) endpoints(st *store.Stats, now time.Time) {
	named, more := 0, int64(0)
	for i := range st.Waiting {
		w := &st.Waiting[i]
		failing := w.FailingSince != nil && (w.Breaker != store.BreakerClosed || w.Age(now) > lateWebhook)
		late := w.Age(now) > lateWebhook
		if w.Enabled && !failing && !late {
			continue
		}
		if named++; named > endpointsNamed {
			more++
			continue
		}
		f := Finding{Link: "/admin/endpoints/" + w.EndpointID.String()}
		waiting := fmt.Sprintf("%s, the oldest for %s", waits(w.Retrying+w.Parked), Span(w.Age(now)))
		switch {
		case !w.Enabled:
			f.Code, f.Text = "endpoint-disabled", fmt.Sprintf("%s is disabled. %s.", w.URL, waiting)
		case failing:
			f.Code, f.Text = "endpoint-failing", fmt.Sprintf("%s has failed for %s (%s in a row). %s.",
				w.URL, Span(now.Sub(*w.FailingSince)), Count(w.Failures, "attempt"), waiting)
		case w.Parked > 0:
			f.Code, f.Text = "endpoint-behind", fmt.Sprintf("%s takes less than it is sent. %s.", w.URL, waiting)
		default: // others were delivered in between
			f.Code, f.Text = "webhooks-waiting", fmt.Sprintf("%s has not accepted some of its webhooks. %s.", w.URL, waiting)
		}
		v.add(f)
	}
	if more > 0 {
		text := fmt.Sprintf("%d more endpoints are failing, disabled or behind, or have webhooks that wait.", more)
		if more == 1 {
			text = "1 more endpoint is failing, disabled or behind, or has webhooks that wait."
		}
		v.add(Finding{"endpoints-more", false, text, "/admin/endpoints?state=failing"})
	}
}

func waits(n int64) string {
	if n == 1 {
		return "1 webhook waits"
	}
	return Count(n, "webhook") + " wait"
}
