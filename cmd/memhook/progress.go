package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// progressInterval is how often a progress prints a line if it does not write to a terminal.
const progressInterval = 3 * time.Second

// progress shows on standard error how far a long command is: a bar on a terminal, otherwise a line every
// 3 s.
type progress struct {
	what     string
	out      io.Writer
	terminal bool
	start    time.Time
	printed  time.Time
}

// newProgress returns a progress that calls the work what.
func newProgress(what string) *progress {
	return &progress{what: what, out: os.Stderr, terminal: term.IsTerminal(int(os.Stderr.Fd())), start: time.Now()}
}

// update shows that done of total is done. A total of 0 means all of it.
func (p *progress) update(done, total int) {
	now := time.Now()
	if !p.terminal && now.Sub(p.printed) < progressInterval && done != total {
		return
	}
	p.printed = now
	share := 1.0
	if total > 0 {
		share = float64(done) / float64(total)
	}
	if !p.terminal {
		_, _ = fmt.Fprintf(p.out, "%s: %d of %d (%.0f %%), %s\n", p.what, done, total, 100*share, time.Since(p.start).Round(time.Second))
		return
	}
	const width = 40
	full := int(share * width)
	bar := strings.Repeat("█", full) + strings.Repeat("·", width-full)
	_, _ = fmt.Fprintf(p.out, "\r%s [%s] %d of %d", p.what, bar, done, total)
}

// end ends the bar's line.
func (p *progress) end() {
	if p.terminal {
		_, _ = fmt.Fprintln(p.out)
	}
}
