package store_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

func TestUploadsAreListed(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	first := b.upload("https://example.com/1")
	l := b.uploadLease()
	b.take(l)
	if err := b.RecordUpload(t.Context(), l, first.ID, store.UploadResult{Status: store.UploadSubmitted, TaskID: "task-1"}); err != nil {
		t.Fatal(err)
	}
	task := *b.uploaded(first.ID).TaskID
	b.ready(task, "PI-1", "PI-2")
	second, third := b.upload("https://example.com/2"), b.upload("https://example.com/3")
	other, err := b.CreateApp(t.Context(), "other", b.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := b.CreateUpload(t.Context(), store.Upload{AppID: other.ID, CallbackURL: "https://b.example/", Until: store.UntilDownloaded})
	if err != nil {
		t.Fatal(err)
	}
	mine := store.OfApp(b.app.ID)
	for _, c := range []struct {
		name   string
		filter store.UploadFilter
		page   store.Page
		want   []uuid.UUID
	}{
		{"an app's", store.UploadFilter{Scope: mine}, store.Page{Limit: 10}, []uuid.UUID{third.ID, second.ID, first.ID}},
		{"everybody's", store.UploadFilter{Scope: store.Everything()}, store.Page{Limit: 10}, []uuid.UUID{foreign.ID, third.ID, second.ID, first.ID}},
		{"nobody's", store.UploadFilter{}, store.Page{Limit: 10}, nil},
		{"those that wait", store.UploadFilter{Scope: mine, Status: store.UploadQueued}, store.Page{Limit: 10}, []uuid.UUID{third.ID, second.ID}},
		{"unknown ones", store.UploadFilter{Scope: mine, Status: store.UploadUnknown}, store.Page{Limit: 10}, nil},
		{"the first page", store.UploadFilter{Scope: mine}, store.Page{Limit: 2}, []uuid.UUID{third.ID, second.ID}},
		{"the second page", store.UploadFilter{Scope: mine}, store.Page{Limit: 2, Before: second.ID}, []uuid.UUID{first.ID}},
	} {
		list, cut, err := b.Uploads(t.Context(), c.filter, c.page)
		var got []uuid.UUID
		for _, u := range list {
			got = append(got, u.ID)
		}
		if err != nil || cut || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, cut %t, %v", c.name, got, cut, err)
		}
	}
	list, _, err := b.Uploads(t.Context(), store.UploadFilter{Scope: mine}, store.Page{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := b.TasksOfUploads(t.Context(), list)
	if got := tasks[task]; err != nil || len(tasks) != 1 || got.UpstreamID != "task-1" || len(got.Videos) != 0 || got.VideosOmitted != 2 ||
		len(got.Subscriptions) != 1 {
		t.Errorf("the tasks of uploads: %+v, %v", tasks, err)
	}
	if u, err := b.UploadOfTask(t.Context(), task); err != nil || u.ID != first.ID {
		t.Errorf("the upload of a task: %+v, %v", u, err)
	}
}

// A page of large uploads ends early.
func TestAPageOfUploadsIsBounded(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for range 4 {
		b.upload("https://example.com/" + strings.Repeat("x", 900_000))
	}
	var n, pages int
	for p := (store.Page{Limit: 3}); ; pages++ {
		list, cut, err := b.Uploads(t.Context(), store.UploadFilter{Scope: store.Everything()}, p)
		if err != nil {
			t.Fatal(err)
		}
		if n += len(list); !cut {
			break
		}
		p.Before = list[len(list)-1].ID
	}
	if n != 4 || pages != 1 {
		t.Errorf("%d uploads on %d pages that were cut", n, pages)
	}
}

// Among many uploads every read has an index.
func TestUploadsAreFoundByIndexes(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	u := b.upload("https://example.com/1")
	_, err := b.pool.Exec(t.Context(), `
		insert into uploads (id, app_id, account_id, status, request, callback_url, until, expires_in, task, next_attempt_at, created_at)
		select gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), case n % 5000 when 0 then 'unknown' else 'submitted' end,
			jsonb_build_object('urls', array['https://example.com/seeded/' || n]), '', '', '1 h', gen_random_uuid(), now(), now()
		from generate_series(1, 20000) n`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.pool.Exec(t.Context(), `analyze uploads`); err != nil {
		t.Fatal(err)
	}
	const scans = `select %s from pg_stat_user_tables where relname = 'uploads'`
	sequential, indexed := b.count(strings.Replace(scans, "%s", "seq_scan", 1)), strings.Replace(scans, "%s", "idx_scan", 1)
	before := b.count(indexed)
	page := store.Page{Limit: 50}
	noTask := func(err error) error {
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return fmt.Errorf("the upload of no task: %w", err)
	}
	for name, read := range map[string]func() error{
		"one": func() error { _, err := b.Upload(t.Context(), store.OfApp(b.app.ID), u.ID); return err },
		"all": func() error {
			_, _, err := b.Uploads(t.Context(), store.UploadFilter{Scope: store.Everything()}, page)
			return err
		},
		"an app's": func() error {
			_, _, err := b.Uploads(t.Context(), store.UploadFilter{Scope: store.OfApp(b.app.ID)}, page)
			return err
		},
		"unknown": func() error {
			_, _, err := b.Uploads(t.Context(), store.UploadFilter{Scope: store.Everything(), Status: store.UploadUnknown}, page)
			return err
		},
		"of a task": func() error { _, err := b.UploadOfTask(t.Context(), uuid.Nil); return noTask(err) },
		"by URL": func() error {
			found, err := b.Search(t.Context(), store.Everything(), "https://example.com/seeded/777", 20)
			if len(found.Uploads) != 1 {
				t.Errorf("%d uploads of a URL", len(found.Uploads))
			}
			return err
		},
		"to be sent": func() error { b.take(b.uploadLease()); return nil },
	} {
		if err := read(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.pool.Reset() // a session that ends tells its counts
	for deadline := time.Now().Add(10 * time.Second); b.count(indexed) < before+7; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d index scans were counted, want at least 7", b.count(indexed)-before)
		}
	}
	if n := b.count(strings.Replace(scans, "%s", "seq_scan", 1)); n != sequential {
		t.Errorf("%d sequential scans of all uploads", n-sequential)
	}
}
