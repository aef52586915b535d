package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/memhook/memhook/client"
	"github.com/memhook/memhook/cmd/internal/app"
	"github.com/memhook/memhook/webhook"
)

type listenCommand struct {
	Addr     string   `default:"127.0.0.1:9000" help:"Address to listen on."`
	Secret   []string `help:"Secret (whsec_…) or public key (whpk_…) to verify webhooks with; may be repeated."`
	Status   int      `default:"204" help:"HTTP status to answer with."`
	URL      string   `env:"MEMHOOK_URL" help:"Without --secret: the memhook at which to register this receiver as an endpoint, and from which to read its secret."`
	Key      string   `env:"MEMHOOK_API_KEY" help:"The app's API key at --url."`
	Callback string   `help:"The URL at which memhook reaches this receiver. Default: http://ADDR/hooks, with 127.0.0.1 for all interfaces."`
}

// Run prints webhooks until SIGINT or SIGTERM.
func (c listenCommand) Run(ctx context.Context) error {
	listener, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return err
	}
	fmt.Printf("listening at http://%s\n", listener.Addr())
	secrets := func(bool) []string { return c.Secret }
	if len(c.Secret) == 0 && c.URL != "" {
		if secrets, err = c.register(ctx, cmp.Or(c.Callback, "http://"+reachable(listener.Addr().String())+"/hooks")); err != nil {
			return err
		}
	}
	return app.ServeUntil(ctx, listener, c.handler(os.Stdout, secrets))
}

// register makes this receiver an endpoint of the memhook at --url, unless it is one already. It returns how to get
// the endpoint's secret; reading it anew finds a rotated one.
func (c listenCommand) register(ctx context.Context, callback string) (secrets func(anew bool) []string, err error) {
	api, err := remote{URL: c.URL, Key: c.Key}.ProvideClient()
	if err != nil {
		return nil, err
	}
	endpoint, err := findEndpoint(ctx, api, callback)
	if err != nil {
		return nil, fmt.Errorf("register at %s: %w", c.URL, err)
	}
	if !endpoint.Enabled || endpoint.Breaker != client.Closed {
		if _, err := client.Read[client.Endpoint](api.EnableEndpoint(ctx, endpoint.Id.String(), nil)); err != nil {
			return nil, fmt.Errorf("enable endpoint %s: %w", endpoint.Id, err)
		}
	}
	read := func() (string, error) {
		got, err := client.Read[client.EndpointSecret](api.GetEndpointSecret(ctx, endpoint.Id.String()))
		return got.Secret, err
	}
	secret, err := read()
	if err != nil {
		return nil, fmt.Errorf("read the secret of endpoint %s: %w", endpoint.Id, err)
	}
	fmt.Printf("registered at %s as endpoint %s; callback URL: %s\n", c.URL, endpoint.Id, callback)
	return func(anew bool) []string {
		if !anew {
			return []string{secret}
		}
		fresh, err := read()
		if err != nil {
			return nil
		}
		return []string{fresh}
	}, nil
}

// findEndpoint returns the app's endpoint of a callback URL. It creates the endpoint if there is none.
func findEndpoint(ctx context.Context, api *client.Client, callback string) (client.Endpoint, error) {
	target, err := webhook.ParseTarget(callback)
	if err != nil {
		return client.Endpoint{}, fmt.Errorf("the callback URL %w", err)
	}
	created, err := client.Read[client.Endpoint](api.CreateEndpoint(ctx, nil, client.NewEndpoint{Url: target.Endpoint()}))
	if problem, ok := errors.AsType[*client.Problem](err); !ok || problem.Status != http.StatusConflict {
		return created, err
	}
	all, err := allEndpoints(ctx, api, maxEndpoints)
	if err != nil {
		return client.Endpoint{}, err
	}
	i := slices.IndexFunc(all, func(e client.Endpoint) bool { return e.Url == target.Endpoint() })
	if i < 0 {
		return client.Endpoint{}, fmt.Errorf("%s is taken, and is not among the app's endpoints", target.Endpoint())
	}
	return all[i], nil
}

// maxEndpoints is the number of endpoints that listen looks through for its own.
const maxEndpoints = 10_000

// handler prints each request to out and answers it. It asks secrets anew before it refuses a webhook.
func (c listenCommand) handler(out io.Writer, secrets func(anew bool) []string) http.Handler {
	verify := func(body []byte, header http.Header) error {
		err := webhook.Verify(body, header, secrets(false)...)
		if err == nil {
			return nil
		}
		if fresh := secrets(true); fresh != nil {
			err = webhook.Verify(body, header, fresh...)
		}
		return err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 8<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		verdict, status := "not verified (no --secret, and no --url to read it from)", c.Status
		if len(secrets(false)) > 0 {
			verdict = "verified"
			if err := verify(body, r.Header); err != nil {
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
