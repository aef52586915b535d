package main

import (
	"context"
	"fmt"
	"os"

	"github.com/memhook/memhook/api"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/worker"
)

type rotateKeysCommand struct{}

// Run seals all secrets anew. It can be stopped and run again; the service goes on meanwhile.
func (rotateKeysCommand) Run(ctx context.Context) error {
	cfg, err := readSettings(os.Getenv, "DATABASE_URL", "MEMHOOK_ENCRYPTION_KEY")
	if err != nil {
		return err
	}
	pool, err := openDatabase(ctx, cfg, cfg.logger())
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := store.CheckSchema(ctx, pool); err != nil {
		return err
	}
	st, err := store.New(pool, store.Config{Keys: cfg.EncryptionKey, Encode: worker.EncodeEvent, Settle: cfg.SettleWindow, Logger: cfg.logger()})
	if err != nil {
		return err
	}
	if err := st.CheckKeys(ctx); err != nil {
		return err
	}
	bar := newProgress("sealing anew")
	if err := st.RotateKeys(ctx, bar.update); err != nil {
		return err
	}
	bar.end()
	fmt.Println("everything is sealed with the first key; once no instance uses the others, take them out of MEMHOOK_ENCRYPTION_KEY")
	return nil
}

type openAPICommand struct{}

// Run prints the document that a running memhook serves at /openapi.json.
func (openAPICommand) Run() error {
	doc, err := api.OpenAPI(version())
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(append(doc, '\n'))
	return err
}
