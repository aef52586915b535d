package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// auditKept is for how long the audit log is kept.
const auditKept = 400 * 24 * time.Hour

// Who can change something.
const (
	ActorAdmin   = "admin"   // the admin token, over the API
	ActorSession = "session" // the dashboard
	ActorKey     = "key"     // an app's key
)

// AuditEntry says who changed what.
type AuditEntry struct {
	ID     uuid.UUID
	At     time.Time
	Actor  string
	Name   string // of the actor: the id of the key, the beginning of the session's id, or empty
	Client string // the address
	AppID  *uuid.UUID
	Action string // the id of the operation, or what the dashboard's button says
	Target string // the path of what was changed
	Detail string
}

// Audit appends an entry to the audit log.
func (s *Store) Audit(ctx context.Context, e AuditEntry) error {
	_, err := s.pool.Exec(ctx, `
		insert into audit (id, at, actor, name, client, app_id, action, target, detail)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		newID(), s.now(), e.Actor, e.Name, e.Client, e.AppID, e.Action, e.Target, e.Detail)
	if err != nil {
		return fmt.Errorf("append to the audit log: %w", err)
	}
	return nil
}

// AuditLog lists the audit log, newest first.
func (s *Store) AuditLog(ctx context.Context, scope Scope, p Page) ([]AuditEntry, error) {
	rows, err := s.pool.Query(ctx, `
		select id, at, actor, name, client, app_id, action, target, detail
		from audit
		where id < $1 and ($2::uuid is null or app_id = $2)
		order by id desc
		limit $3`, p.before(), scope.arg(), p.Limit)
	list, err := many[AuditEntry](rows, err)
	if err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	return list, nil
}
