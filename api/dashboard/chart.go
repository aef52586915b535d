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
	chartHeight           = 150.0
	chartLeft, chartRight = 50.0, 4.0
	chartTop, chartBottom = 8.0, 20.0
	tickWide              = 9.5 // of a character of the axis, as large as it is on a phone
)

// The widths of a chart that has half a row, and of one that has a whole one.
const (
	halfWide = 600.0
	rowWide  = 1220.0
)

// chart is a figure: a headline, a word about it, and the picture.
type chart struct {
	Title, Headline, About string
	Kind                   string // of its legend: quantiles, attempts (which has a row of its own), or empty
	SVG                    template.HTML
}

type canvas struct {
	strings.Builder
	span timespan
	now  time.Time
	wide float64
}

func newCanvas(wide float64, span timespan, now time.Time, label string) *canvas {
	c := &canvas{span: span, now: now, wide: wide}
	fmt.Fprintf(&c.Builder, `<svg class="chart" viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">`,
		wide, chartHeight, template.HTMLEscapeString(label))
	return c
}

func (c *canvas) done() template.HTML {
	fmt.Fprint(&c.Builder, "</svg>")
	return template.HTML(c.String()) //nolint:gosec // numbers and our own words
}

func (c *canvas) width() float64 { return (c.wide - chartLeft - chartRight) / float64(c.span.bars) }

// x returns where a bar begins.
func (c *canvas) x(bar float64) float64 { return chartLeft + bar*c.width() }

// y returns the height of a share of the axis.
func (c *canvas) y(share float64) float64 {
	return chartHeight - chartBottom - (chartHeight-chartBottom-chartTop)*share
}

// tick is a mark of the vertical axis, at a share of its height.
type tick struct {
	at    float64
	label string
}

func (c *canvas) axis(ticks []tick) {
	for _, t := range ticks {
		fmt.Fprintf(&c.Builder, `<path class="grid" d="M%.0f %.1fH%.0f"/><text class="tick" x="%.0f" y="%.1f" text-anchor="end">%s</text>`,
			chartLeft, c.y(t.at), c.wide-chartRight, chartLeft-6, c.y(t.at)+4, t.label)
	}
	for i := range c.span.bars {
		at := c.span.at(c.now, i)
		label := at.Format(c.span.format)
		if !at.Equal(at.Truncate(c.span.tick)) || c.x(float64(i))+tickWide*float64(len(label)) > c.wide {
			continue
		}
		fmt.Fprintf(&c.Builder, `<path class="mark" d="M%.1f %.1fv4"/><text class="tick" x="%.1f" y="%.0f">%s</text>`,
			c.x(float64(i)), c.y(0), c.x(float64(i)), chartHeight-4, label)
	}
}

// explain lays a pane over a bar that says on hover what it stands for.
func (c *canvas) explain(bar int, text string) {
	fmt.Fprintf(&c.Builder, `<rect class="pane" x="%.1f" y="%.0f" width="%.1f" height="%.1f"><title>%s: %s</title></rect>`,
		c.x(float64(bar)), chartTop, c.width(), chartHeight-chartBottom-chartTop, c.span.at(c.now, bar).Format(c.span.Moment), text)
}

// niceTop returns a round number at or above n whose half is a whole number.
func niceTop(n int64) int64 {
	for unit := int64(1); ; unit *= 10 {
		for _, k := range []int64{2, 4, 6, 8, 10, 12, 16} {
			if top := k * unit; top >= n {
				return top
			}
		}
	}
}

// bars draws a count by bar, and the second one, of what failed, on top of the first. noun is what is counted.
func bars(wide float64, title, noun string, span timespan, slots []store.Minute, now time.Time, counts func(store.Minute) (good, bad int64)) chart {
	var most, total, totalBad int64
	for _, m := range slots {
		good, bad := counts(m)
		most, total, totalBad = max(most, good+bad), total+good, totalBad+bad
	}
	said := verdict.Count(total, noun)
	if totalBad > 0 {
		said += ", " + verdict.Number(totalBad) + " failed"
	}
	label := fmt.Sprintf("%s in the last %s: %s, at most %s in %s", title, span.Text, said, verdict.Number(most), verdict.Span(span.step))
	c := newCanvas(wide, span, now, label)
	top := niceTop(most)
	c.axis([]tick{{0, "0"}, {0.5, short(top / 2)}, {1, short(top)}})
	for i, m := range slots {
		n, failed := counts(m)
		if n+failed == 0 {
			continue
		}
		c.bar(i, "bar", 0, float64(n)/float64(top))
		c.bar(i, "bar bad", float64(n)/float64(top), float64(n+failed)/float64(top))
		text := verdict.Count(n, noun)
		if failed > 0 {
			text += ", " + verdict.Number(failed) + " failed"
		}
		c.explain(i, text)
	}
	return chart{Title: title, Headline: verdict.Number(total), SVG: c.done()}
}

func (c *canvas) bar(i int, class string, from, to float64) {
	if to <= from {
		return
	}
	gap := min(1.5, c.width()/4)
	fmt.Fprintf(&c.Builder, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="1"/>`,
		class, c.x(float64(i))+gap/2, c.y(to), c.width()-gap, c.y(from)-c.y(to))
}

// attemptBars draws how many attempts succeeded and failed, with the share of those that succeeded.
func attemptBars(span timespan, slots []store.Minute, now time.Time) chart {
	f := bars(rowWide, "Attempts", "delivery", span, slots, now, func(m store.Minute) (int64, int64) { return m.Deliveries, m.FailedAttempts })
	total := store.Totals(slots)
	f.Kind, f.Headline = "attempts", success(total.Deliveries, total.FailedAttempts)
	f.About = "of " + verdict.Count(total.Deliveries+total.FailedAttempts, "attempt") + " succeeded"
	if f.Headline == "–" {
		f.About = "no attempts"
	}
	return f
}

// success writes the share of attempts that succeeded. All or none is said only where it is true.
func success(good, bad int64) string {
	switch {
	case good+bad == 0:
		return "–"
	case bad == 0:
		return "100 %"
	}
	share := min(100*float64(good)/float64(good+bad), 99.99)
	if share >= 99 {
		return fmt.Sprintf("%.2f %%", math.Floor(share*100)/100)
	}
	return fmt.Sprintf("%.1f %%", share)
}

// short writes a number with at most four characters.
func short(n int64) string {
	switch {
	case n >= 10_000_000:
		return verdict.Number(n/1_000_000) + " M"
	case n >= 10_000:
		return verdict.Number(n/1000) + " k"
	}
	return verdict.Number(n)
}
