package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// A callback URL beyond the most that a task can have is refused by itself, in a batch and alone.
func TestATaskHasAtMostAHundredCallbackURLs(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	h := b.served(b.operations)
	of := func(i int) string {
		return fmt.Sprintf(`{"task_id":"many","callback_url":"https://customer.example/?n=%d"}`, i)
	}
	register := func(from, to int) (out BatchResults) {
		var tasks []string
		for i := from; i < to; i++ {
			tasks = append(tasks, of(i))
		}
		w := ask(h, http.MethodPost, "/v1/tasks/batch", b.key, `{"tasks":[`+strings.Join(tasks, ",")+`]}`)
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != http.StatusOK || len(out.Results) != to-from {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
		return out
	}
	register(0, 990)
	out := register(990, 1002)
	refused := -1
	statuses := make(map[int]int)
	for i, r := range out.Results {
		if statuses[r.Status]++; r.Problem != nil {
			refused = 990 + i
			if len(r.Problem.Errors) != 1 || r.Problem.Errors[0].Field != "callback_url" || !strings.Contains(r.Problem.Detail, "1000 callback URLs") {
				t.Errorf("the problem: %+v", r.Problem)
			}
		}
	}
	if statuses[http.StatusCreated] != 10 || statuses[http.StatusUnprocessableEntity] != 2 {
		t.Fatalf("statuses %v", statuses)
	}
	if w := ask(h, http.MethodPost, "/v1/tasks", b.key, of(refused)); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("alone: %d %s", w.Code, w.Body)
	}
}
