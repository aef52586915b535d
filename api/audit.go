package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// AuditEntry says who changed what.
type AuditEntry struct {
	ID       uuid.UUID         `json:"id" doc:"The id of the entry."`
	At       Time              `json:"at" doc:"When it was changed."`
	Actor    string            `json:"actor" enum:"admin,session,key,portal" doc:"admin: the admin token. session: the dashboard. key: an app's API key. portal: a customer at an endpoint's portal."`
	Name     string            `json:"name" doc:"The id of the key or of the portal's endpoint, or the beginning of the session's id."`
	Client   string            `json:"client" doc:"The address that the request came from."`
	AppID    *uuid.UUID        `json:"app_id" nullable:"true" doc:"The app of the key or of the portal."`
	Action   string            `json:"action" example:"admin-disable-endpoint" doc:"The operation of the API, or the page's button."`
	Target   string            `json:"target" example:"/admin/v1/endpoints/01993c1e-6f3a-7cc0-9d4e-0a4ab7f3c1d2/disable" doc:"The path of the request."`
	ObjectID *uuid.UUID        `json:"object_id" nullable:"true" doc:"What was changed: an endpoint, account, app, task, delivery or bulk resend."`
	Changes  map[string]Change `json:"changes" doc:"What is different, by field. Empty where an action has no fields, such as a test."`
}

// Change is a field before and after a change.
type Change struct {
	Before any `json:"before" doc:"The value before; null for what was created. *** hides a secret."`
	After  any `json:"after" doc:"The value after; null for what was deleted."`
}

// ListAuditInput are the filters of the audit log.
type ListAuditInput struct {
	PageInput
	Actor  string `query:"actor" enum:"admin,session,key,portal" doc:"Only changes by this kind of actor."`
	Name   string `query:"name" doc:"Only changes by this API key (its id), this endpoint's portal (the endpoint's id) or this session (the first 8 characters of its id)."`
	Action string `query:"action" doc:"Only this operation or button."`
	Object string `query:"object_id" doc:"Only changes of this object."`
}

func (s *server) listAudit(ctx context.Context, in *ListAuditInput) (*body[List[AuditEntry]], error) {
	object, err := optionalID("object_id", in.Object)
	if err != nil {
		return nil, err
	}
	f := store.AuditFilter{Scope: scopeOf(ctx), Actor: in.Actor, Name: in.Name, Action: in.Action, Object: object}
	list, err := s.store.AuditLog(ctx, f, in.page)
	if err != nil {
		return nil, err
	}
	return listOf(list, false, in.Limit, func(e *store.AuditEntry) uuid.UUID { return e.ID }, func(e *store.AuditEntry) AuditEntry {
		changes := make(map[string]Change, len(e.Changes))
		for field, pair := range e.Changes {
			changes[field] = Change{pair[0], pair[1]}
		}
		return AuditEntry{
			ID: e.ID, At: wireTime(e.At), Actor: e.Actor, Name: e.Name, Client: e.Client, AppID: e.AppID, Action: e.Action, Target: e.Target,
			ObjectID: e.Object, Changes: changes,
		}
	}), nil
}

// notAudited are the operations that register work: they are an app's daily business, by the thousand, and stand in the lists.
var notAudited = map[string]bool{"create-task": true, "create-tasks": true, "create-upload": true}

// countsToo are the operations that change something only where they are not asked for a count alone. The store enters what they
// change in the audit log.
var countsToo = map[string]bool{"resend-deliveries": true, "admin-resend-deliveries": true}

// audited is a middleware that records in the audit log what is changed, in the transaction of the change where it has one. An
// entry that cannot be written afterwards is logged.
func (s *server) audited(ctx huma.Context, next func(huma.Context)) {
	op := ctx.Operation()
	if op.Method == http.MethodGet || notAudited[op.OperationID] {
		next(ctx)
		return
	}
	u := ctx.URL()
	e := store.AuditEntry{Actor: store.ActorAdmin, Client: middleware.GetClientIP(ctx.Context()), Action: op.OperationID, Target: u.Path}
	if who := callerOf(ctx.Context()); who.KeyID != uuid.Nil {
		e.Actor, e.Name, e.AppID = store.ActorKey, who.KeyID.String(), &who.AppID
	}
	audited, e := store.Auditing(ctx.Context(), e)
	next(huma.WithContext(ctx, audited))
	if ctx.Status() >= http.StatusBadRequest || countsToo[op.OperationID] {
		return
	}
	if err := s.store.Audit(ctx.Context(), e); err != nil {
		s.log.Error("cannot write the audit log", "action", e.Action, "target", e.Target, "client", e.Client, "error", err)
	}
}
