package api

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

type ctxKey int

const (
	ctxCaller ctxKey = iota
	ctxRequestID
)

const (
	queryAppID       = "app_id"
	askForKey        = "send an API key of an app as Authorization: Bearer <key>"
	askForAdminToken = "send the admin token as Authorization: Bearer <token>"

	headerAuthorization = "Authorization"
)

// caller is who sends a request and what it may see. The zero caller sees nothing.
type caller struct {
	store.Identity // of the app; zero for an operator

	scope store.Scope
}

// callerOf returns the caller that authenticated or administrator has put into the context.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(ctxCaller).(caller)
	return c
}

// scopeOf returns what the caller may see. Without a caller the scope is zero and matches nothing.
func scopeOf(ctx context.Context) store.Scope { return callerOf(ctx).scope }

// authenticated is a middleware that lets a request through if it has an app's API key.
func (s *server) authenticated(ctx huma.Context, next func(huma.Context)) {
	id, err := s.keys.identity(ctx.Context(), bearer(ctx))
	if errors.Is(err, store.ErrNotFound) {
		const unknown = "holds an API key that is unknown or revoked, or another secret such as the admin token"
		refuse(ctx, unauthorizedProblem(cmp.Or(wrongForm(ctx), unknown)+"; "+askForKey))
		return
	}
	if err != nil {
		refuse(ctx, s.problemOf(ctx.Context(), err, ""))
		return
	}
	next(huma.WithValue(ctx, ctxCaller, caller{Identity: id, scope: store.OfApp(id.AppID)}))
}

// administrator is a middleware that lets a request through if it has the admin token. The request's scope is
// everything, or the app that the query parameter app_id names.
func (s *server) administrator(ctx huma.Context, next func(huma.Context)) {
	if s.cfg.AdminToken == "" {
		refuse(ctx, adminDisabled())
		return
	}
	given, want := sha256.Sum256([]byte(bearer(ctx))), sha256.Sum256([]byte(s.cfg.AdminToken))
	if subtle.ConstantTimeCompare(given[:], want[:]) != 1 {
		s.counts.refused.WithLabelValues("wrong-bearer").Inc()
		s.log.Warn("refused at the admin API", "method", ctx.Method(), "path", ctx.Operation().Path,
			"client", middleware.GetClientIP(ctx.Context()))
		text := "holds another token than the setting MEMHOOK_ADMIN_TOKEN"
		if strings.HasPrefix(bearer(ctx), store.KeyPrefix) {
			text = "holds an app's API key, which is for /v1"
		}
		refuse(ctx, unauthorizedProblem(cmp.Or(wrongForm(ctx), text)+"; "+askForAdminToken))
		return
	}
	scope := store.Everything()
	if app := ctx.Query(queryAppID); app != "" {
		id, err := requiredID(queryAppID, app)
		if err != nil {
			refuse(ctx, invalid(FieldError{queryAppID, "must be an app's id (a UUID), which GET /admin/v1/apps lists"}))
			return
		}
		scope = store.OfApp(id)
	}
	next(huma.WithValue(ctx, ctxCaller, caller{scope: scope}))
}

func adminDisabled() *Problem {
	return problemFor(http.StatusServiceUnavailable, codeAdminDisabled, "set MEMHOOK_ADMIN_TOKEN to use the admin API and the dashboard")
}

// refuseWebhooks refuses webhooks, ours and others': one that calls the API could make it send webhooks without end. A
// hint URL takes them.
func refuseWebhooks(ctx huma.Context, next func(huma.Context)) {
	if ctx.Header(webhook.HeaderID) != "" {
		refuse(ctx, problemFor(http.StatusBadRequest, codeWebhook, "the API does not accept webhooks: leave out the header "+webhook.HeaderID))
		return
	}
	next(ctx)
}

func bearer(ctx huma.Context) string {
	scheme, token, _ := strings.Cut(ctx.Header(headerAuthorization), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// wrongForm says what is wrong with the form of a request's Authorization; empty if nothing is. What the header holds is not
// told: guesses are not helped.
func wrongForm(ctx huma.Context) string {
	header := ctx.Header(headerAuthorization)
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.TrimSpace(token)
	elsewhere := ctx.Header("X-API-Key") + ctx.Query("api_key") + ctx.Query("access_token") + ctx.Query("token") + ctx.Query("key")
	switch {
	case header == "" && elsewhere != "":
		return "is missing; other headers and the URL are not searched for it"
	case header == "":
		return "is missing"
	case !strings.EqualFold(scheme, "Bearer"):
		return "must begin with Bearer and a space"
	case token == "":
		return "must have the key after Bearer"
	case strings.HasPrefix(strings.ToLower(token), "bearer "):
		return "must have Bearer only once"
	case strings.ContainsAny(token, " \"'<>{}\\$"):
		return "must have the key as it is, without quotes, brackets, spaces or line breaks"
	case strings.HasPrefix(token, "sk-m"):
		return "holds a key of memories.ai, not of memhook"
	case strings.HasPrefix(token, webhook.SecretPrefix):
		return "holds a signing secret of webhooks"
	}
	return ""
}

func unauthorizedProblem(message string) *Problem {
	wrong := FieldError{headerAuthorization, message}
	return problemFor(http.StatusUnauthorized, codeUnauthorized, fieldsDetail([]FieldError{wrong}), wrong)
}

// refuse answers with a problem from a middleware.
func refuse(ctx huma.Context, p *Problem) {
	p.RequestID = requestIDOf(ctx.Context())
	if p.Status == http.StatusUnauthorized {
		ctx.SetHeader("WWW-Authenticate", `Bearer realm="memhook"`)
	}
	ctx.SetHeader("Content-Type", p.ContentType(""))
	ctx.SetStatus(p.Status)
	_ = huma.DefaultJSONFormat.Marshal(ctx.BodyWriter(), p)
}
