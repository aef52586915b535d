package main

import (
	"context"
	"os"
	"time"

	"github.com/memhook/memhook/cmd/internal/app"
)

// traceTimeout is the time limit for sending the last traces.
const traceTimeout = 2 * time.Second

type serveCommand struct {
	Role string `enum:"all,api,worker" default:"all" help:"What this instance does: ${enum}."`
}

// Run serves until SIGINT or SIGTERM.
func (c serveCommand) Run(ctx context.Context) error {
	cfg, err := app.ReadSettings(os.Getenv, "DATABASE_URL", "MEMHOOK_ENCRYPTION_KEY")
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		go app.TuneMemory(ctx)
	}
	log := cfg.Logger()
	app.AdoptStandardLog(log)
	for _, line := range app.MisspeltSettings(os.Environ()) {
		log.Warn(line)
	}
	stopTraces, err := startTraces(ctx)
	if err != nil {
		return err
	}
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), traceTimeout)
		defer cancel()
		if err := stopTraces(last); err != nil {
			log.Warn("could not send the last traces", "error", err)
		}
	}()
	s, err := app.Start(ctx, cfg, c.Role, log)
	if ctx.Err() != nil && err != nil { // nobody was told to send requests here yet
		log.Info("stopped while it started", "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		log.Info("shutting down", "drain_time", cfg.DrainTime.String(), "timeout", cfg.ShutdownTimeout.String())
		s.Drain()
		return s.Stop()
	case err := <-s.Failed():
		_ = s.Stop()
		return err
	}
}
