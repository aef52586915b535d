package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/memhook/memhook/client"
)

type endpointsCommands struct {
	List    listEndpoints   `cmd:"" help:"List endpoints, newest first."`
	Recover recoverEndpoint `cmd:"" help:"Send again what has failed at an endpoint."`
	Test    testEndpoint    `cmd:"" help:"Send webhook.test to an endpoint and show its answer."`
	Portal  endpointPortal  `cmd:"" help:"Make a link to an endpoint's own pages, for your customer."`
}

type listEndpoints struct {
	remote

	Limit int `default:"50" help:"The maximum number of endpoints."`
}

// Run prints the endpoints.
func (c listEndpoints) Run(ctx context.Context, api *client.Client) error {
	endpoints, err := allEndpoints(ctx, api, c.Limit)
	if err != nil {
		return err
	}
	return c.print(endpoints, func(w io.Writer) {
		row(w, "ID", "ENABLED", "BREAKER", "RATE LIMIT", "DISABLED REASON", "URL")
		for _, e := range endpoints {
			row(w, e.Id, e.Enabled, e.Breaker, deref(e.RateLimit), deref(e.DisabledReason), e.Url)
		}
	})
}

// allEndpoints reads the newest endpoints of the app, at most limit.
func allEndpoints(ctx context.Context, api *client.Client, limit int) ([]client.Endpoint, error) {
	return readPages[client.Endpoint](limit, func(limit int64, cursor *string) (*http.Response, error) {
		return api.ListEndpoints(ctx, &client.ListEndpointsParams{Limit: &limit, Cursor: cursor})
	})
}

type recoverEndpoint struct {
	remote

	Endpoint string `arg:"" help:"The id of the endpoint."`
	Since    string `default:"24h" help:"Send again what has failed since then: a time (2026-01-02T15:04:05Z), or how long ago (24h)."`
}

// Run has memhook send the endpoint's failed deliveries again and prints their number.
func (c recoverEndpoint) Run(ctx context.Context, api *client.Client) error {
	since, err := sinceTime(c.Since, time.Now())
	if err != nil {
		return fmt.Errorf("--since %w", err)
	}
	got, err := client.Read[client.Recovery](api.RecoverEndpoint(ctx, c.Endpoint, nil, client.RecoverEndpointJSONRequestBody{Since: since}))
	if err != nil {
		return err
	}
	return c.print(got, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "deliveries recovered: %d\n", got.Recovered)
	})
}

// sinceTime reads a time, or how long before now it was.
func sinceTime(s string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return at, errors.New("must be a time such as 2026-01-02T15:04:05Z, or how long ago it was, such as 24h")
	}
	return at, nil
}

type testEndpoint struct {
	remote

	Endpoint string        `arg:"" help:"The id of the endpoint."`
	Timeout  time.Duration `default:"30s" help:"The maximum time to wait for the endpoint's answer."`
}

// Run sends webhook.test and prints the delivery after its first attempt. It returns an error unless it was delivered.
func (c testEndpoint) Run(ctx context.Context, api *client.Client) error {
	d, err := client.Read[client.Delivery](api.TestEndpoint(ctx, c.Endpoint, nil))
	if err != nil {
		return err
	}
	wait, stop := context.WithTimeout(ctx, c.Timeout)
	defer stop()
	for d.AttemptCount == 0 {
		if err := pause(wait, 200*time.Millisecond); err != nil {
			return fmt.Errorf("delivery %s has had no attempt within %s", d.Id, c.Timeout)
		}
		if d, err = client.Read[client.Delivery](api.GetDelivery(ctx, d.Id.String())); err != nil {
			return err
		}
	}
	if err := c.printDelivery(d, nil); err != nil {
		return err
	}
	if d.Status != client.DeliveryStatusDelivered {
		return errors.New("the endpoint did not take the test")
	}
	return nil
}

type endpointPortal struct {
	remote

	Endpoint  string        `arg:"" help:"The id of the endpoint."`
	ExpiresIn time.Duration `default:"1h" help:"How long the link works, from 1m to 168h."`
}

// Run prints a link to the endpoint's portal.
func (c endpointPortal) Run(ctx context.Context, api *client.Client) error {
	lasts := c.ExpiresIn.String()
	body := client.CreateEndpointPortalJSONRequestBody{ExpiresIn: &lasts}
	link, err := client.Read[client.PortalLink](api.CreateEndpointPortal(ctx, c.Endpoint, nil, body))
	if err != nil {
		return err
	}
	return c.print(link, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "%s\nIt works until %s.\n", link.Url, link.ExpiresAt.UTC().Format(time.RFC3339))
	})
}
