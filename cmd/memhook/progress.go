package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// progressEvery is how often a long command says how far it is where nobody watches a terminal.
const progressEvery = 3 * time.Second

// progressBar says how far a long command is: a bar on a terminal, else a line every few seconds.
type progressBar struct {
	what     string
	out      io.Writer
	terminal bool
	start    time.Time
	said     time.Time
}

func newProgress(what string) *progressBar {
	return &progressBar{what: what, out: os.Stderr, terminal: term.IsTerminal(int(os.Stderr.Fd())), start: time.Now()}
}

// update says that done of total is done; a total of 0 means that nobody knows.
func (p *progressBar) update(done, total int) {
	now := time.Now()
	if !p.terminal && now.Sub(p.said) < progressEvery && done != total {
		return
	}
	p.said = now
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
	_, _ = fmt.Fprintf(p.out, "\r%s [%s%s] %d of %d", p.what, strings.Repeat("█", full), strings.Repeat("·", width-full), done, total)
}

// end leaves the bar's line.
func (p *progressBar) end() {
	if p.terminal {
		_, _ = fmt.Fprintln(p.out)
	}
}
