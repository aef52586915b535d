package app

import (
	"log"
	"log/slog"
	"regexp"
	"strings"
)

// AdoptStandardLog sends what libraries write to Go's standard log to ours. What they quote can be a peer's bytes, and is
// left out.
func AdoptStandardLog(to *slog.Logger) {
	log.SetFlags(0)
	log.SetOutput(standardLog{to})
}

type standardLog struct{ to *slog.Logger }

var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// Write logs one line.
func (l standardLog) Write(line []byte) (int, error) {
	l.to.Warn("a library logged a message", "line", quoted.ReplaceAllString(strings.TrimSpace(string(line)), `"…"`))
	return len(line), nil
}
