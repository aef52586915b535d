package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
	"github.com/memhook/memhook/worker"
)

// PoolSize is the number of database connections in an instance's pool. The workers batch their
// statements, so few are needed.
const PoolSize = 20

// databaseWait is how long a program waits at its start for a database that does not answer.
const databaseWait = 30 * time.Second

// OpenDatabase connects to the database. It waits 30 s for one that does not answer yet.
func OpenDatabase(ctx context.Context, cfg *Settings, log *slog.Logger) (*pgxpool.Pool, error) {
	return store.Open(ctx, store.Database{
		URL: cfg.DatabaseURL, Pooler: cfg.DatabasePooler, Conns: PoolSize, Patience: databaseWait,
		Waiting: func(err error) { log.Warn("waiting for the database", "error", err) },
	})
}

// NewStore returns a store on the pool with the settings' encryption key and settle window. changed, unless it is nil, is called
// for each change of state that attempts cause.
func NewStore(pool *pgxpool.Pool, cfg *Settings, log *slog.Logger, changed func(store.Change)) (*store.Store, error) {
	return store.New(pool, store.Config{
		Keys: cfg.EncryptionKey, Encode: worker.EncodeEvent, Settle: cfg.SettleWindow, Logger: log, Changed: changed,
	})
}

// openStore opens the database, migrates it if it may, and creates the default app and account.
func (s *Service) openStore(ctx context.Context) (err error) {
	if s.pool, err = OpenDatabase(ctx, s.cfg, s.log); err != nil {
		return err
	}
	if s.cfg.AutoMigrate {
		err = store.Migrate(ctx, s.pool, func(what string) { s.log.Info("migrating the database", "migration", what) })
	} else {
		err = store.CheckSchema(ctx, s.pool)
	}
	if err != nil {
		return err
	}
	s.changes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "memhook_changes_total",
		Help: "Endpoints that began to fail, were disabled or recovered, and deliveries that failed for good, by kind.",
	}, []string{"kind"})
	for _, kind := range []string{store.EventEndpointFailing, store.EventEndpointDisabled, store.EventEndpointRecovered, store.ChangeUsedUp} {
		s.changes.WithLabelValues(kind) // an increase can be seen only from 0
	}
	if s.store, err = NewStore(s.pool, s.cfg, s.log, s.changed); err != nil {
		return err
	}
	if err := s.store.CheckKeys(ctx); err != nil {
		return err
	}
	return s.store.EnsureDefaults(ctx, store.Defaults{
		MemoriesKey: s.cfg.MemoriesAPIKey, MemoriesAPI: string(memories.APIOf(s.cfg.MemoriesAPIKey)),
		RequestsPerSecond: s.cfg.RequestsPerSecond, APIKey: s.cfg.APIKey,
	})
}

// upgradeInterval is how often an instance looks whether the version before has stopped.
const upgradeInterval = 2 * time.Second

// upgrade finishes what a migration had to leave undone while the version before runs, in the background if it must wait.
func (s *Service) upgrade(ctx, background context.Context) error {
	finished, err := s.finishUpgrade(ctx)
	if err != nil || finished {
		return err
	}
	s.log.Info("the previous version is still running; its endpoints are merged when it has stopped")
	s.activity.Go(func() {
		for logged := ""; !finished; {
			select {
			case <-background.Done():
				return
			case <-time.After(upgradeInterval):
			}
			if finished, err = s.finishUpgrade(background); err != nil && background.Err() == nil && err.Error() != logged {
				logged = err.Error()
				s.log.Warn("cannot finish the upgrade yet", "error", err)
			}
		}
	})
	return nil
}

func (s *Service) finishUpgrade(ctx context.Context) (finished bool, err error) {
	merged, finished, err := s.store.FinishUpgrade(ctx, func(raw string) (string, error) {
		target, err := webhook.ParseTarget(raw)
		return target.String(), err
	})
	if merged > 0 {
		s.log.Info("merged endpoints that differ in their query alone", "merged", merged)
	}
	if err != nil {
		return false, err
	}
	doubled, err := s.store.HashKeys(ctx)
	for _, name := range doubled {
		s.log.Warn("another account has the same API key of memories.ai: together they exceed its budget; delete one of them", "account", name)
	}
	return finished, err
}
