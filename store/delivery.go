package store

import (
	"time"

	"github.com/google/uuid"
)

// What a delivery can be.
const (
	DeliveryPending   = "pending"
	DeliveryDelivered = "delivered"
	DeliveryFailed    = "failed" // its attempts are used up
	DeliveryCancelled = "cancelled"
)

// LoadedPayload is the most bytes of a payload that [Store.LoadDeliveries] reads; [Store.Payload] reads larger ones.
const LoadedPayload = 16 << 10

// Delivery is one event on its way to one endpoint.
type Delivery struct {
	ID            uuid.UUID
	AppID         uuid.UUID
	EventID       uuid.UUID
	EventType     string
	TaskID        *uuid.UUID `db:"task"`
	EndpointID    uuid.UUID
	Status        string
	Parked        bool // waits without a job
	Generation    int  // of its job
	AttemptCount  int
	RoundStart    int // attempts made before the retry schedule last began
	NextAttemptAt *time.Time
	CreatedAt     time.Time
	DeliveredAt   *time.Time

	Suffix        string    // where loaded for sending: what its callback URL has beyond the endpoint's URL
	MergedSecrets [][]byte  // where loaded for sending: sealed secrets that sign for its suffix beside the endpoint's
	Payload       string    // where loaded for sending, unless it is longer than LoadedPayload
	PayloadBytes  int       // where loaded for sending
	Traceparent   *string   // where loaded for sending, and traced
	CallbackURL   string    // where read for a list
	Attempts      []Attempt `db:"-"` // where the method says so
}

const deliveryColumns = `d.id, d.app_id, d.event_id, d.event_type, d.task, d.endpoint_id, d.status, d.parked, d.generation, d.attempt_count,
	d.round_start, d.next_attempt_at, d.created_at, d.delivered_at`
