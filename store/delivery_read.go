package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// LoadDeliveries reads deliveries with their payloads if they are short, in order; nil stands for one that does not exist.
// Loads that come at the same time share a statement.
func (s *Store) LoadDeliveries(ctx context.Context, ids ...uuid.UUID) ([]*Delivery, error) {
	return s.load.Do(ctx, ids)
}

func (s *Store) loadDeliveryBatch(ctx context.Context, lists [][]uuid.UUID) ([][]*Delivery, error) {
	ids := slices.Concat(lists...)
	found, err := many[Delivery](ctx, s.pool, `
		select `+deliveryColumns+`, d.suffix, octet_length(e.payload) as payload_bytes,
			case when octet_length(e.payload) <= $2 then e.payload else '' end as payload, e.traceparent, array(
			select x.secret from endpoint_secrets x
			where x.endpoint_id = d.endpoint_id and x.suffix = d.suffix and (x.expires_at is null or x.expires_at > now())
		) as merged_secrets
		from deliveries d
		join events e on e.id = d.event_id
		where d.id = any($1)`, ids, LoadedPayload)
	return distribute(lists, byID(found, func(d *Delivery) uuid.UUID { return d.ID })), wrapped("load deliveries", err)
}

// Payload reads the payload of an event.
func (s *Store) Payload(ctx context.Context, event uuid.UUID) (payload []byte, err error) {
	// As the driver's bytes, since a text would be copied once more.
	err = s.pool.QueryRow(ctx, `select payload from events where id = $1`, event).Scan(&payload)
	if err != nil {
		return nil, fmt.Errorf("read the payload of event %s: %w", event, err)
	}
	return payload, nil
}

// DeliveryFilter narrows a list of deliveries; zero fields do not.
type DeliveryFilter struct {
	Scope              Scope // whose deliveries
	EndpointID, TaskID uuid.UUID
	Status             string
	About              string // a task's id, ours or memories.ai's, a webhook-id, or a delivery's id
}

// pendingNow is the SQL set of deliveries that may be pending: those with a live job and, of each endpoint
// that has some, the next parked ones in the order of the page. (An index on the status would cost every delivery its HOT update.)
const pendingNow = `
	select delivery from ` + withJob + ` j where state in ('available', 'running', 'retryable', 'scheduled')
	union all
	select p.id
	from endpoints e
	cross join lateral (
		select id from deliveries where endpoint_id = e.id and parked and id < $1 and id > $5 order by id %s limit $4
	) p
	where e.backlog and ($2::uuid is null or e.app_id = $2)`

// Deliveries lists deliveries, newest first, without their attempts.
func (s *Store) Deliveries(ctx context.Context, f DeliveryFilter, p Page) ([]Delivery, error) {
	conditions := `d.id < $1 and d.id > $5 and ($2::uuid is null or d.app_id = $2) and ($3 = '' or d.status = $3)`
	switch f.Status {
	case DeliveryFailed:
		conditions += ` and d.failed`
	case DeliveryCancelled:
		conditions += ` and d.cancelled`
	case DeliveryPending:
		conditions += ` and d.id in (` + fmt.Sprintf(pendingNow, p.order()) + `)`
	}
	args := []any{p.high(), f.Scope.arg(), f.Status, p.Limit, p.low()}
	if f.EndpointID != uuid.Nil {
		args = append(args, f.EndpointID)
		conditions += fmt.Sprintf(` and d.endpoint_id = $%d`, len(args))
	}
	if f.TaskID != uuid.Nil {
		args = append(args, f.TaskID)
		conditions += fmt.Sprintf(` and d.task = $%d`, len(args))
	}
	if f.About != "" {
		id, err := uuid.Parse(strings.TrimPrefix(f.About, "evt_"))
		if err != nil {
			id = uuid.Nil // nothing's
		}
		args = append(args, id, f.About)
		conditions += fmt.Sprintf(` and d.id in (
			select id from deliveries where id = $%[1]d or event_id = $%[1]d or task = $%[1]d
			union all
			select a.id
			from tasks t
			join deliveries a on a.task = t.id
			where t.task_id = $%[2]d and ($2::uuid is null or t.app_id = $2)
		)`, len(args)-1, len(args))
	}
	list, err := many[Delivery](ctx, s.pool, `
		select `+deliveryColumns+`, `+callbackURLOf("e", "d")+` as callback_url
		from (select * from deliveries d where `+conditions+` order by d.id `+p.order()+` limit $4) d
		join endpoints e on e.id = d.endpoint_id
		order by d.id desc`, args...)
	return list, wrapped("list deliveries", err)
}

// Delivery reads one delivery with its attempts.
func (s *Store) Delivery(ctx context.Context, scope Scope, id uuid.UUID) (Delivery, error) {
	d, err := one[Delivery](ctx, s.pool, `
		select `+deliveryColumns+`, `+callbackURLOf("e", "d")+` as callback_url
		from deliveries d
		join endpoints e on e.id = d.endpoint_id
		where d.id = $1 and ($2::uuid is null or d.app_id = $2)`, id, scope.arg())
	if err != nil {
		return d, err
	}
	list := []Delivery{d}
	err = s.addAttempts(ctx, list)
	return list[0], err
}

// addAttempts reads the deliveries' attempts into them.
func (s *Store) addAttempts(ctx context.Context, list []Delivery) error {
	found := byID(list, func(d *Delivery) uuid.UUID { return d.ID })
	attempts, err := many[Attempt](ctx, s.pool, `
		select delivery_id, number, at, duration_ms, outcome, response_status, error, response_headers, response_body
		from attempts where delivery_id = any($1) order by delivery_id, number`, slices.Collect(maps.Keys(found)))
	for _, a := range attempts {
		d := found[a.DeliveryID]
		d.Attempts = append(d.Attempts, a)
	}
	return wrapped("read attempts", err)
}

// TaskDeliveries reads the last deliveries of a task with their attempts, oldest first.
func (s *Store) TaskDeliveries(ctx context.Context, task uuid.UUID, most int) ([]Delivery, error) {
	list, err := many[Delivery](ctx, s.pool, `
		select `+deliveryColumns+`, `+callbackURLOf("e", "d")+` as callback_url
		from (select * from deliveries where task = $1 order by id desc limit $2) d
		join endpoints e on e.id = d.endpoint_id
		order by d.id`, task, most)
	if err != nil {
		return nil, fmt.Errorf("read deliveries: %w", err)
	}
	return list, s.addAttempts(ctx, list)
}
