package dashboard

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/memhook/memhook/api/verdict"
	"github.com/memhook/memhook/store"
)

var chartQuantiles = []struct {
	name string
	q    float64
}{{"p99", 0.99}, {"p95", 0.95}, {"p50", 0.5}} // the last is drawn over the others

// lines draws quantiles of durations by bar, on a logarithmic scale.
func lines(title, about string, span timespan, slots []store.Minute, now time.Time, value func(store.Minute) store.Histogram) chart {
	least, most := math.Inf(1), 0.0
	points := make([]map[int]float64, len(chartQuantiles)) // by bar, in seconds
	for k, q := range chartQuantiles {
		points[k] = make(map[int]float64)
		for i, m := range slots {
			if d, ok := value(m).Quantile(q.q); ok {
				points[k][i] = max(d.Seconds(), 0.0005)
				least, most = min(least, points[k][i]), max(most, points[k][i])
			}
		}
	}
	f := chart{Title: title, About: about, Headline: "–", Kind: "quantiles"}
	if most == 0 {
		c := newCanvas(halfWide, span, now, fmt.Sprintf("%s in the last %s: no measurements", title, span.Text))
		c.axis([]tick{{0, ""}, {0.5, ""}, {1, ""}})
		f.SVG = c.done()
		return f
	}
	f.Headline = quantilesOf(value(store.Totals(slots))).P50
	low, high := math.Floor(math.Log10(least)), math.Ceil(math.Log10(most)+1e-9)
	high = max(high, low+1)
	c := newCanvas(halfWide, span, now, fmt.Sprintf("%s in the last %s, p50, p95 and p99, from %s to %s",
		title, span.Text, verdict.Span(time.Duration(least*1e9)), verdict.Span(time.Duration(most*1e9))))
	var ticks []tick
	for e := low; e <= high; e++ {
		ticks = append(ticks, tick{(e - low) / (high - low), tickLabel(math.Pow(10, e))})
	}
	c.axis(ticks)
	for k, q := range chartQuantiles {
		c.line(q.name, points[k], func(s float64) float64 { return (math.Log10(s) - low) / (high - low) })
	}
	for i := range slots {
		var said []string
		for k, q := range slices.Backward(chartQuantiles) {
			if s, ok := points[k][i]; ok {
				said = append(said, q.name+" "+verdict.Span(time.Duration(s*1e9)))
			}
		}
		if said != nil {
			c.explain(i, strings.Join(said, ", "))
		}
	}
	f.SVG = c.done()
	return f
}

// line joins the points of neighbouring bars. A point without neighbours is a dot.
func (c *canvas) line(name string, points map[int]float64, scale func(float64) float64) {
	var path strings.Builder
	for i := range c.span.bars {
		s, ok := points[i]
		if !ok {
			continue
		}
		_, before := points[i-1]
		_, after := points[i+1]
		command := "M"
		if before {
			command = "L"
		}
		x, y := c.x(float64(i)+0.5), c.y(scale(s))
		fmt.Fprintf(&path, "%s%.1f %.1f", command, x, y)
		if !before && !after {
			fmt.Fprintf(&c.Builder, `<circle class="dot %s" cx="%.1f" cy="%.1f" r="2.5"/>`, name, x, y)
		}
	}
	fmt.Fprintf(&c.Builder, `<path class="line %s" d="%s"/>`, name, path.String())
}

// tickLabel writes a power of ten of seconds in one short unit.
func tickLabel(seconds float64) string {
	switch {
	case seconds < 0.9:
		return fmt.Sprintf("%.3g ms", seconds*1000)
	case seconds < 900:
		return fmt.Sprintf("%.0f s", seconds)
	case seconds < 9000:
		return fmt.Sprintf("%.0f min", seconds/60)
	default:
		return fmt.Sprintf("%.0f h", seconds/3600)
	}
}

// sparkline draws the share of attempts that succeeded, hour by hour over a day.
func sparkline(attempts []store.EndpointAttempts, now time.Time) template.HTML {
	const hours, width, height = 24, 4.0, 18.0
	start := now.UTC().Truncate(time.Hour).Add(-(hours - 1) * time.Hour)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="spark" viewBox="0 0 %.0f %.0f" aria-hidden="true">`, hours*width, height)
	for i := range hours {
		at, class, h := start.Add(time.Duration(i)*time.Hour), "none", 2.0
		for _, a := range attempts {
			if total := a.Delivered + a.Failed; a.At.Equal(at) && total > 0 {
				class, h = "good", max(height*float64(a.Delivered)/float64(total), 3)
				if a.Failed > 0 {
					fmt.Fprintf(&b, `<rect class="bad" x="%.0f" y="0" width="%.0f" height="%.0f"/>`, float64(i)*width, width-1, height)
				}
			}
		}
		fmt.Fprintf(&b, `<rect class="%s" x="%.0f" y="%.1f" width="%.0f" height="%.1f"/>`, class, float64(i)*width, height-h, width-1, h)
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) //nolint:gosec // numbers and our own words
}

// strip draws the last attempts of an endpoint, the oldest first.
func strip(recent []store.Attempt) template.HTML {
	const most, width, height = 100, 6.0, 24.0
	var b strings.Builder
	failed := 0
	for _, a := range recent {
		if a.Outcome != store.DeliveryDelivered {
			failed++
		}
	}
	fmt.Fprintf(&b, `<svg class="strip" viewBox="0 0 %.0f %.0f" role="img" aria-label="The last %d attempts, newest on the right: %d failed">`,
		most*width, height, len(recent), failed)
	for i := range recent {
		a := recent[len(recent)-1-i]
		class := "good"
		said := "delivered"
		if a.Outcome != store.DeliveryDelivered {
			class, said = "bad", "failed"
			if a.ResponseStatus != nil {
				said = fmt.Sprintf("failed with %d", *a.ResponseStatus)
			}
		}
		fmt.Fprintf(&b, `<rect class="%s" x="%.0f" y="0" width="%.0f" height="%.0f"><title>%s: %s after %s</title></rect>`,
			class, float64(most-len(recent)+i)*width, width-1, height, a.At.UTC().Format("15:04:05"), said, millis(a.DurationMS))
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) //nolint:gosec // numbers and our own words
}
