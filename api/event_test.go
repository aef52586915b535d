package api

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// The events of a task are paged like every list, oldest first.
func TestTheEventsOfATaskArePaged(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for i := 2; i < 8; i++ {
		p := store.Poll{TaskID: uuid.MustParse(b.task), At: time.Now(), Videos: []store.Video{{ID: "PI-" + string(rune('0'+i))}}}
		if _, err := b.store.RecordPoll(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	h := b.served(b.operations)
	path := "/v1/tasks/" + b.task + "/events"
	var seen []string
	var pages int
	for query := "?limit=3"; query != ""; pages++ {
		w := ask(h, http.MethodGet, path+query, b.key, "")
		var page List[Event]
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != http.StatusOK || len(page.Data) > 3 {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
		for _, ev := range page.Data {
			seen = append(seen, ev.ID)
		}
		query = ""
		if page.NextCursor != nil {
			query = "?limit=3&cursor=" + url.QueryEscape(*page.NextCursor)
		}
	}
	if len(seen) != 7 || pages != 3 || !slices.IsSorted(seen) || len(slices.Compact(slices.Clone(seen))) != 7 {
		t.Errorf("%d events on %d pages: %s", len(seen), pages, strings.Join(seen, " "))
	}
	for _, wrong := range []string{"?limit=501", "?cursor=x"} {
		if w := ask(h, http.MethodGet, path+wrong, b.key, ""); w.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d", wrong, w.Code)
		}
	}
}
