package dashboard

import (
	"net/http"
	"time"

	"github.com/memhook/memhook/store"
)

// timespan is how far back charts look. Its bars divide it into equal steps, of which the last is under way.
type timespan struct {
	Key, Text string
	bars      int
	step      time.Duration
	tick      time.Duration // between the labels of the time axis
	format    string        // of these labels
	moment    string        // of the time of a single bar
}

var timespans = []timespan{
	{"hour", "hour", 60, time.Minute, 15 * time.Minute, "15:04", "15:04"},
	{"day", "day", 96, 15 * time.Minute, 4 * time.Hour, "15:04", "Mon 15:04"},
	{"week", "week", 168, time.Hour, 24 * time.Hour, "Mon 2", "Mon 2 Jan 15:04"},
}

// timespanOf returns the timespan that the page's URL names: the hour where it names none.
func timespanOf(r *http.Request) timespan {
	for _, s := range timespans {
		if s.Key == r.URL.Query().Get("range") {
			return s
		}
	}
	return timespans[0]
}

// choice links to a page with another timespan.
type choice struct {
	Href, Text string
	Here       bool
}

// choices returns the links to all timespans of the page.
func (s timespan) choices(r *http.Request) []choice {
	links := make([]choice, len(timespans))
	for i, other := range timespans {
		links[i] = choice{withQuery(r.URL.RequestURI(), "range", other.Key), "Last " + other.Text, other.Key == s.Key}
	}
	return links
}

// start returns the beginning of the first bar.
func (s timespan) start(now time.Time) time.Time {
	return now.UTC().Truncate(s.step).Add(-time.Duration(s.bars-1) * s.step)
}

// at returns the beginning of a bar.
func (s timespan) at(now time.Time, bar int) time.Time {
	return s.start(now).Add(time.Duration(bar) * s.step)
}

// bar returns the bar in which a time is, and false where it is in none.
func (s timespan) bar(now, at time.Time) (int, bool) {
	i := int(at.Sub(s.start(now)) / s.step)
	return i, i < s.bars && !at.Before(s.start(now))
}

// fold sums up minutes or hours by bar.
func (s timespan) fold(minutes []store.Minute, now time.Time) []store.Minute {
	lists := make([][]store.Minute, s.bars)
	for _, m := range minutes {
		if i, ok := s.bar(now, m.Minute); ok {
			lists[i] = append(lists[i], m)
		}
	}
	folded := make([]store.Minute, s.bars)
	for i, list := range lists {
		folded[i] = store.Totals(list)
		folded[i].Minute = s.at(now, i)
	}
	return folded
}

// foldAttempts sums up an endpoint's attempts by bar.
func (s timespan) foldAttempts(attempts []store.EndpointAttempts, now time.Time) []store.Minute {
	folded := make([]store.Minute, s.bars)
	for i := range folded {
		folded[i].Minute = s.at(now, i)
	}
	for _, a := range attempts {
		if i, ok := s.bar(now, a.At); ok {
			folded[i].Deliveries += a.Delivered
			folded[i].FailedAttempts += a.Failed
		}
	}
	return folded
}
