package main

import (
	"fmt"
	"math"
	"strings"
)

// soakPicture draws each figure of a soak over time, each on its own scale from zero.
func soakPicture(samples []soakSample) string {
	panels := []struct {
		title, unit string
		value       func(soakSample) float64
	}{
		{"resident memory of memhook", "MiB", func(x soakSample) float64 { return x.memory }},
		{"goroutines", "", func(x soakSample) float64 { return float64(x.goroutines) }},
		{"connections to PostgreSQL", "", func(x soakSample) float64 { return float64(x.connections) }},
		{"tables and indexes", "MiB", func(x soakSample) float64 { return x.tables }},
		{"live rows", "", func(x soakSample) float64 { return float64(x.live) }},
		{"dead rows", "", func(x soakSample) float64 { return float64(x.dead) }},
	}
	const columns, width, height, left, top, gap = 2, 420.0, 150.0, 70.0, 30.0, 30.0
	last := samples[len(samples)-1].at
	var b strings.Builder
	for i, p := range panels {
		x0, y0 := float64(i%columns)*(width+gap)+left, float64(i/columns)*(height+top+gap)+top
		most := 0.0
		for _, s := range samples {
			most = max(most, p.value(s))
		}
		most = niceAbove(most)
		fmt.Fprintf(&b, `<text x="%.0f" y="%.0f" font-weight="600">%s</text>`+"\n", x0, y0-10, strings.TrimSpace(p.title+" "+p.unit))
		for k := range 3 {
			y := y0 + height*(1-float64(k)/2)
			fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#dee2e6"/>`, x0, y, x0+width-left, y)
			fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="end">%s</text>`+"\n", x0-6, y+4, shortNumber(most*float64(k)/2))
		}
		b.WriteString(`<polyline fill="none" stroke="#0b7285" stroke-width="1.5" points="`)
		for _, s := range samples {
			fmt.Fprintf(&b, "%.1f,%.1f ", x0+(width-left)*s.at.Seconds()/last.Seconds(), y0+height*(1-p.value(s)/most))
		}
		b.WriteString(`"/>` + "\n")
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f">0</text>`, x0, y0+height+16)
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="end">%.0f min</text>`+"\n", x0+width-left, y0+height+16, last.Minutes())
	}
	rows := (len(panels) + columns - 1) / columns
	return picture("What a soak must not let grow, over time", columns*(width+gap), float64(rows)*(height+top+gap)+10, b.String())
}

// picture wraps SVG elements into a document of the given size.
func picture(title string, width, height float64, elements string) string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f"`+
		` font-family="system-ui, sans-serif" font-size="11" fill="#212529">
<title>%s</title>
<rect width="100%%" height="100%%" fill="#ffffff"/>
%s</svg>
`, width, height, title, elements)
}

// niceAbove returns the least number of the form 1, 2 or 5 times a power of ten that is not below v.
func niceAbove(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, k := range []float64{1, 2, 5} {
		if k*power >= v {
			return k * power
		}
	}
	return 10 * power
}

func shortNumber(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%g M", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%g k", v/1e3)
	default:
		return fmt.Sprintf("%g", v)
	}
}
