package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/memhook/memhook/store"
)

type migrateCommand struct {
	Up     migrateUp     `cmd:"" help:"Bring memhook's schema and River's to what this memhook needs."`
	Down   migrateDown   `cmd:"" help:"Remove both schemas with all that they hold."`
	Status migrateStatus `cmd:"" help:"Show the versions."`
}

type (
	migrateUp   struct{}
	migrateDown struct {
		Yes bool `help:"Really remove everything."`
	}
	migrateStatus struct{}
)

// Run migrates up.
func (migrateUp) Run(ctx context.Context) error {
	cfg, err := readSettings(os.Getenv, "DATABASE_URL")
	if err != nil {
		return err
	}
	pool, err := openDatabase(ctx, cfg, cfg.logger())
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := store.Migrate(ctx, pool, func(what string) { fmt.Fprintln(os.Stderr, "migrating:", what) }); err != nil {
		return err
	}
	return migrateStatus{}.Run(ctx)
}

// Run migrates down.
func (c migrateDown) Run(ctx context.Context) error {
	if !c.Yes {
		return errors.New("this removes all tasks, events and deliveries; say --yes if you mean it")
	}
	cfg, err := readSettings(os.Getenv, "DATABASE_URL")
	if err != nil {
		return err
	}
	pool, err := openDatabase(ctx, cfg, cfg.logger())
	if err != nil {
		return err
	}
	defer pool.Close()
	return store.MigrateDown(ctx, pool)
}

// Run shows the versions.
func (migrateStatus) Run(ctx context.Context) error {
	cfg, err := readSettings(os.Getenv, "DATABASE_URL")
	if err != nil {
		return err
	}
	pool, err := openDatabase(ctx, cfg, cfg.logger())
	if err != nil {
		return err
	}
	defer pool.Close()
	states, err := store.SchemaStatus(ctx, pool)
	if err != nil {
		return err
	}
	for _, st := range states {
		fmt.Printf("%-8s version %d of %d\n", st.Name, st.Current, st.Highest)
	}
	return nil
}
