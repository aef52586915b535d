package store_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// auditing returns a context of an operator.
func auditing(t *testing.T, action string) context.Context {
	t.Helper()
	ctx, _ := store.Auditing(t.Context(), store.AuditEntry{Actor: store.ActorAdmin, Client: "192.0.2.1", Action: action, Target: "/admin/v1/" + action})
	return ctx
}

// Each change of a setting is in the audit log with its fields before and after, and no secret is.
func TestAuditSaysWhatWasChanged(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	ctx := func(action string) context.Context { return auditing(t, action) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ep, err := b.CreateEndpoint(ctx("create-endpoint"), b.app.ID, store.EndpointSettings{URL: new("https://a.example/"), Headers: map[string]*string{"X-A": new("sesame")}})
	must(err)
	_, err = b.UpdateEndpoint(ctx("update-endpoint"), store.Everything(), ep.ID, store.EndpointSettings{RateLimit: new(5.0), Headers: map[string]*string{"X-A": new("sesame2")}})
	must(err)
	_, err = b.UpdateEndpoint(ctx("disable-endpoint"), store.Everything(), ep.ID, store.EndpointSettings{Enabled: new(false)})
	must(err)
	_, err = b.RotateSecret(ctx("rotate-endpoint"), store.Everything(), ep.ID, time.Hour)
	must(err)
	must(b.DeleteEndpoint(ctx("delete-endpoint"), store.Everything(), ep.ID))
	account, err := b.CreateAccount(ctx("create-account"), store.NewAccount{Name: "second", APIKey: "sk-mavi-sesame", RequestsPerSecond: 2})
	must(err)
	_, err = b.UpdateAccount(ctx("update-account"), account.ID, store.AccountChange{RequestsPerSecond: new(7.0), APIKey: new("sk-mavi-sesame2")})
	must(err)
	app, err := b.CreateApp(ctx("create-app"), "other", account.ID)
	must(err)
	_, err = b.UpdateApp(ctx("update-app"), app.ID, new("another"), nil)
	must(err)
	key, plain, err := b.CreateKey(ctx("create-key"), app.ID, "laptop", nil)
	must(err)
	must(b.RevokeKey(ctx("revoke-key"), app.ID, key.ID))
	must(b.DeleteApp(ctx("delete-app"), app.ID))
	_, err = b.StartResend(ctx("create-resend"), store.ResendFilter{Scope: store.Everything(), Action: store.ActionResend, Status: store.DeliveryFailed})
	must(err)
	cancelled, purged := b.register("cancelled", "https://b.example/").Task, b.register("purged", "https://b.example/").Task
	must(b.CancelTask(ctx("cancel-task"), store.OfApp(b.app.ID), cancelled.ID))
	must(b.ExpungeTask(ctx("purge-task"), store.OfApp(b.app.ID), purged.ID))

	for action, want := range map[string]struct {
		object uuid.UUID
		fields map[string]string // before and after
	}{
		"create-endpoint":  {ep.ID, map[string]string{"url": `null "https://a.example/"`, "headers": `null "***"`}},
		"update-endpoint":  {ep.ID, map[string]string{"rate_limit": `null 5`, "headers": `"***" "*** (new)"`}},
		"disable-endpoint": {ep.ID, map[string]string{"enabled": `true false`}},
		"rotate-endpoint":  {ep.ID, map[string]string{"secret": `"***" "*** (new)"`}},
		"delete-endpoint":  {ep.ID, map[string]string{"url": `"https://a.example/" null`}},
		"create-account":   {account.ID, map[string]string{"name": `null "second"`, "api_key": `null "***"`}},
		"update-account":   {account.ID, map[string]string{"requests_per_second": `2 7`, "api_key": `"***" "*** (new)"`}},
		"create-app":       {app.ID, map[string]string{"name": `null "other"`}},
		"update-app":       {app.ID, map[string]string{"name": `"other" "another"`}},
		"create-key":       {app.ID, map[string]string{"key_name": `null "laptop"`}},
		"revoke-key":       {app.ID, map[string]string{"key_name": `"laptop" null`}},
		"delete-app":       {app.ID, map[string]string{"name": `"another" null`}},
		"cancel-task":      {cancelled.ID, map[string]string{"status": `"waiting" "cancelled"`}},
		"purge-task":       {purged.ID, map[string]string{"status": `"waiting" null`, "task_id": `"purged" null`}},
		"create-resend":    {uuid.Nil, map[string]string{"matched": `null 0`, "status": `null "failed"`}},
	} {
		list, err := b.AuditLog(t.Context(), store.AuditFilter{Scope: store.Everything(), Action: action}, store.Page{Limit: 10})
		if err != nil || len(list) != 1 {
			t.Errorf("%s: %d entries, %v", action, len(list), err)
			continue
		}
		for field, pair := range want.fields {
			got := list[0].Changes[field]
			if text := string(got[0]) + " " + string(got[1]); text != pair {
				t.Errorf("%s: %s is %s, want %s", action, field, text, pair)
			}
		}
		if want.object != uuid.Nil && (list[0].Object == nil || *list[0].Object != want.object) {
			t.Errorf("%s: object %v", action, list[0].Object)
		}
	}
	all, err := b.AuditLog(t.Context(), store.AuditFilter{Scope: store.Everything(), Actor: store.ActorAdmin}, store.Page{Limit: 100})
	must(err)
	text, err := json.Marshal(all)
	must(err)
	if s := string(text); strings.Contains(s, "sesame") || strings.Contains(s, plain) {
		t.Errorf("a secret is in the audit log: %s", s)
	}
	one, err := b.AuditLog(t.Context(), store.AuditFilter{Scope: store.Everything(), Object: app.ID}, store.Page{Limit: 100})
	if err != nil || len(one) != 5 {
		t.Errorf("%d changes of the app, want 5: %v", len(one), err)
	}
}

// What cannot be entered in the audit log is not changed.
func TestNoChangeWithoutItsAuditEntry(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	if _, err := b.pool.Exec(t.Context(), `alter table audit rename to away`); err != nil {
		t.Fatal(err)
	}
	if _, err := b.UpdateApp(auditing(t, "update-app"), b.app.ID, new("another"), nil); err == nil {
		t.Error("changed without an entry")
	}
	if _, err := b.UpdateAccount(auditing(t, "update-account"), b.account.ID, store.AccountChange{RequestsPerSecond: new(7.0)}); err == nil {
		t.Error("changed without an entry")
	}
	if n := b.count(`select count(*) from apps where name = 'another'`) + b.count(`select count(*) from accounts where requests_per_second = 7`); n != 0 {
		t.Errorf("%d changes are in the database", n)
	}
}

// An entry that the transaction of its change has made is not made again.
func TestAuditEntersAChangeOnce(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	ctx, e := store.Auditing(t.Context(), store.AuditEntry{Actor: store.ActorAdmin, Action: "update-app", Target: "/admin/v1/apps/" + b.app.ID.String()})
	if _, err := b.UpdateApp(ctx, b.app.ID, new("another"), nil); err != nil {
		t.Fatal(err)
	}
	_, other := store.Auditing(t.Context(), store.AuditEntry{Actor: store.ActorAdmin, Action: "poll", Target: "/admin/v1/apps/" + b.app.ID.String()})
	for _, entry := range []store.AuditEntry{e, other} {
		if err := b.Audit(t.Context(), entry); err != nil {
			t.Fatal(err)
		}
	}
	list, err := b.AuditLog(t.Context(), store.AuditFilter{Scope: store.Everything(), Object: b.app.ID}, store.Page{Limit: 10})
	if err != nil || len(list) != 2 || len(list[0].Changes) != 0 || len(list[1].Changes) != 1 {
		t.Errorf("%v: %+v", err, list)
	}
}
