package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The reasons for which a webhook that was accepted comes again.
const (
	againLate    = "its answer came too late or not whole"
	againLost    = "its outcome was lost with an instance or the database"
	againTwice   = "two instances sent it, one after a stop"
	againUnknown = "UNEXPLAINED"
)

type attemptJSON struct {
	At         time.Time
	DurationMS int `json:"duration_ms"`
	Outcome    string
}

// explainDuplicates finds the reason for each webhook that a receiver has accepted twice, from the attempts that the API
// tells of. One without a reason is a finding.
func (c *chaos) explainDuplicates(v *verdict, app *chaosApp, r *chaosReceiver) {
	byID := make(map[string][]received)
	for _, got := range r.all() {
		byID[got.id] = append(byID[got.id], got)
	}
	for id, all := range byID {
		if len(all) == 1 {
			continue
		}
		// A receiver that is late accepts in another order than it was asked in: the repetition may be the first.
		slices.SortFunc(all, func(a, b received) int { return a.at.Compare(b.at) })
		attempts := c.attemptsOf(app, r, all[0])
		for _, first := range all[:len(all)-1] {
			reason := c.reason(first, attempts)
			v.duplicates[reason]++
			if reason == againUnknown {
				v.addf("%s accepted %s at %s and got it again for no reason; attempts: %v", r.name, id, first.at.Format(time.TimeOnly), attempts)
			}
		}
	}
}

// reason tells why a webhook that was accepted came again.
func (c *chaos) reason(first received, attempts []attemptJSON) string {
	const clock = 50 * time.Millisecond
	harmed := slices.ContainsFunc(c.harms, func(h harm) bool {
		// What is lost is lost between the receiver's answer and the disk.
		return losesOutcomes[h.kind] && h.from.Before(first.at.Add(5*time.Second)) && h.until.Add(2*time.Second).After(first.at)
	})
	for _, a := range attempts {
		if first.at.Before(a.At.Add(-clock)) || first.at.After(a.At.Add(time.Duration(a.DurationMS)*time.Millisecond+clock)) {
			continue
		}
		switch {
		case a.Outcome == "failed":
			return againLate
		case harmed:
			return againTwice
		default:
			return againUnknown
		}
	}
	if harmed {
		return againLost
	}
	return againUnknown
}

// attemptsOf reads the attempts of the delivery by which a webhook came.
func (c *chaos) attemptsOf(app *chaosApp, r *chaosReceiver, got received) []attemptJSON {
	var list struct {
		Data []struct {
			ID          string
			EventID     string `json:"event_id"`
			CallbackURL string `json:"callback_url"`
		}
	}
	path := "/v1/deliveries?limit=500"
	if got.task.ID != "" {
		path += "&task=" + got.task.ID
	}
	_, answer := c.call(app.key, http.MethodGet, path, nil)
	if err := json.Unmarshal(answer, &list); err != nil {
		c.t.Fatalf("deliveries: %v %s", err, answer)
	}
	for _, d := range list.Data {
		if d.EventID != got.id || d.CallbackURL != r.callback(got.task.TaskID) {
			continue
		}
		var delivery struct{ Attempts []attemptJSON }
		_, answer := c.call(app.key, http.MethodGet, "/v1/deliveries/"+d.ID, nil)
		if err := json.Unmarshal(answer, &delivery); err != nil {
			c.t.Fatalf("delivery: %v %s", err, answer)
		}
		return delivery.Attempts
	}
	return nil
}

// around names the harm that was under way at a time or had ended within the two seconds before.
func (c *chaos) around(at time.Time) (names string) {
	for _, h := range c.harms {
		if h.from.Before(at) && at.Before(h.until.Add(2*time.Second)) {
			names += ", " + h.kind
		}
	}
	return names
}

// report prints the faults and the verdict, and fails the test over every finding.
func (c *chaos) report(v *verdict, seed uint64) {
	var b strings.Builder
	table := func(title string, counts map[string]int) {
		fmt.Fprintf(&b, "\n| %-58s | %7s |\n| %s | %s |\n", title, "", strings.Repeat("-", 58), strings.Repeat("-", 7))
		for _, name := range slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Or(counts[b]-counts[a], cmp.Compare(a, b)) }) {
			fmt.Fprintf(&b, "| %-58s | %7d |\n", name, counts[name])
		}
	}
	fates, kinds, repeated := make(map[string]int), make(map[string]int), 0
	for _, task := range c.tasks {
		fates[task.fate]++
	}
	for _, h := range c.harms {
		kinds[h.kind]++
		fmt.Fprintf(&b, "%7.1fs  %-40s %5.1fs  %s\n", h.from.Sub(c.begin).Seconds(), h.kind, h.until.Sub(h.from).Seconds(), h.what)
	}
	for _, at := range v.sim.ViolatedAt {
		fmt.Fprintf(&b, "%7.1fs  request over the limit%s\n", at.Sub(c.begin).Seconds(), c.around(at))
	}
	for _, n := range v.duplicates {
		repeated += n
	}
	table("faults", kinds)
	table("tasks by fate", fates)
	table("webhooks that came again, and why", v.duplicates)
	table("verdict", map[string]int{
		"faults": len(c.harms), "tasks": len(c.tasks), "events received, one a subscriber": v.events, "webhooks accepted": v.webhooks, "events in the feed": v.inFeed, "of them again": repeated,
		"polls": v.sim.Requests, "requests over the limit": v.sim.Violations, "most requests of an account in a second": v.sim.MaxPerWindow, "findings": len(v.wrong),
	})
	c.t.Logf("seed %d, %.0f requests a second an account\n%s", seed, c.rps, b.String())
	for _, w := range v.wrong[:min(len(v.wrong), 20)] {
		c.t.Error(w)
	}
}
