package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	pgxuuid "github.com/vgarvardt/pgx-google-uuid/v5"
)

// Open connects to url with a pool of at most conns connections, retrying for at most patience while
// the database is away and calling waiting before each retry.
func Open(ctx context.Context, url string, conns int32, patience time.Duration, waiting func(error)) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	if !strings.Contains(url, "pool_max_conns") {
		cfg.MaxConns = conns
	}
	cfg.ConnConfig.RuntimeParams["application_name"] = "memhook"
	cfg.ConnConfig.RuntimeParams["timezone"] = "UTC"
	// Queues are empty at one moment and hold a hundred thousand rows at the next. A plan that was cached
	// while they were empty scans them whole until the next ANALYZE (measured: a fifth of the throughput);
	// statements here serve hundreds of rows each, so planning them anew costs little.
	cfg.ConnConfig.RuntimeParams["plan_cache_mode"] = "force_custom_plan"
	// What is waiting was written a moment ago and is in memory: hundreds of rows are found by their index, where the
	// default for spinning disks would read the table.
	cfg.ConnConfig.RuntimeParams["random_page_cost"] = "1.1"
	// Without it each id is first written as text, refused, and then written again (measured: a third of the CPU of
	// recording polls).
	cfg.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		pgxuuid.Register(conn.TypeMap())
		return nil
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	for deadline := time.Now().Add(patience); ; {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err = pool.Ping(attempt)
		cancel()
		if err == nil {
			return pool, nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			pool.Close()
			return nil, fmt.Errorf("the database could not be reached within %s: %w", patience, err)
		}
		waiting(err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}
