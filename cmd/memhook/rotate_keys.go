package main

import (
	"context"
	"fmt"
	"os"

	"github.com/memhook/memhook/cmd/internal/app"
	"github.com/memhook/memhook/store"
)

type rotateKeysCommand struct{}

// Run encrypts all keys and secrets again. It may be interrupted and repeated, and the service may run
// meanwhile.
func (rotateKeysCommand) Run(ctx context.Context) error {
	cfg, err := app.ReadSettings(os.Getenv, "DATABASE_URL", "MEMHOOK_ENCRYPTION_KEY")
	if err != nil {
		return err
	}
	pool, err := app.OpenDatabase(ctx, cfg, cfg.Logger())
	if err != nil {
		return err
	}
	defer pool.Close()
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
	bar := newProgress("encrypting")
	if err := st.RotateKeys(ctx, bar.update); err != nil {
		return err
	}
	bar.end()
	fmt.Println("everything is encrypted with the first key; remove the others from MEMHOOK_ENCRYPTION_KEY once no instance uses them")
	return nil
}
