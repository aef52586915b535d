package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// AuditEntry says who changed what.
type AuditEntry struct {
	ID     uuid.UUID  `json:"id" doc:"The id of the entry."`
	At     Time       `json:"at" doc:"When it was changed."`
	Actor  string     `json:"actor" enum:"admin,session,key" doc:"admin: the admin token. session: the dashboard. key: an app's API key."`
	Name   string     `json:"name" doc:"The id of the key, or the beginning of the session's id."`
	Client string     `json:"client" doc:"The address that the request came from."`
	AppID  *uuid.UUID `json:"app_id" nullable:"true" doc:"The app of the key."`
	Action string     `json:"action" example:"disable-endpoint" doc:"The operation of the API, or the dashboard's button."`
	Target string     `json:"target" example:"/admin/v1/endpoints/01993c1e-6f3a-7cc0-9d4e-0a4ab7f3c1d2/disable" doc:"The path of the request."`
}

func (s *server) listAudit(ctx context.Context, in *PageInput) (*listOutput[AuditEntry], error) {
	page, err := in.page()
	if err != nil {
		return nil, err
	}
	list, err := s.store.AuditLog(ctx, scopeOf(ctx), page)
	if err != nil {
		return nil, err
	}
	return listOf(list, page.Limit, func(e *store.AuditEntry) uuid.UUID { return e.ID }, func(e *store.AuditEntry) AuditEntry {
		return AuditEntry{
			ID: e.ID, At: wireTime(e.At), Actor: e.Actor, Name: e.Name, Client: e.Client, AppID: e.AppID, Action: e.Action, Target: e.Target,
		}
	}), nil
}

// notAudited are the operations that register work: they are an app's daily business, by the thousand, and stand in the lists.
var notAudited = map[string]bool{"create-task": true, "create-tasks": true, "create-upload": true}

// audited is a middleware that notes in the audit log what has been changed. An entry that cannot be written is logged.
func (s *server) audited(ctx huma.Context, next func(huma.Context)) {
	next(ctx)
	op := ctx.Operation()
	if op.Method == http.MethodGet || notAudited[op.OperationID] || ctx.Status() >= http.StatusBadRequest {
		return
	}
	u := ctx.URL()
	e := store.AuditEntry{Actor: store.ActorAdmin, Client: middleware.GetClientIP(ctx.Context()), Action: op.OperationID, Target: u.Path}
	if who := callerOf(ctx.Context()); who.KeyID != uuid.Nil {
		e.Actor, e.Name, e.AppID = store.ActorKey, who.KeyID.String(), &who.AppID
	}
	// What was changed is noted though the client has gone.
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx.Context()), 5*time.Second)
	defer cancel()
	if err := s.store.Audit(after, e); err != nil {
		s.log.Error("cannot write the audit log", "action", e.Action, "target", e.Target, "client", e.Client, "error", err)
	}
}
