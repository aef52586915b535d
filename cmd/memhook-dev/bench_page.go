package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

type benchPageCommand struct {
	From string `default:"docs/benchmarks.md" help:"Markdown file with the tables."`
	To   string `default:"docs/benchmarks.svg" help:"SVG file to write."`
}

// chart draws one column of a table: a bar a row, with a whisker from the lowest to the highest of the runs.
type chart struct {
	title  string
	tables []string // the reports that the rows are from, one colour each
	column string
	target float64 // a line; 0 for none
}

// charts are the page, from top to bottom and left to right.
var charts = []chart{
	{title: "Deliveries a second, by receivers (longer is better)", tables: []string{"deliveries", "outpost"}, column: "deliveries/s"},
	{title: "CPU-seconds per 1,000 deliveries (shorter is better)", tables: []string{"deliveries", "outpost"}, column: "CPU-s per 1,000"},
	{title: "Recorded to received at 50/s, p50 in ms", tables: []string{"deliveries", "outpost"}, column: "p50 ms"},
	{title: "Recorded to received at 50/s, p99 in ms", tables: []string{"deliveries", "outpost"}, column: "p99 ms"},
	{title: "Attempts in flight, the most", tables: []string{"deliveries", "outpost"}, column: "most in flight"},
	{title: "Memory of memhook, the most, in MiB", tables: []string{"deliveries"}, column: "serve, peak MiB", target: 150},
	{title: "CPU of a delivery beside its floor", tables: []string{"floor"}, column: "× floor", target: 2},
	{title: "Registrations a second", tables: []string{"registrations"}, column: "tasks/s"},
	{title: "Idle, % of a core", tables: []string{"idle"}, column: "% of a core", target: 1},
}

var chartColours = []string{"#0b7285", "#e8a87c"}

// Run draws the tables that the other benchmarks have written.
func (c benchPageCommand) Run() error {
	raw, err := os.ReadFile(c.From)
	if err != nil {
		return err
	}
	const columns, width, gap = 2, 520.0, 30.0
	heights := []float64{30, 30} // of the columns so far
	var b strings.Builder
	for i, ch := range charts {
		bars := ch.bars(string(raw))
		if len(bars) == 0 {
			continue
		}
		at := i % columns
		drawn, height := ch.draw(bars, gap+float64(at)*(width+gap), heights[at], width)
		b.WriteString(drawn)
		heights[at] += height + gap
	}
	if b.Len() == 0 {
		return fmt.Errorf("%s has no tables of benchmarks", c.From)
	}
	b.WriteString(chartLegend(gap))
	title := "What the benchmarks measured, with the spread of the runs"
	page := picture(title, columns*(width+gap)+gap, max(heights[0], heights[1]), b.String())
	return os.WriteFile(c.To, []byte(page), 0o644) //nolint:gosec // for everybody
}

func chartLegend(x float64) string {
	return fmt.Sprintf(`<rect x="%.0f" y="8" width="10" height="10" fill="%s"/><text x="%.0f" y="17">memhook</text>`+
		`<rect x="%.0f" y="8" width="10" height="10" fill="%s"/><text x="%.0f" y="17">Outpost</text>`+
		`<text x="%.0f" y="17">bars: medians; lines across: lowest to highest run; red: target</text>`+"\n",
		x, chartColours[0], x+14, x+80, chartColours[1], x+94, x+160)
}

// bar is a figure with its spread.
type bar struct {
	name, text         string
	value, least, most float64
	colour             string
}

// bars reads the chart's rows.
func (ch chart) bars(markdown string) (bars []bar) {
	for i, table := range ch.tables {
		head, rows := markdownRows(markdown, table)
		column := -1
		for k, name := range head {
			if name == ch.column {
				column = k
			}
		}
		if column < 0 {
			continue
		}
		for _, row := range rows {
			if len(row) <= column {
				continue
			}
			if figure, ok := readFigure(row[column]); ok {
				figure.name, figure.colour = row[0], chartColours[i]
				bars = append(bars, figure)
			}
		}
	}
	return bars
}

// markdownRows returns the head and the rows of the first table between a benchmark's marks.
func markdownRows(markdown, name string) (head []string, rows [][]string) {
	_, rest, _ := strings.Cut(markdown, "<!-- "+name+" -->")
	section, _, _ := strings.Cut(rest, "<!-- /"+name+" -->")
	for line := range strings.Lines(section) {
		inner, isRow := strings.CutPrefix(strings.TrimSpace(line), "|")
		if !isRow {
			if head != nil {
				return head, rows
			}
			continue
		}
		cells := strings.Split(strings.TrimSuffix(inner, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case head == nil:
			head = cells
		case !strings.HasPrefix(cells[0], "---"):
			rows = append(rows, cells)
		}
	}
	return head, rows
}

// readFigure reads a cell as [spread] writes it: a median, perhaps with the lowest and the highest.
func readFigure(cell string) (bar, bool) {
	median, rest, _ := strings.Cut(cell, " ")
	value, err := strconv.ParseFloat(median, 64)
	if err != nil {
		return bar{}, false
	}
	out := bar{text: median, value: value, least: value, most: value}
	low, high, ok := strings.Cut(strings.Trim(rest, "()"), "–")
	if ok {
		least, err1 := strconv.ParseFloat(low, 64)
		most, err2 := strconv.ParseFloat(high, 64)
		if err1 == nil && err2 == nil {
			out.least, out.most = least, most
		}
	}
	return out, true
}

// draw draws the bars at a place, and returns their height.
func (ch chart) draw(bars []bar, x, y, width float64) (string, float64) {
	const left, right, thick, step = 225.0, 55.0, 12.0, 17.0
	most := ch.target
	for _, p := range bars {
		most = max(most, p.most)
	}
	scale := (width - left - right) / niceAbove(most)
	var b strings.Builder
	fmt.Fprintf(&b, `<text x="%.0f" y="%.0f" font-size="13" font-weight="600">%s</text>`+"\n", x, y+12, ch.title)
	top := y + 22
	for i, p := range bars {
		at := top + float64(i)*step
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="end">%s</text>`, x+left-6, at+thick-2, p.name)
		fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.0f" fill="%s"/>`, x+left, at, p.value*scale, thick, p.colour)
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#212529"/>`,
			x+left+p.least*scale, at+thick/2, x+left+p.most*scale, at+thick/2)
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f">%s</text>`+"\n", x+left+p.most*scale+5, at+thick-2, p.text)
	}
	bottom := top + float64(len(bars))*step
	if ch.target > 0 {
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#c92a2a" stroke-dasharray="4 3"/>`+"\n",
			x+left+ch.target*scale, top-3, x+left+ch.target*scale, bottom)
	}
	return b.String(), bottom - y
}
