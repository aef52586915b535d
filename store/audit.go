package store

import (
	"bytes"
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// auditKept is for how long the audit log is kept.
const auditKept = 400 * 24 * time.Hour

// Who can change something.
const (
	ActorAdmin   = "admin"   // the admin token, over the API
	ActorSession = "session" // the dashboard
	ActorKey     = "key"     // an app's key
	ActorPortal  = "portal"  // the customer at an endpoint's portal
)

// AuditEntry says who changed what.
type AuditEntry struct {
	ID      uuid.UUID
	At      time.Time
	Actor   string
	Name    string // of the actor: the id of the key or of the portal's endpoint, the beginning of the session's id, or empty
	Client  string // the address
	AppID   *uuid.UUID
	Action  string     // the id of the operation, or what the dashboard's button says
	Target  string     // the path of what was changed
	Object  *uuid.UUID // what was changed, where it has an id
	Changes Changes    // what is known of it
}

// Changes are the values of fields before and after a change, as JSON. Secrets are hidden.
type Changes map[string][2]json.RawMessage

// hidden stands for a secret in [Changes].
const hidden = "***"

// fields are an object's values that the audit log shows.
type fields map[string]any

// difference returns what is different; nil stands for an object that does not exist.
func difference(before, after fields) Changes {
	changes := make(Changes)
	null := json.RawMessage("null")
	value := func(f fields, name string) json.RawMessage {
		if v, ok := f[name]; ok {
			return json.RawMessage(toJSON(v))
		}
		return null
	}
	for _, f := range []fields{before, after} {
		for name := range f {
			if pair := [2]json.RawMessage{value(before, name), value(after, name)}; !bytes.Equal(pair[0], pair[1]) {
				changes[name] = pair
			}
		}
	}
	return changes
}

// Storable returns a text without what PostgreSQL cannot store: the character NUL, and bytes that are not UTF-8.
func Storable(text string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(text, "\x00", ""), "\uFFFD")
}

type auditKey struct{}

// Auditing returns a context in which the methods of a [Store] enter what they change in the audit log, each in the transaction
// of its change. The caller calls [Store.Audit] with the entry afterwards, which enters what no method has entered.
func Auditing(ctx context.Context, e AuditEntry) (context.Context, AuditEntry) {
	e.ID, e.Target = newID(), Storable(e.Target) // a path can have more around an id than the id
	return context.WithValue(ctx, auditKey{}, e), e
}

// note enters a change in the audit log, if the context says who makes it. before is nil for what is created, after for what
// is deleted.
func (s *Store) note(ctx context.Context, tx pgx.Tx, object uuid.UUID, before, after fields) error {
	e, ok := ctx.Value(auditKey{}).(AuditEntry)
	if !ok {
		return nil
	}
	e.Object, e.Changes = &object, difference(before, after)
	return s.insertAudit(ctx, tx, e)
}

var anyID = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// Audit appends an entry to the audit log, unless it is there already. What was changed is entered though ctx has ended, within 5 s.
func (s *Store) Audit(ctx context.Context, e AuditEntry) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return s.insertAudit(ctx, s.pool, e)
}

func (s *Store) insertAudit(ctx context.Context, q querier, e AuditEntry) error {
	if e.Object == nil {
		if id, err := uuid.Parse(anyID.FindString(e.Target)); err == nil {
			e.Object = &id
		}
	}
	var changes *string
	if len(e.Changes) > 0 {
		changes = new(toJSON(e.Changes))
	}
	_, err := q.Exec(ctx, `
		insert into audit (id, at, actor, name, client, app_id, action, target, object, changes)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::jsonb)
		on conflict (id) do nothing`,
		e.ID, s.now(), e.Actor, e.Name, e.Client, e.AppID, e.Action, e.Target, e.Object, changes)
	return wrapped("append to the audit log", err)
}

// AuditFilter narrows the audit log; zero fields do not.
type AuditFilter struct {
	Scope               Scope
	Actor, Name, Action string
	Object              uuid.UUID
}

// AuditLog lists the audit log, newest first.
func (s *Store) AuditLog(ctx context.Context, f AuditFilter, p Page) ([]AuditEntry, error) {
	object := uuid.NullUUID{UUID: f.Object, Valid: f.Object != uuid.Nil}
	// Plans are made for the values at hand (see sessionSettings), so that a filter that is not there costs nothing.
	list, err := many[AuditEntry](ctx, s.pool, `
		select id, at, actor, name, client, app_id, action, target, object, changes
		from audit
		where id < $1 and id > $4 and ($2::uuid is null or app_id = $2) and ($5 = '' or actor = $5) and ($6 = '' or name = $6)
			and ($7 = '' or action = $7) and ($8::uuid is null or object = $8)
		order by id `+p.order()+`
		limit $3`, p.high(), f.Scope.arg(), p.Limit, p.low(), f.Actor, f.Name, f.Action, object)
	return newestFirst(p, list), wrapped("read audit log", err)
}
