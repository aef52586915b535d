package store_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// Everything that somebody may have of a thing finds it, by its beginning too, within the scope alone.
func TestSearchFindsByWhatIsKnown(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	reg := b.task("4b2d-task_84f9", "https://customer.example/hooks?a=1")
	reg.Metadata = map[string]string{"order": "A-4711", "note": `say "hello"`}
	mine, err := b.RegisterTask(t.Context(), reg)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		b.register(fmt.Sprintf("other-%d", i), "https://elsewhere.example/hooks")
	}
	b.ready(mine.Task.ID, "PI-1")
	deliveries, err := b.TaskDeliveries(t.Context(), mine.Task.ID, 100)
	if err != nil || len(deliveries) != 1 {
		t.Fatal(deliveries, err)
	}
	d := deliveries[0]
	tested, err := b.TestEndpoint(t.Context(), store.Everything(), d.EndpointID)
	if err != nil {
		t.Fatal(err)
	}
	test, err := b.Delivery(t.Context(), store.Everything(), tested)
	if err != nil {
		t.Fatal(err)
	}
	uploaded := b.upload("https://videos.example/v?id=1")
	b.upload("https://videos.example/v?id=2")
	short := b.register("t1", "https://elsewhere.example/hooks").Task
	b.register("t12", "https://elsewhere.example/hooks")
	if _, err := b.CreateEndpoint(t.Context(), b.app.ID, store.EndpointSettings{URL: new("https://wild.example/in/*")}); err != nil {
		t.Fatal(err)
	}
	second, err := b.CreateApp(t.Context(), "second", b.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text                                  string
		tasks, deliveries, endpoints, uploads int
	}{
		"the task id":             {"4b2d-task_84f9", 1, 1, 0, 0},
		"its beginning":           {"4b2d-", 1, 1, 0, 0},
		"the task's own id":       {mine.Task.ID.String(), 1, 1, 0, 0},
		"the webhook-id":          {"evt_" + d.EventID.String(), 0, 1, 0, 0},
		"a webhook-id of no task": {"evt_" + test.EventID.String(), 0, 1, 0, 0},
		"the delivery's id":       {d.ID.String(), 0, 1, 0, 0},
		"the endpoint's id":       {d.EndpointID.String(), 0, 0, 1, 0},
		"the URL":                 {"https://customer.example/hoo", 0, 0, 1, 0},
		"the host":                {"customer.ex", 0, 0, 1, 0},
		"host and path":           {"customer.example/hooks", 0, 0, 1, 0},
		"the callback URL":        {"https://customer.example/hooks?a=1", 0, 0, 1, 0},
		"a callback URL below":    {"https://wild.example/in/a/b?c=/", 0, 0, 1, 0},
		"it without a scheme":     {"wild.example/in/a", 0, 0, 1, 0},
		"one that is not below":   {"https://wild.example/out/a", 0, 0, 0, 0},
		"another case and port":   {"HTTPS://Customer.Example:443/hooks", 0, 0, 1, 0},
		"the host in capitals":    {"Customer.Ex", 0, 0, 1, 0},
		"a path in capitals":      {"https://customer.example/HOOKS", 0, 0, 0, 0},
		"a short task id":         {"t1", 1, 0, 0, 0},
		"the beginning of one":    {"t", 0, 0, 0, 0},
		"a metadata value":        {"A-4711", 1, 1, 0, 0},
		"its beginning, too":      {"A-47", 1, 1, 0, 0},
		"a beginning with quotes": {`say "h`, 1, 1, 0, 0},
		"a value with quotes":     {`say "hello"`, 1, 1, 0, 0},
		"what jsonpath knows":     {`" || true ? (@ == "`, 0, 0, 0, 0},
		"a pattern":               {"4b2d%", 0, 0, 0, 0},
		"nothing":                 {"nothing like that", 0, 0, 0, 0},
		"the upload's id":         {uploaded.ID.String(), 0, 0, 0, 1},
		"the URL of a video":      {"https://videos.example/v?id=1", 0, 0, 0, 1},
	} {
		for _, scope := range []store.Scope{store.Everything(), store.OfApp(b.app.ID)} {
			found, err := b.Search(t.Context(), scope, c.text, 20)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if len(found.Tasks) != c.tasks || len(found.Deliveries) != c.deliveries || len(found.Endpoints) != c.endpoints ||
				len(found.Uploads) != c.uploads {
				t.Errorf("%s: %d tasks, %d deliveries, %d endpoints, %d uploads", name,
					len(found.Tasks), len(found.Deliveries), len(found.Endpoints), len(found.Uploads))
			}
		}
		for _, scope := range []store.Scope{{}, store.OfApp(second.ID), store.OfApp(uuid.Nil)} {
			found, err := b.Search(t.Context(), scope, c.text, 20)
			if err != nil || len(found.Tasks)+len(found.Deliveries)+len(found.Endpoints)+len(found.Uploads) > 0 {
				t.Errorf("%s, of another app: %+v, %v", name, found, err)
			}
		}
	}
	if found, err := b.Search(t.Context(), store.Everything(), "t1", 20); err != nil || len(found.Tasks) != 1 || found.Tasks[0].ID != short.ID {
		t.Errorf("a short task id finds %+v, %v", found.Tasks, err)
	}
	many, err := b.Search(t.Context(), store.Everything(), "other-", 20)
	if err != nil || len(many.Tasks) != 20 {
		t.Errorf("%d of 30 tasks, at most 20: %v", len(many.Tasks), err)
	}
}

// A search that takes too long says so; the database is there.
func TestASearchThatTakesTooLong(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	tx := begin(t, b)
	if _, err := tx.Exec(t.Context(), `lock table tasks in access exclusive mode`); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Search(t.Context(), store.Everything(), "text", 20); !errors.Is(err, store.ErrSearchTimeout) || store.IsUnavailable(err) {
		t.Errorf("%v", err)
	}
}
