package app

import (
	"context"
	"log"
	"log/slog"
	"regexp"
	"strings"

	"github.com/memhook/memhook/store"
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

// logChange logs a change of state.
func logChange(log *slog.Logger, c store.Change) {
	level, what := slog.LevelWarn, ""
	switch c.Kind {
	case store.EventEndpointFailing:
		what = "an endpoint's breaker opened: its deliveries wait, and it is probed"
	case store.EventEndpointDisabled:
		what = "an endpoint was disabled: its deliveries wait until it is enabled"
	case store.EventEndpointRecovered:
		level, what = slog.LevelInfo, "an endpoint's breaker closed: it works again"
	case store.ChangeUsedUp:
		what = "a delivery failed for good: it has no retries left"
	}
	log.Log(context.Background(), level, what, "endpoint", c.EndpointID, "url", c.URL, "delivery", c.DeliveryID, "reason", c.Reason)
}
