package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// ChangeUsedUp is the kind of a [Change] in which a delivery failed for good; the other kinds are the types of the events
// about endpoints.
const ChangeUsedUp = "delivery.failed"

// Change is a change of state that attempts have caused and that an operator wants to know of. It happens once, on one
// instance.
type Change struct {
	Kind       string // EventEndpointFailing, EventEndpointDisabled, EventEndpointRecovered or ChangeUsedUp
	EndpointID uuid.UUID
	URL        string    // of the endpoint
	DeliveryID uuid.UUID // whose attempt it was
	Reason     string    // what the receiver answered, or why it did not
}

// changesOf returns what an attempt changes, given the events about its endpoint that follow.
func changesOf(ep *Endpoint, r AttemptResult, events []string) (list []Change) {
	c := Change{EndpointID: ep.ID, URL: ep.URL, DeliveryID: r.DeliveryID}
	switch {
	case r.Error != nil:
		c.Reason = *r.Error
	case r.ResponseStatus != nil:
		c.Reason = fmt.Sprintf("the receiver answered %d", *r.ResponseStatus)
	}
	for _, c.Kind = range events {
		list = append(list, c)
	}
	if !r.Delivered && r.NextAttemptAt == nil {
		c.Kind = ChangeUsedUp
		list = append(list, c)
	}
	return list
}

// raise enters into the outbox of alerts what changes an endpoint's state there.
func raise(ctx context.Context, tx pgx.Tx, changes []Change, at time.Time) error {
	for _, c := range changes {
		a := Alert{Subject: "endpoint:" + c.EndpointID.String(), State: c.Kind, Link: "/admin/endpoints/" + c.EndpointID.String(), At: at}
		switch c.Kind {
		case EventEndpointFailing:
			a.Summary = "The endpoint " + c.URL + " is failing: " + c.Reason + ". Its webhooks wait."
		case EventEndpointDisabled:
			a.Summary = "The endpoint " + c.URL + " was disabled: " + c.Reason + ". Its webhooks wait until it is enabled."
		case EventEndpointRecovered:
			a.Summary, a.Good = "The endpoint "+c.URL+" works again.", true
		case ChangeUsedUp: // told once until the endpoint has recovered
			a.Subject, a.Link = "used-up:"+c.EndpointID.String(), "/admin/deliveries?status=failed&endpoint_id="+c.EndpointID.String()
			a.Summary = "Retries are used up: webhooks for " + c.URL + " have failed for good: " + c.Reason +
				". Recover the endpoint once it is repaired."
		}
		if err := raiseAlert(ctx, tx, a); err != nil {
			return err
		}
		if !a.Good {
			continue
		}
		if _, err := tx.Exec(ctx, `delete from alerts where subject = $1`, "used-up:"+c.EndpointID.String()); err != nil {
			return fmt.Errorf("forget alert: %w", err)
		}
	}
	return nil
}
