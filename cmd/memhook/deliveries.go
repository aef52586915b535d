package main

import (
	"context"
	"io"
	"net/http"

	"github.com/memhook/memhook/client"
)

type deliveriesCommands struct {
	List   listDeliveries `cmd:"" help:"List deliveries, newest first."`
	Get    getDelivery    `cmd:"" help:"Show a delivery with its attempts."`
	Resend resendDelivery `cmd:"" help:"Send a delivery again."`
}

type listDeliveries struct {
	remote

	Status   string `enum:",pending,delivered,failed,cancelled" default:"" help:"List only these: pending, delivered, failed or cancelled."`
	Endpoint string `help:"List only deliveries to the endpoint with this id."`
	Task     string `help:"List only deliveries of the task with this id: memhook's or that of memories.ai."`
	Limit    int    `default:"50" help:"The maximum number of deliveries."`
}

// Run prints the deliveries.
func (c listDeliveries) Run(ctx context.Context, api *client.Client) error {
	task := c.Task
	if task != "" {
		found, err := findTask(ctx, api, task)
		if err != nil {
			return err
		}
		task = found.Id.String()
	}
	deliveries, err := readPages[client.Delivery](c.Limit, func(limit int64, cursor *string) (*http.Response, error) {
		return api.ListDeliveries(ctx, &client.ListDeliveriesParams{
			Limit: &limit, Cursor: cursor, Status: optional[client.ListDeliveriesParamsStatus](c.Status),
			EndpointId: optional[string](c.Endpoint), Task: optional[string](task),
		})
	})
	if err != nil {
		return err
	}
	return c.print(deliveries, func(w io.Writer) {
		row(w, "ID", "EVENT", "STATUS", "ATTEMPTS", "NEXT ATTEMPT", "CREATED", "CALLBACK URL")
		for _, d := range deliveries {
			row(w, d.Id, d.EventType, d.Status, d.AttemptCount, d.NextAttemptAt, d.CreatedAt, d.CallbackUrl)
		}
	})
}

type oneDelivery struct {
	remote

	Delivery string `arg:"" help:"The id of the delivery."`
}

type getDelivery struct{ oneDelivery }

// Run prints the delivery.
func (c getDelivery) Run(ctx context.Context, api *client.Client) error {
	return c.printDelivery(client.Read[client.Delivery](api.GetDelivery(ctx, c.Delivery)))
}

type resendDelivery struct{ oneDelivery }

// Run has memhook send the delivery again and prints it.
func (c resendDelivery) Run(ctx context.Context, api *client.Client) error {
	return c.printDelivery(client.Read[client.Delivery](api.ResendDelivery(ctx, c.Delivery, nil)))
}

// printDelivery prints a delivery, unless err is not nil.
func (r remote) printDelivery(d client.Delivery, err error) error {
	if err != nil {
		return err
	}
	return r.print(d, func(w io.Writer) {
		row(w, "id", d.Id)
		row(w, "event", d.EventType)
		row(w, "webhook-id", d.EventId)
		row(w, "status", d.Status)
		row(w, "callback", d.CallbackUrl)
		row(w, "attempts", d.AttemptCount)
		row(w, "next attempt", d.NextAttemptAt)
		row(w, "created", d.CreatedAt)
		row(w, "delivered", d.DeliveredAt)
		if d.Attempts == nil || len(*d.Attempts) == 0 {
			return
		}
		row(w)
		row(w, "ATTEMPT", "AT", "MS", "OUTCOME", "STATUS", "ERROR OR RESPONSE")
		for _, a := range *d.Attempts {
			row(w, a.Number, a.At, a.DurationMs, a.Outcome, deref(a.ResponseStatus), firstOf(a.Error, a.ResponseBody))
		}
	})
}

// deref returns what p points to, or nil.
func deref[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

// firstOf returns the beginning of the first text that is not absent.
func firstOf(texts ...*string) string {
	const longest = 120 // characters
	for _, text := range texts {
		if text != nil && *text != "" {
			runes := []rune(*text)
			return string(runes[:min(len(runes), longest)])
		}
	}
	return ""
}
