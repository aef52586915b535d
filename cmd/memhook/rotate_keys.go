package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/memhook/memhook/cmd/internal/app"
	"github.com/memhook/memhook/store"
)

// progressInterval is how often rotate-keys prints how far it is.
const progressInterval = 3 * time.Second

type rotateKeysCommand struct{}

// Run encrypts all keys and secrets again. It may be interrupted and repeated, and the service may run
// meanwhile.
func (rotateKeysCommand) Run(ctx context.Context) error {
	return withDatabase(ctx, func(cfg *app.Settings, pool *pgxpool.Pool) error {
		if err := store.CheckSchema(ctx, pool); err != nil {
			return err
		}
		st, err := app.NewStore(pool, cfg, cfg.Logger(), nil)
		if err != nil {
			return err
		}
		if err := st.CheckKeys(ctx); err != nil {
			return err
		}
		var printed time.Time
		err = st.RotateKeys(ctx, func(done, total int) {
			if time.Since(printed) > progressInterval || done == total {
				printed = time.Now()
				fmt.Fprintf(os.Stderr, "encrypting: %d of %d\n", done, total)
			}
		})
		if err != nil {
			return err
		}
		fmt.Println("everything is encrypted with the first key; remove the others from MEMHOOK_ENCRYPTION_KEY once no instance uses them")
		return nil
	}, "MEMHOOK_ENCRYPTION_KEY")
}
