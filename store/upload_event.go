package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// emitForUpload emits the event of an upload that has failed, or of which nothing is known, to the endpoint of its callback
// URL and to the app's other endpoints that ask for such events.
func (s *Store) emitForUpload(ctx context.Context, tx pgx.Tx, u *Upload) error {
	apps, err := lockApps(ctx, tx, []uuid.UUID{u.AppID}, "for share")
	if err != nil || apps[u.AppID] == uuid.Nil {
		return err // nobody is left to hear of it
	}
	event := Event{AppID: u.AppID, Type: EventUploadFailed, CreatedAt: *u.FinishedAt, Upload: u, Traceparent: u.Traceparent}
	if u.Status == UploadUnknown {
		event.Type = EventUploadUnknown
	}
	own := Registration{AppID: u.AppID, CallbackURL: u.CallbackURL}
	destinations, err := s.ensureEndpoints(ctx, tx, []Registration{own})
	if err != nil {
		return err
	}
	to := destinations[callback{own.AppID, own.CallbackURL}]
	rows, err := tx.Query(ctx, `
		select e.id as endpoint_id, e.event_types, `+parksNow("e")+` as parked, case when e.id = $2 then $3 else '' end as suffix
		from endpoints e
		where e.app_id = $1 and e.deleted_at is null and (e.id = $2 or e.event_types @> array[$4::text])
		order by e.id
		for key share`, u.AppID, to.endpoint, to.suffix, event.Type)
	found, err := many[recipient](rows, err)
	if err != nil {
		return fmt.Errorf("read endpoints that ask for %s: %w", event.Type, err)
	}
	found = slices.DeleteFunc(found, func(r recipient) bool { return !r.wants(event.Type) })
	if err := lockBacklogOf(ctx, tx, found); err != nil {
		return err
	}
	return s.emit(ctx, tx, []emission{{event: event, to: found}})
}
