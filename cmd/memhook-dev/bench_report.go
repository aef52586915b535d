package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/memhook/memhook/cmd/internal/app"
)

// benchOutput has the flags that all benchmarks share.
type benchOutput struct {
	Into string `help:"Also write the report into this Markdown file, between its marks for the benchmark."`
}

// report is a benchmark's table. It tells standard error of each row as it is added, and prints the table at the end.
type report struct {
	out     benchOutput
	name    string // of the marks in the Markdown file
	head    []string
	rows    [][]string
	after   []string // lines below the table
	targets [][]string
}

// newReport begins a report.
func (o benchOutput) newReport(name string, head ...string) *report {
	return &report{out: o, name: name, head: head}
}

// row adds a row.
func (r *report) row(cells ...string) {
	r.rows = append(r.rows, cells)
	said := make([]string, 0, len(cells))
	for i, cell := range cells {
		said = append(said, strings.TrimSpace(cell+" "+r.head[i]))
	}
	fmt.Fprintln(os.Stderr, "  "+strings.Join(said, ", "))
}

// notef adds a line below the table.
func (r *report) notef(format string, args ...any) {
	r.after = append(r.after, fmt.Sprintf(format, args...))
}

// target adds a target and what was reached.
func (r *report) target(what, target, reached string, held bool) {
	verdict := "held"
	if !held {
		verdict = "**missed**"
	}
	r.targets = append(r.targets, []string{what, target, reached, verdict})
}

// end prints the report, and writes it into the Markdown file if there is one.
func (r *report) end() error {
	printTable(append([][]string{r.head}, r.rows...))
	for _, line := range r.after {
		fmt.Println(line)
	}
	if len(r.targets) > 0 {
		printTable(append([][]string{{"target", "wanted", "reached", ""}}, r.targets...))
	}
	if r.out.Into == "" {
		return nil
	}
	file, err := os.ReadFile(r.out.Into)
	if err != nil {
		return err
	}
	open, shut := "<!-- "+r.name+" -->\n", "<!-- /"+r.name+" -->"
	before, rest, found := strings.Cut(string(file), open)
	_, after, closed := strings.Cut(rest, shut)
	if !found || !closed {
		return fmt.Errorf("%s has no marks %s and %s", r.out.Into, strings.TrimSpace(open), shut)
	}
	return os.WriteFile(r.out.Into, []byte(before+open+r.markdown()+shut+after), 0o644) //nolint:gosec // for everybody
}

// printTable prints rows of which the first is the head: the first column to the left, the others to the right.
func printTable(rows [][]string) {
	fmt.Println()
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		for i, cell := range row {
			space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				fmt.Print(cell, space)
			} else {
				fmt.Print("  ", space, cell)
			}
		}
		fmt.Println()
	}
}

func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, commit %s, %s.\n\n", time.Now().UTC().Format("2006-01-02 15:04"), commit(), machine())
	markdownTable(&b, r.head, r.rows)
	for _, line := range r.after {
		b.WriteString("\n" + line + "\n")
	}
	if len(r.targets) > 0 {
		b.WriteString("\n")
		markdownTable(&b, []string{"", "target", "reached", ""}, r.targets)
	}
	return b.String()
}

func markdownTable(b *strings.Builder, head []string, rows [][]string) {
	line := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	line(head)
	line(strings.Split(strings.TrimSuffix(strings.Repeat("---,", len(head)), ","), ","))
	for _, row := range rows {
		line(row)
	}
}

// commit returns the commit of the working directory, with "-dirty" if files other than the reports in docs
// have changed.
func commit() string {
	out, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return app.Version()
	}
	name := strings.TrimSpace(string(out))
	if changed, err := exec.Command("git", "status", "--porcelain", "--", ".", ":(exclude)docs").Output(); err != nil || len(changed) > 0 {
		name += "-dirty"
	}
	return name
}

// machine describes the machine that the benchmark runs on.
func machine() string {
	model, memory := "", ""
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		model = after(string(raw), "model name")
	}
	if raw, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kib int
		if _, err := fmt.Sscan(after(string(raw), "MemTotal"), &kib); err == nil {
			memory = fmt.Sprintf(", %d GiB", (kib+1<<19)>>20)
		}
	}
	return fmt.Sprintf("%d cores (%s)%s, %s, %s", runtime.NumCPU(), model, memory, runtime.GOOS, runtime.Version())
}

// after returns the value of the first line "key : value".
func after(text, key string) string {
	_, rest, _ := strings.Cut(text, key)
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(strings.TrimLeft(line, " \t:"))
}

// decimals formats a number with a number of digits after the point.
func decimals(v float64, digits int) string { return fmt.Sprintf("%.*f", digits, v) }

// milliseconds formats a duration in milliseconds.
func milliseconds(d time.Duration) string {
	return decimals(float64(d.Microseconds())/1000, 2)
}

// spread formats the median of a value of runs, with its lowest and highest where there are several.
func spread[R any](runs []R, digits int, value func(R) float64) string {
	values := sorted(runs, value)
	median := decimals(values[len(values)/2], digits)
	if len(values) == 1 {
		return median
	}
	return fmt.Sprintf("%s (%s–%s)", median, decimals(values[0], digits), decimals(values[len(values)-1], digits))
}

// medianOf returns the median of a value of runs.
func medianOf[R any](runs []R, value func(R) float64) float64 {
	return sorted(runs, value)[len(runs)/2]
}

func sorted[R any](runs []R, value func(R) float64) []float64 {
	values := make([]float64, len(runs))
	for i, run := range runs {
		values[i] = value(run)
	}
	slices.Sort(values)
	return values
}

// plural writes a number with a noun.
func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
