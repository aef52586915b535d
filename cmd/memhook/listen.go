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

	"github.com/memhook/memhook/webhook"
)

type listenCommand struct {
	Addr   string   `default:"127.0.0.1:9000" help:"Where to listen."`
	Secret []string `help:"Verify with this secret (whsec_…) or public key (whpk_…); may be repeated. Without it nothing is verified."`
	Status int      `default:"204" help:"What to answer."`
}

// Run prints webhooks until a signal comes.
func (c listenCommand) Run(ctx context.Context) error {
	listener, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return err
	}
	fmt.Printf("listening at http://%s\n", listener.Addr())
	return serveUntil(ctx, listener, c.handler(os.Stdout))
}

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
		_, _ = fmt.Fprintf(out, "%s %s %s: %s\n  %s\n", time.Now().Format("15:04:05.000"), r.Method, r.Header.Get(webhook.HeaderID), verdict, pretty.String())
		w.WriteHeader(status)
	})
}
