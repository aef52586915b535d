package main

import (
	"context"
	"os"
	"time"
)

// traceTimeout bounds the sending of what traces are left at the end.
const traceTimeout = 2 * time.Second

type serveCommand struct {
	Role string `enum:"all,api,worker" default:"all" help:"What this instance does: ${enum}."`
}

// Run serves until a signal comes.
func (c serveCommand) Run(ctx context.Context) error {
	cfg, err := readSettings(os.Getenv, "DATABASE_URL", "MEMHOOK_ENCRYPTION_KEY")
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		go tuneMemory(ctx)
	}
	log := cfg.logger()
	adoptStandardLog(log)
	stopTraces, err := startTraces(ctx)
	if err != nil {
		return err
	}
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), traceTimeout)
		defer cancel()
		if err := stopTraces(last); err != nil {
			log.Warn("some traces were not sent", "error", err)
		}
	}()
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
