// Package warnings keeps libraries from logging what they do all day. It imports nothing else of memhook.
package warnings

import (
	"context"
	"log/slog"
)

// Only returns a logger that passes on warnings and errors, and nothing below them.
func Only(log *slog.Logger) *slog.Logger { return slog.New(handler{log.Handler()}) }

type handler struct{ slog.Handler }

// Enabled reports whether a level is passed on.
func (h handler) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && h.Handler.Enabled(ctx, l)
}
