package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/memhook/memhook/cmd/internal/app"
	"github.com/memhook/memhook/store"
)

type migrateCommand struct {
	Up     migrateUp     `cmd:"" help:"Migrate memhook's schema and River's to the versions that this memhook needs."`
	Down   migrateDown   `cmd:"" help:"Drop memhook's tables and River's with all their data."`
	Status migrateStatus `cmd:"" help:"Print the schema versions."`
}

type (
	migrateUp   struct{}
	migrateDown struct {
		Yes bool `help:"Confirm that all data will be deleted."`
	}
	migrateStatus struct{}
)

// Run migrates up and prints the versions.
func (migrateUp) Run(ctx context.Context) error {
	return withDatabase(ctx, func(pool *pgxpool.Pool) error {
		if err := store.Migrate(ctx, pool, func(what string) { fmt.Fprintln(os.Stderr, "migrating:", what) }); err != nil {
			return err
		}
		return printVersions(ctx, pool)
	})
}

// Run drops the schemas if the user has confirmed.
func (c migrateDown) Run(ctx context.Context) error {
	if !c.Yes {
		return errors.New("this deletes all tasks, events and deliveries; confirm with --yes")
	}
	return withDatabase(ctx, func(pool *pgxpool.Pool) error { return store.MigrateDown(ctx, pool) })
}

// Run prints the versions.
func (migrateStatus) Run(ctx context.Context) error {
	return withDatabase(ctx, func(pool *pgxpool.Pool) error { return printVersions(ctx, pool) })
}

// withDatabase calls do with a pool on DATABASE_URL.
func withDatabase(ctx context.Context, do func(*pgxpool.Pool) error) error {
	cfg, err := app.ReadSettings(os.Getenv, "DATABASE_URL")
	if err != nil {
		return err
	}
	pool, err := app.OpenDatabase(ctx, cfg, cfg.Logger())
	if err != nil {
		return err
	}
	defer pool.Close()
	return do(pool)
}

func printVersions(ctx context.Context, pool *pgxpool.Pool) error {
	states, err := store.SchemaStatus(ctx, pool)
	if err != nil {
		return err
	}
	for _, st := range states {
		fmt.Printf("%-8s version %d of %d\n", st.Name, st.Current, st.Highest)
	}
	return nil
}
