package store_test

import (
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/memhook/memhook/store"
)

// An endpoint of an earlier version signs with its app's ed25519 key. When its secret is rotated that key signs on during the overlap,
// as a key of its own would.
func TestRotationKeepsTheAppsKeyForTheOverlap(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	id := b.register("task", "https://a.example/").Task.Subscriptions[0].EndpointID
	b.exec(`update endpoints set signatures = '{v1,v1a}', signing_key = null`)
	var ofApp []byte
	if err := b.pool.QueryRow(t.Context(), `select public_key from apps`).Scan(&ofApp); err != nil {
		t.Fatal(err)
	}
	keys := func() (public []ed25519.PublicKey) {
		t.Helper()
		found, err := b.Receivers(t.Context(), id)
		if err != nil || len(found) != 1 || found[0] == nil || found[0].Broken != nil {
			t.Fatalf("%+v, %v", found, err)
		}
		for _, key := range found[0].SigningKeys {
			public = append(public, key.Public().(ed25519.PublicKey))
		}
		return public
	}
	rotate := func(overlap time.Duration) {
		t.Helper()
		if _, err := b.RotateSecret(t.Context(), store.OfApp(b.app.ID), id, overlap); err != nil {
			t.Fatal(err)
		}
	}
	if got := keys(); len(got) != 1 || !got[0].Equal(ed25519.PublicKey(ofApp)) {
		t.Fatalf("before: %d keys", len(got))
	}
	rotate(time.Hour)
	if got := keys(); len(got) != 2 || !got[1].Equal(ed25519.PublicKey(ofApp)) || got[0].Equal(got[1]) {
		t.Errorf("during the overlap: %d keys, want a new one and the app's", len(got))
	}
	rotate(0)
	if got := keys(); len(got) != 1 || got[0].Equal(ed25519.PublicKey(ofApp)) {
		t.Errorf("without an overlap: %d keys, want a new one", len(got))
	}
}
