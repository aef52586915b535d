package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/memhook/memhook/cmd/internal/app"
	"github.com/memhook/memhook/webhook"
)

type listenCommand struct {
	Addr   string   `default:"127.0.0.1:9000" help:"Address to listen on."`
	Secret []string `help:"Secret (whsec_…) or public key (whpk_…) to verify webhooks with; may be repeated. Without it, nothing is verified."`
	Status int      `default:"204" help:"HTTP status to answer with."`
}

// Run prints webhooks until SIGINT or SIGTERM.
func (c listenCommand) Run(ctx context.Context) error {
	listener, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return err
	}
	fmt.Printf("listening at http://%s\n", listener.Addr())
	return app.ServeUntil(ctx, listener, c.handler(os.Stdout))
}

// handler prints each request to out and answers it.
func (c listenCommand) handler(out io.Writer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		verdict := "not verified (no --secret)"
		status := c.Status
		if len(c.Secret) > 0 {
			verdict = "verified"
			if err := webhook.Verify(body, r.Header, c.Secret...); err != nil {
				verdict, status = err.Error(), http.StatusUnauthorized
			}
		}
		var pretty bytes.Buffer
		if json.Indent(&pretty, body, "  ", "  ") != nil {
			pretty.Write(body)
		}
		at, id := time.Now().Format("15:04:05.000"), r.Header.Get(webhook.HeaderID)
		_, _ = fmt.Fprintf(out, "%s %s %s: %s\n  %s\n", at, r.Method, id, verdict, pretty.String())
		w.WriteHeader(status)
	})
}
