package store_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// While an alert is being sent, which may take seconds, nobody waits: the feed goes on, and its subject may change.
func TestNobodyWaitsForAnAlert(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	raise := func(state string) {
		if err := b.RaiseAlert(t.Context(), store.Alert{Subject: "endpoint:1", State: state, At: time.Now()}); err != nil {
			t.Error(err)
		}
	}
	raise("disabled")
	r := &reader{bundle: b}
	found, err := b.SendAlert(t.Context(), func(a store.Alert) error {
		if a.State != "disabled" {
			t.Errorf("%+v", a)
		}
		tx := begin(t, b)
		insertEvent(t, tx, b.app.ID, uuid.Must(uuid.NewV7()))
		if err := tx.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		if r.read(); len(r.seen) != 1 { // no other transaction of this database is under way
			t.Errorf("%d events are in the feed, want 1", len(r.seen))
		}
		if again, err := b.SendAlert(t.Context(), func(store.Alert) error { return nil }); again || err != nil {
			t.Errorf("another instance sends it, too: %v", err)
		}
		raise("failing")
		return nil
	})
	if !found || err != nil {
		t.Fatal(found, err)
	}
	var sent []string
	for range 3 {
		if _, err := b.SendAlert(t.Context(), func(a store.Alert) error { sent = append(sent, a.State); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if len(sent) != 1 || sent[0] != "failing" {
		t.Errorf("sent afterwards: %v", sent)
	}
}
