package store

import (
	"context"

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
	return s.emitToApp(ctx, tx, event, uuid.Nil, destinations[callback{own.AppID, own.CallbackURL}])
}
