package main

import (
	"context"
	"os"
	"runtime/debug"
)

// What is alive is small, and what every request leaves behind is much: letting more of it gather saves
// CPU, as long as it stays below a limit.
const (
	gcPercent   = 300
	memoryLimit = 125 << 20
)

type serveCommand struct {
	Role string `enum:"all,api,worker" default:"all" help:"What this instance does: ${enum}."`
}

// Run serves until a signal comes.
func (c serveCommand) Run(ctx context.Context) error {
	cfg, err := readSettings(os.Getenv, "DATABASE_URL", "MEMHOOK_ENCRYPTION_KEY")
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
		debug.SetMemoryLimit(memoryLimit)
	}
	log := cfg.logger()
	s, err := startService(ctx, cfg, c.Role, log)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		log.Info("shutting down", "timeout", cfg.ShutdownTimeout.String())
		return s.stop()
	case err := <-s.failed:
		_ = s.stop()
		return err
	}
}
