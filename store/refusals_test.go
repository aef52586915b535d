package store_test

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// What cannot be done is told apart by its error, and changes nothing.
func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	unknown := uuid.Must(uuid.NewV7())
	if err := w.CancelTask(t.Context(), store.OfApp(w.app.ID), w.waiting.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := w.UpdateEndpoint(t.Context(), store.OfApp(w.app.ID), w.listen.ID, store.EndpointSettings{Enabled: new(false)}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.CreateApp(t.Context(), "other", w.spare.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := w.plain.Exec(t.Context(), `update deliveries set status = 'cancelled', cancelled = true where id = $1`, w.delivered); err != nil {
		t.Fatal(err)
	}
	const indexed = `update tasks set until = 'indexed', indexed_at = now(), polling = true where id = $1`
	if _, err := w.plain.Exec(t.Context(), indexed, w.ready.ID); err != nil {
		t.Fatal(err)
	}
	gone, err := w.CreateEndpoint(t.Context(), w.app.ID, store.EndpointSettings{URL: new("https://gone.example/")})
	if err != nil {
		t.Fatal(err)
	}
	stranded, err := w.TestEndpoint(t.Context(), store.OfApp(w.app.ID), gone.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.DeleteEndpoint(t.Context(), store.OfApp(w.app.ID), gone.ID); err != nil {
		t.Fatal(err)
	}
	before := w.state()
	for name, c := range map[string]struct {
		want error
		call func(context.Context) error
	}{
		"a taken name of an account": {store.ErrConflict, func(ctx context.Context) error {
			_, err := w.CreateAccount(ctx, store.NewAccount{Name: "spare", APIKey: "sk-mavi-3", RequestsPerSecond: 1})
			return err
		}},
		"an account renamed to a taken": {store.ErrConflict, func(ctx context.Context) error {
			_, err := w.UpdateAccount(ctx, w.account.ID, store.AccountChange{Name: new("spare")})
			return err
		}},
		"an unknown account": {store.ErrNotFound, func(ctx context.Context) error {
			_, err := w.UpdateAccount(ctx, unknown, store.AccountChange{Name: new("x")})
			return err
		}},
		"an account that apps use":     {store.ErrConflict, func(ctx context.Context) error { return w.DeleteAccount(ctx, w.account.ID) }},
		"an unknown account to delete": {store.ErrNotFound, func(ctx context.Context) error { return w.DeleteAccount(ctx, unknown) }},
		"a taken name of an app":       {store.ErrConflict, func(ctx context.Context) error { _, err := w.CreateApp(ctx, "app", w.account.ID); return err }},
		"an app on an unknown account": {store.ErrNotFound, func(ctx context.Context) error { _, err := w.CreateApp(ctx, "new", unknown); return err }},
		"an app renamed to a taken":    {store.ErrConflict, func(ctx context.Context) error { _, err := w.UpdateApp(ctx, w.app.ID, new("other"), nil); return err }},
		"an app moved to nowhere":      {store.ErrNotFound, func(ctx context.Context) error { _, err := w.UpdateApp(ctx, w.app.ID, nil, &unknown); return err }},
		"an unknown app to delete":     {store.ErrNotFound, func(ctx context.Context) error { return w.DeleteApp(ctx, unknown) }},
		"a key of an unknown app":      {store.ErrNotFound, func(ctx context.Context) error { _, _, err := w.CreateKey(ctx, unknown, "key", nil); return err }},
		"an unknown key":               {store.ErrNotFound, func(ctx context.Context) error { return w.RevokeKey(ctx, w.app.ID, unknown) }},
		"a taken URL": {store.ErrConflict, func(ctx context.Context) error {
			_, err := w.CreateEndpoint(ctx, w.app.ID, store.EndpointSettings{URL: &w.endpoint.URL})
			return err
		}},
		"an endpoint moved to a taken": {store.ErrConflict, func(ctx context.Context) error {
			_, err := w.UpdateEndpoint(ctx, store.OfApp(w.app.ID), w.parking.ID, store.EndpointSettings{URL: &w.endpoint.URL})
			return err
		}},
		"another app's endpoint": {store.ErrNotFound, func(ctx context.Context) error {
			_, err := w.UpdateEndpoint(ctx, store.OfApp(unknown), w.endpoint.ID, store.EndpointSettings{Enabled: new(false)})
			return err
		}},
		"another app's secrets": {store.ErrNotFound, func(ctx context.Context) error {
			_, err := w.Secrets(ctx, store.OfApp(unknown), w.endpoint.ID)
			return err
		}},
		"another app's secret to rotate": {store.ErrNotFound, func(ctx context.Context) error {
			_, err := w.RotateSecret(ctx, store.OfApp(unknown), w.endpoint.ID, time.Hour)
			return err
		}},
		"a disabled endpoint's test": {store.ErrConflict, func(ctx context.Context) error {
			_, err := w.TestEndpoint(ctx, store.OfApp(w.app.ID), w.listen.ID)
			return err
		}},
		"an endpoint deleted twice": {store.ErrNotFound, func(ctx context.Context) error { return w.DeleteEndpoint(ctx, store.OfApp(w.app.ID), unknown) }},
		"a cancelled delivery":      {store.ErrConflict, func(ctx context.Context) error { return w.Resend(ctx, store.OfApp(w.app.ID), w.delivered) }},
		"a deleted endpoint's delivery": {store.ErrConflict, func(ctx context.Context) error {
			err := w.Resend(ctx, store.OfApp(w.app.ID), stranded)
			if reason := store.ConflictReason(err); !strings.Contains(reason, "endpoint was deleted") {
				t.Errorf("the reason is %q", reason)
			}
			return err
		}},
		"another app's delivery": {store.ErrNotFound, func(ctx context.Context) error { return w.Resend(ctx, store.OfApp(unknown), w.failed) }},
		"recovering another's endpoint": {store.ErrNotFound, func(ctx context.Context) error {
			_, err := w.Recover(ctx, store.OfApp(unknown), w.parking.ID, new(time.Now()))
			return err
		}},
		"a task cancelled twice":          {store.ErrConflict, func(ctx context.Context) error { return w.CancelTask(ctx, store.OfApp(w.app.ID), w.waiting.ID) }},
		"a task that has all":             {store.ErrConflict, func(ctx context.Context) error { return w.CancelTask(ctx, store.OfApp(w.app.ID), w.ready.ID) }},
		"another app's task":              {store.ErrNotFound, func(ctx context.Context) error { return w.CancelTask(ctx, store.OfApp(unknown), w.ready.ID) }},
		"a poll of a task that has ended": {store.ErrConflict, func(ctx context.Context) error { return w.PollTask(ctx, store.Everything(), w.waiting.ID) }},
		"a shift of an unknown account":   {store.ErrNotFound, func(ctx context.Context) error { _, err := w.AcquireLease(ctx, unknown); return err }},
		"a revoked or unknown key":        {store.ErrNotFound, func(ctx context.Context) error { _, err := w.Authenticate(ctx, "nobody's key"); return err }},
	} {
		if err := c.call(t.Context()); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if after := w.state(); after != before {
		t.Errorf("something has changed:\n%s\n%s", before, after)
	}
}

// With a wrong encryption key nothing is sent unsigned and nobody is asked without a key: every reading fails.
func TestAWrongEncryptionKeyOpensNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	keys, err := store.ParseKeyring(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", 32))))
	if err != nil {
		t.Fatal(err)
	}
	other, err := store.New(w.plain, store.Config{Keys: keys, Encode: encode})
	if err != nil {
		t.Fatal(err)
	}
	withHeaders, err := w.Endpoint(t.Context(), store.OfApp(w.app.ID), w.parking.ID)
	if err != nil || withHeaders.Headers == nil {
		t.Fatalf("an endpoint with headers: %v", err)
	}
	for name, call := range map[string]func(context.Context) error{
		"secrets": func(ctx context.Context) error {
			_, err := other.Secrets(ctx, store.OfApp(w.app.ID), w.endpoint.ID)
			return err
		},
		"receivers": func(ctx context.Context) error {
			list, err := other.Receivers(ctx, w.endpoint.ID)
			if err == nil && list[0] != nil { // what one endpoint keeps is no error of the others
				err = list[0].Broken
			}
			return err
		},
		"headers":  func(context.Context) error { _, err := other.HeaderNames(&withHeaders); return err },
		"a shift":  func(ctx context.Context) error { _, err := other.AcquireLease(ctx, w.account.ID); return err },
		"a slot":   func(ctx context.Context) error { _, _, err := other.ReserveSlot(ctx, w.account.ID); return err },
		"the mark": other.CheckKeys,
		"the keys": other.VerifyKeys,
		"rotating": func(ctx context.Context) error { return other.RotateKeys(ctx, func(int, int) {}) },
	} {
		if err := call(t.Context()); err == nil {
			t.Errorf("%s were opened", name)
		}
	}
}
