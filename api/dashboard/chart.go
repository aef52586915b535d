package dashboard

import (
	"fmt"
	"html/template"
	"math"
	"strings"
	"time"

	"github.com/memhook/memhook/api/verdict"
	"github.com/memhook/memhook/store"
)

// The size of a chart in its own units; the page scales it.
const (
	chartWidth, chartHeight = 600.0, 140.0
	chartLeft, chartBottom  = 52.0, 20.0
	chartMinutes            = 60
)

// bars draws a count per minute over the last hour.
func bars(title string, minutes []store.Minute, now time.Time, value func(store.Minute) int64) template.HTML {
	byMinute := make([]int64, chartMinutes)
	start := now.UTC().Truncate(time.Minute).Add(-(chartMinutes - 1) * time.Minute)
	var most, total int64
	for _, m := range minutes {
		if i := int(m.Minute.Sub(start) / time.Minute); i >= 0 && i < chartMinutes {
			byMinute[i] = value(m)
			most, total = max(most, byMinute[i]), total+byMinute[i]
		}
	}
	var b strings.Builder
	open(&b, fmt.Sprintf("%s per minute over the last hour: %d in total, at most %d in one minute", title, total, most))
	ticks := []tick{{0, "0"}}
	if most > 0 {
		ticks = append(ticks, tick{1, number(most)})
	}
	axis(&b, start, ticks)
	width := (chartWidth - chartLeft) / chartMinutes
	for i, n := range byMinute {
		if n == 0 {
			continue
		}
		h := (chartHeight - chartBottom - 10) * float64(n) / float64(most)
		fmt.Fprintf(&b, `<rect class="bar" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%s: %d</title></rect>`,
			chartLeft+float64(i)*width+0.5, chartHeight-chartBottom-h, width-1, h, start.Add(time.Duration(i)*time.Minute).Format("15:04"), n)
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) //nolint:gosec // numbers and our own words
}

// lines draws quantiles of durations per minute over the last hour, on a logarithmic scale.
func lines(title string, minutes []store.Minute, now time.Time, value func(store.Minute) store.Histogram) template.HTML {
	quantiles := []struct {
		name string
		q    float64
	}{{"p50", 0.5}, {"p95", 0.95}, {"p99", 0.99}}
	start := now.UTC().Truncate(time.Minute).Add(-(chartMinutes - 1) * time.Minute)
	least, most := math.Inf(1), 0.0
	points := make([]map[int]float64, len(quantiles)) // by minute, in seconds
	for k := range points {
		points[k] = make(map[int]float64)
	}
	for _, m := range minutes {
		i := int(m.Minute.Sub(start) / time.Minute)
		for k, q := range quantiles {
			if d, ok := value(m).Quantile(q.q); ok && i >= 0 && i < chartMinutes {
				points[k][i] = max(d.Seconds(), 0.0005)
				least, most = min(least, points[k][i]), max(most, points[k][i])
			}
		}
	}
	var b strings.Builder
	if most == 0 {
		open(&b, title+" over the last hour: no measurements")
		axis(&b, start, nil)
		b.WriteString("</svg>")
		return template.HTML(b.String()) //nolint:gosec // our own words
	}
	low, high := math.Floor(math.Log10(least)), math.Ceil(math.Log10(most)+1e-9)
	high = max(high, low+1)
	open(&b, fmt.Sprintf("%s per minute over the last hour, p50, p95 and p99, from %s to %s",
		title, verdict.Span(time.Duration(least*1e9)), verdict.Span(time.Duration(most*1e9))))
	var ticks []tick
	for e := low; e <= high; e++ {
		ticks = append(ticks, tick{(e - low) / (high - low), tickLabel(math.Pow(10, e))})
	}
	axis(&b, start, ticks)
	for k, q := range quantiles {
		drawLine(&b, q.name, points[k], func(s float64) float64 { return (math.Log10(s) - low) / (high - low) }, start)
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) //nolint:gosec // numbers and our own words
}

// tickLabel writes a power of ten of seconds in one short unit.
func tickLabel(seconds float64) string {
	switch {
	case seconds < 0.9:
		return fmt.Sprintf("%.0f ms", seconds*1000)
	case seconds < 900:
		return fmt.Sprintf("%.0f s", seconds)
	case seconds < 9000:
		return fmt.Sprintf("%.0f min", seconds/60)
	default:
		return fmt.Sprintf("%.0f h", seconds/3600)
	}
}

func drawLine(b *strings.Builder, name string, points map[int]float64, scale func(float64) float64, start time.Time) {
	x := func(i int) float64 {
		return chartLeft + (float64(i)+0.5)*(chartWidth-chartLeft)/chartMinutes
	}
	y := func(s float64) float64 {
		return chartHeight - chartBottom - (chartHeight-chartBottom-10)*scale(s)
	}
	var path strings.Builder
	previous := -2
	for i := range chartMinutes {
		s, ok := points[i]
		if !ok {
			continue
		}
		command := "L"
		if previous != i-1 {
			command = "M"
		}
		previous = i
		fmt.Fprintf(&path, "%s%.1f %.1f", command, x(i), y(s))
		fmt.Fprintf(b, `<circle class="dot %s" cx="%.1f" cy="%.1f" r="2"><title>%s %s: %s</title></circle>`,
			name, x(i), y(s), start.Add(time.Duration(i)*time.Minute).Format("15:04"), name, verdict.Span(time.Duration(s*1e9)))
	}
	fmt.Fprintf(b, `<path class="line %s" d="%s"/>`, name, path.String())
}

func open(b *strings.Builder, label string) {
	fmt.Fprintf(b, `<svg class="chart" viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">`,
		chartWidth, chartHeight, template.HTMLEscapeString(label))
}

// tick is a mark of the vertical axis, at a share of its height.
type tick struct {
	at    float64
	label string
}

func axis(b *strings.Builder, start time.Time, ticks []tick) {
	for _, t := range ticks {
		y := chartHeight - chartBottom - (chartHeight-chartBottom-10)*t.at
		fmt.Fprintf(b, `<path class="grid" d="M%.0f %.1fH%.0f"/><text class="tick" x="%.0f" y="%.1f" text-anchor="end">%s</text>`,
			chartLeft, y, chartWidth, chartLeft-6, y+4, t.label)
	}
	for i := 0; i < chartMinutes; i += 15 {
		x := chartLeft + float64(i)*(chartWidth-chartLeft)/chartMinutes
		fmt.Fprintf(b, `<text class="tick" x="%.1f" y="%.0f">%s</text>`,
			x, chartHeight-4, start.Add(time.Duration(i)*time.Minute).Format("15:04"))
	}
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
		fmt.Fprintf(&b, `<rect class="%s" x="%.0f" y="0" width="%.0f" height="%.0f"><title>%s: %s after %d ms</title></rect>`,
			class, float64(most-len(recent)+i)*width, width-1, height, a.At.UTC().Format("15:04:05"), said, a.DurationMS)
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) //nolint:gosec // numbers and our own words
}
