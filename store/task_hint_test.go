package store_test

import (
	"testing"
	"time"

	"github.com/memhook/memhook/store"
)

func TestHintsByVideo(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	other, err := b.CreateApp(t.Context(), "other", b.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	indexed := b.task("indexed", "https://a.example/")
	indexed.Until = store.UntilIndexed
	foreign := indexed
	foreign.AppID = other.ID
	tasks := make(map[string]*store.Task)
	for name, r := range map[string]store.Registration{
		"indexed": indexed, "downloaded": b.task("downloaded", "https://a.example/"), "foreign": foreign,
	} {
		reg, err := b.RegisterTask(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		tasks[name] = reg.Task
		at := time.Now()
		p := store.Poll{TaskID: reg.Task.ID, At: at, NextPollAt: at, Videos: []store.Video{{ID: "VI-1", Name: new("n")}, {ID: "VI-2"}}}
		if _, err := b.RecordPoll(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.pool.Exec(t.Context(), `update tasks set urgent = false`); err != nil {
		t.Fatal(err)
	}
	urgent := func(name string) bool {
		return b.count(`select count(*) from tasks where id = $1 and urgent`, tasks[name].ID) == 1
	}
	hint := func(token string, videos ...string) {
		t.Helper()
		if err := b.HintTask(t.Context(), token, nil, videos); err != nil {
			t.Fatal(err)
		}
	}
	hint(b.app.HintToken, "VI-3")
	hint("another-token", "VI-2")
	if urgent("indexed") {
		t.Error("a hint about another video, or with a wrong token, counts")
	}
	hint(b.app.HintToken, "VI-3", "VI-2")
	if !urgent("indexed") || urgent("downloaded") || urgent("foreign") {
		t.Errorf("urgent: indexed %t, downloaded %t, another app's %t", urgent("indexed"), urgent("downloaded"), urgent("foreign"))
	}
}
