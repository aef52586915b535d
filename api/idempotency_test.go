package api

import (
	"encoding/json"
	"net/http"
	"testing"
)

// An upload is queued once, though the answer to its request was never kept: the instance was killed, or the database was away.
func TestALostAnswerQueuesNoSecondUpload(t *testing.T) {
	t.Parallel()
	p := newPages(t)
	upload := func(body, key string) (id string, status int) {
		t.Helper()
		w := ask(p, http.MethodPost, "/v1/uploads", p.key, body, "Content-Type", "application/json", headerIdempotency, key)
		var out struct{ ID string }
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
			t.Fatalf("%s: %v", w.Body, err)
		}
		return out.ID, w.Code
	}
	const body = `{"urls":["https://videos.example/1"],"callback_url":"https://customer.example/"}`
	first, status := upload(body, "once")
	if status != http.StatusAccepted {
		t.Fatalf("%d", status)
	}
	for name, lost := range map[string]string{
		"killed":    `update idempotency_keys set status = null, response = null, created_at = now() - interval '2 min'`,
		"forgotten": `delete from idempotency_keys`,
	} {
		if _, err := p.store.Pool().Exec(t.Context(), lost); err != nil {
			t.Fatal(err)
		}
		if id, status := upload(body, "once"); id != first || status != http.StatusAccepted {
			t.Errorf("%s: %d, upload %s, want %s", name, status, id, first)
		}
	}
	if id, status := upload(body, "another"); id == first || status != http.StatusAccepted {
		t.Errorf("under another key: %d, upload %s", status, id)
	}
}
