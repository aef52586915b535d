package memories_test

import (
	"context"
	"errors"
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

// A large answer that is of no use gives its share back like any other, whatever is wrong with it, on both generations.
func TestLargeAnswersThatAreOfNoUseDoNotKeepTheirTurn(t *testing.T) {
	t.Parallel()
	const size = 900 << 10 // two of them exceed what may be in use
	filler := strings.Repeat("x", size)
	many := strings.TrimSuffix(strings.Repeat(`"1",`, size/4), ",")
	answers := map[string]struct {
		status int
		body   string
	}{
		"page":            {200, "<html>" + filler + "</html>"},
		"not UTF-8":       {200, "\xff" + filler},
		"broken":          {200, `{"code":"0000","data":{"video_ids":["` + filler},
		"no code":         {200, `{"msg":"` + filler + `"}`},
		"unknown code":    {200, `{"code":"7777","msg":"` + filler + `"}`},
		"both":            {200, `{"code":"0000","failed":true,"msg":"` + filler + `"}`},
		"too many":        {200, `{"code":"0000","data":{"video_ids":[` + many + `]}}`},
		"impossible id":   {200, `{"code":"0000","data":{"video_ids":["` + filler + `"]}}`},
		"wrong data":      {200, `{"code":"0000","data":"` + filler + `"}`},
		"another's":       {200, `{"code":"0000","data":{"taskId":"other"},"msg":"` + filler + `"}`},
		"accepted":        {202, `{"code":"0000","done":"` + filler + `"}`},
		"does not say":    {200, `{"done":"` + filler + `"}`},
		"another's, done": {200, `{"done":true,"operation":"other","x":"` + filler + `"}`},
		"no video":        {200, `{"done":true,"resource":"` + filler + `"}`},
		"failed":          {200, `{"done":true,"error":"` + filler + `"}`},
		"refused":         {403, `{"error":{"code":"scope","message":"` + filler + `"}}`},
		"unauthorized":    {401, filler},
		"limit":           {429, filler},
		"not found":       {404, filler},
		"down":            {503, filler},
	}
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Query().Get("task_id")
		if name == "" {
			name = strings.TrimPrefix(r.URL.Path, "/serve/datalake/v1/operations/")
		}
		w.WriteHeader(answers[name].status)
		_, _ = io.WriteString(w, answers[name].body)
	}))
	defer service.Close()
	for _, api := range []memories.API{memories.V1, memories.Datalake} {
		client := memories.New(service.URL, 2, "test")
		t.Cleanup(client.Close)
		for name := range answers {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			s := client.TaskStatus(ctx, memories.Account{API: api, Key: "key"}, name, "default")
			cancel()
			if s.HTTPStatus != answers[name].status || len(s.Videos) > 0 {
				t.Errorf("%s, %s: %+v", api, name, s)
			}
			s.Release()
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				t.Fatalf("%s, %s: an answer before it keeps its turn", api, name)
			}
		}
	}
}
