package memories_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/memhook/memhook/memories"
)

// Of large answers only some are in use at once; small ones pass them.
func TestLargeAnswersTakeTurns(t *testing.T) {
	t.Parallel()
	ids := make([]string, 19_000)
	for i := range ids {
		ids[i] = fmt.Sprintf(`"PI-%060d"`, i)
	}
	long := strings.Join(ids, ",")
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		list := `"PI-1"`
		if r.URL.Query().Get("task_id") == "large" {
			list = long
		}
		_, _ = io.WriteString(w, `{"code":"0000","msg":"success","data":{"video_ids":[`+list+`]}}`)
	}))
	defer service.Close()
	client := memories.New(service.URL, 2, "test")
	defer client.Close()
	ask := func(ctx context.Context, task string) memories.Status {
		return client.TaskStatus(ctx, memories.Account{Key: "key"}, task, "default")
	}
	first := ask(t.Context(), "large")
	if len(first.Videos) != len(ids) {
		t.Fatalf("%+v", first.Message)
	}
	if small := ask(t.Context(), "small"); len(small.Videos) != 1 {
		t.Errorf("a small answer beside a large one: %+v", small)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if second := ask(ctx, "large"); len(second.Videos) != 0 || second.Outcome == memories.Listed {
		t.Errorf("%d videos of a second large answer while the first is in use", len(second.Videos))
	}
	first.Release()
	first.Release()
	if second := ask(t.Context(), "large"); len(second.Videos) != len(ids) {
		t.Errorf("after the first was released: %d videos, %s", len(second.Videos), second.Message)
	}
}
