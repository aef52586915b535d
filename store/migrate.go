package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/memhook/memhook/migrations"
)

// ErrSchemaNewer is returned for a database that a newer memhook has migrated.
var ErrSchemaNewer = errors.New("the database's schema is newer than this memhook knows")

// SchemaState is one schema's versions.
type SchemaState struct {
	Name             string
	Current, Highest int64
}

// Migrate applies memhook's migrations, then River's, in the schema that schema.go chooses. It is safe to run in several
// processes at once, and while the version before still runs. It calls report, which may be nil, before each migration
// that is to be done. The pool must have room for two connections.
func Migrate(ctx context.Context, pool *pgxpool.Pool, report func(what string)) error {
	ctx = allowing(ctx, migrationTimeout)
	return alone(ctx, pool, func() error {
		if err := claimSchema(ctx, pool); err != nil {
			return err
		}
		return withMigrators(pool, func(ours *goose.Provider, rivers *rivermigrate.Migrator[pgx.Tx]) error {
			states, err := schemaStates(ctx, pool, ours, rivers)
			if err == nil {
				err = compareVersions(states, false)
			}
			if err != nil {
				return err
			}
			if err := migrateOurs(ctx, ours, report); err != nil {
				return err
			}
			if _, err := rivers.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
				return fmt.Errorf("migrate River's schema: %w", err)
			}
			// By River's two GIN indexes only searches of job arguments and metadata would go. Every job changes them three times;
			// without them a delivery costs PostgreSQL a tenth less.
			if _, err := pool.Exec(ctx, `drop index if exists river_job_args_index, river_job_metadata_index`); err != nil {
				return fmt.Errorf("drop unused indexes: %w", err)
			}
			_, err = dropOldKey(ctx, pool) // or an instance does, once the version before has gone
			return err
		})
	})
}

// migrationLock is the advisory lock of who migrates: the one that goose takes by default, so that versions which used goose's
// exclude and are excluded.
const migrationLock = lock.DefaultLockID

// alone runs fn while no other process runs what it was given. A transaction holds the lock, not a session, so it also works
// through a transaction pooler. It is asked for again and again: a waiting statement's snapshot would hold up an index that
// is built concurrently.
func alone(ctx context.Context, pool *pgxpool.Pool, fn func() error) error {
	for {
		var got bool
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			// By the simple protocol: the other leaves its portal open, with a snapshot that such an index waits for.
			err := tx.QueryRow(ctx, `
				select pg_try_advisory_xact_lock($1), set_config('idle_in_transaction_session_timeout', '0', true)`,
				pgx.QueryExecModeSimpleProtocol, migrationLock).Scan(&got, nil)
			if err != nil {
				return fmt.Errorf("lock the migrations: %w", err)
			}
			if !got {
				return nil
			}
			return fn()
		})
		if err != nil || got {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func migrateOurs(ctx context.Context, ours *goose.Provider, report func(string)) error {
	for {
		current, err := ours.GetDBVersion(ctx)
		if err != nil {
			return fmt.Errorf("read schema version: %w", err)
		}
		if report != nil {
			for _, source := range ours.ListSources() {
				if source.Version > current {
					report(path.Base(source.Path))
					break
				}
			}
		}
		_, err = ours.UpByOne(ctx)
		if errors.Is(err, goose.ErrNoNextVersion) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
	}
}

// MigrateDown removes River's schema, then memhook's, with all that they hold. It fails where there is no memhook, and
// touches nothing else.
func MigrateDown(ctx context.Context, pool *pgxpool.Pool) error {
	ctx = allowing(ctx, migrationTimeout)
	return alone(ctx, pool, func() error {
		if err := checkOurs(ctx, pool); err != nil {
			return err
		}
		return withMigrators(pool, func(ours *goose.Provider, rivers *rivermigrate.Migrator[pgx.Tx]) error {
			if _, err := rivers.Migrate(ctx, rivermigrate.DirectionDown, &rivermigrate.MigrateOpts{TargetVersion: -1}); err != nil {
				return fmt.Errorf("migrate River's schema down: %w", err)
			}
			if _, err := ours.DownTo(ctx, 0); err != nil {
				return fmt.Errorf("migrate down: %w", err)
			}
			return dropSchema(ctx, pool)
		})
	})
}

// SchemaStatus returns the versions that the database has and those that this memhook knows.
func SchemaStatus(ctx context.Context, pool *pgxpool.Pool) (states []SchemaState, err error) {
	err = withMigrators(pool, func(ours *goose.Provider, rivers *rivermigrate.Migrator[pgx.Tx]) error {
		states, err = schemaStates(ctx, pool, ours, rivers)
		return err
	})
	return states, err
}

// CheckSchema fails unless the database has exactly the versions that this memhook knows.
func CheckSchema(ctx context.Context, pool *pgxpool.Pool) error {
	states, err := SchemaStatus(ctx, pool)
	if err != nil {
		return err
	}
	return compareVersions(states, true)
}

// compareVersions returns an error for a schema that is newer than this memhook knows or, where all is set, older.
func compareVersions(states []SchemaState, all bool) error {
	for _, st := range states {
		switch {
		case st.Current > st.Highest:
			return fmt.Errorf("%w: %s is at version %d, known is %d; start the newer memhook", ErrSchemaNewer, st.Name, st.Current, st.Highest)
		case all && st.Current < st.Highest:
			return fmt.Errorf("%s is at version %d, needed is %d: run memhook migrate up", st.Name, st.Current, st.Highest)
		}
	}
	return nil
}

func schemaStates(
	ctx context.Context, pool *pgxpool.Pool, ours *goose.Provider, rivers *rivermigrate.Migrator[pgx.Tx],
) ([]SchemaState, error) {
	current, err := ourVersion(ctx, pool, ours)
	if err != nil {
		return nil, fmt.Errorf("read schema version: %w", err)
	}
	sources := ours.ListSources()
	existing, err := rivers.ExistingVersions(ctx)
	if err != nil {
		return nil, fmt.Errorf("read River's schema version: %w", err)
	}
	river := SchemaState{Name: "river", Highest: int64(len(rivers.AllVersions()))}
	for _, m := range existing {
		river.Current = max(river.Current, int64(m.Version))
	}
	return []SchemaState{{Name: "memhook", Current: current, Highest: sources[len(sources)-1].Version}, river}, nil
}

// ourVersion returns the version of memhook's migrations, 0 where there are none. Unlike goose it makes no table for them.
func ourVersion(ctx context.Context, pool *pgxpool.Pool, ours *goose.Provider) (int64, error) {
	var begun bool
	if err := pool.QueryRow(ctx, `select to_regclass($1) is not null`, goose.DefaultTablename).Scan(&begun); err != nil || !begun {
		return 0, err
	}
	return ours.GetDBVersion(ctx)
}

func withMigrators(pool *pgxpool.Pool, fn func(*goose.Provider, *rivermigrate.Migrator[pgx.Tx]) error) error {
	db := stdlib.OpenDBFromPool(pool)
	defer func() { _ = db.Close() }()
	ours, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	rivers, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("read River's migrations: %w", err)
	}
	return fn(ours, rivers)
}
