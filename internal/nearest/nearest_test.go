package nearest_test

import (
	"testing"

	"github.com/memhook/memhook/internal/nearest"
)

func TestOf(t *testing.T) {
	t.Parallel()
	known := []string{"task_id", "callback_url", "until", "status", "task.ready", "q", "MEMHOOK_RETRY_SCHEDULE"}
	for name, want := range map[string]string{
		"taskId": "task_id", "TASK-ID": "task_id", "status[]": "status", "staus": "status", "statsu": "status", "unti": "until",
		"ready": "task.ready", "MEMHOOK_RETRY_SCHEDUL": "MEMHOOK_RETRY_SCHEDULE",
		"": "", "x": "", "id": "", "colour": "", "PATH": "", "MEMHOOK_SERVICE_HOST": "",
	} {
		if got := nearest.Of(name, known); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"kitten", "sitting", 3}, {"status", "statsu", 2}} {
		if got := nearest.Distance(c.a, c.b); got != c.want {
			t.Errorf("%q and %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
