package api

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
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
	for _, full := range []string{path + "?limit=7", "/v1/events?limit=7"} {
		if page := b.page(h, b.key, full, 7); len(page.Data) != 7 || page.NextCursor != nil {
			t.Errorf("%s, of seven events: %d, and the cursor %v", full, len(page.Data), page.NextCursor)
		}
	}
	for _, wrong := range []string{"?limit=501", "?cursor=x"} {
		if w := ask(h, http.MethodGet, path+wrong, b.key, ""); w.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d", wrong, w.Code)
		}
	}
}

// listed is a page of any list.
type listed struct {
	Data       []struct{ ID string }
	NextCursor *string `json:"next_cursor"`
}

// page reads a page of a list. Of the feed, which other tests' transactions on this server hold back, it waits for that many entries.
func (b *bench) page(h http.Handler, token, target string, least int) (page listed) {
	b.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		w := ask(h, http.MethodGet, target, token, "")
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != http.StatusOK {
			b.t.Fatalf("%s: %d %s", target, w.Code, w.Body)
		}
		if len(page.Data) >= least || time.Now().After(deadline) {
			return page
		}
	}
}

// Every list goes on by its next_cursor, which the last page does not have, however full it is.
func TestTheLastPageOfAListHasNoCursor(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	h := b.served(b.operations)
	ctx := t.Context()
	for i := range 2 {
		name := strconv.Itoa(i)
		reg, err := b.store.RegisterTask(ctx, store.Registration{
			AppID: b.app, UpstreamID: name, UniqueID: "default", CallbackURL: "https://customer.example/" + name, Until: store.UntilDownloaded, ExpiresIn: time.Hour,
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.store.RecordPoll(ctx, store.Poll{TaskID: reg.Task.ID, At: time.Now(), Videos: []store.Video{{ID: "PI-" + name}}}); err != nil {
			t.Fatal(err)
		}
		account, err := b.store.CreateAccount(ctx, store.NewAccount{Name: name, APIKey: "sk-" + name, RequestsPerSecond: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.store.CreateApp(ctx, name, account.ID); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.store.CreateKey(ctx, b.app, name, nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if _, err := b.store.CreateUpload(ctx, store.Upload{AppID: b.app, CallbackURL: "https://customer.example/", Until: store.UntilDownloaded}); err != nil {
			t.Fatal(err)
		}
		if err := b.store.Audit(ctx, store.AuditEntry{ID: uuid.Must(uuid.NewV7()), Actor: store.ActorKey, AppID: &b.app}); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{
		"/v1/tasks", "/v1/events", "/v1/endpoints", "/v1/deliveries", "/v1/uploads", "/admin/v1/tasks", "/admin/v1/events", "/admin/v1/endpoints",
		"/admin/v1/deliveries", "/admin/v1/uploads", "/admin/v1/accounts", "/admin/v1/apps", "/admin/v1/apps/" + b.app.String() + "/keys", "/admin/v1/audit",
	} {
		token := b.key
		if strings.HasPrefix(path, "/admin/") {
			token = testToken
		}
		whole := b.page(h, token, path+"?limit=3", 3)
		if len(whole.Data) != 3 || whole.NextCursor != nil {
			t.Fatalf("%s: %d of three, and the cursor %v", path, len(whole.Data), whole.NextCursor)
		}
		first := b.page(h, token, path+"?limit=2", 2)
		if len(first.Data) != 2 || first.NextCursor == nil {
			t.Fatalf("%s: %d of two, and no cursor", path, len(first.Data))
		}
		second := b.page(h, token, path+"?limit=2&cursor="+*first.NextCursor, 1)
		if len(second.Data) != 1 || second.NextCursor != nil || !slices.Equal(append(first.Data, second.Data...), whole.Data) {
			t.Errorf("%s: %v, then %v, of %v", path, first, second, whole)
		}
		if !strings.HasSuffix(path, "/events") {
			continue
		}
		if after := b.page(h, token, path+"?after="+whole.Data[0].ID, 2); !slices.Equal(after.Data, whole.Data[1:]) {
			t.Errorf("%s after the first event: %v", path, after)
		}
		if both := b.page(h, token, path+"?after="+whole.Data[0].ID+"&cursor="+*first.NextCursor, 1); !slices.Equal(both.Data, whole.Data[2:]) {
			t.Errorf("%s with both: %v", path, both)
		}
	}
}

// A page that is cut at its size has a cursor though it has fewer entries than were asked for.
func TestAPageThatIsCutHasACursor(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	h := b.served(b.operations)
	for i := range 3 {
		if _, err := b.store.RegisterTask(t.Context(), store.Registration{
			AppID: b.app, UpstreamID: strconv.Itoa(i), UniqueID: "large", CallbackURL: "https://customer.example/", Until: store.UntilDownloaded,
			ExpiresIn: time.Hour, Metadata: map[string]string{"text": strings.Repeat("x", 1500<<10)},
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, limit := range []string{"1", "2", "3", "50"} {
		seen, cursor := 0, ""
		for {
			page := b.page(h, b.key, "/v1/tasks?unique_id=large&limit="+limit+cursor, 0)
			if len(page.Data) != 1 {
				t.Fatalf("limit %s: %d tasks on a page", limit, len(page.Data))
			}
			seen++
			if page.NextCursor == nil {
				break
			}
			cursor = "&cursor=" + *page.NextCursor
		}
		if seen != 3 {
			t.Errorf("limit %s: %d tasks", limit, seen)
		}
	}
}
