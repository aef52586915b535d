package dashboard

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/api/verdict"
	"github.com/memhook/memhook/store"
)

func TestWords(t *testing.T) {
	t.Parallel()
	in := func(d time.Duration) *time.Time { at := time.Now().Add(d); return &at }
	for got, want := range map[string]string{
		verdict.Count(0, "video"): "0 videos", verdict.Count(1, "video"): "1 video", verdict.Count(2, "video"): "2 videos", verdict.Count(1234, "task"): "1\u202f234 tasks",
		verdict.Count(1, "failed delivery"): "1 failed delivery", verdict.Count(2, "failed delivery"): "2 failed deliveries",
		times(1): "once", times(2): "2 times",
		millis(12):      "12 ms",
		verdict.Span(0): "0 s", verdict.Span(-time.Second): "0 s", verdict.Span(300 * time.Microsecond): "< 1 ms", verdict.Span(7 * time.Millisecond): "7 ms",
		verdict.Span(90 * time.Second): "1 min 30 s", verdict.Span(25 * time.Hour): "1 d 1 h",
		"past " + due(in(-time.Minute)): "past due now", "plan " + due(in(90*time.Second+100*time.Millisecond)): "plan in 1 min 30 s", "none " + due(nil): "none –",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The timeline says that it leaves something out only where it does.
func TestTimelineSaysWhatItLeavesOut(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{maxHistory: 1 + maxHistory, maxHistory + 1: 2 + maxHistory} {
		if got := timeline(&store.Task{Status: store.TaskReady}, make([]store.Event, n), nil); len(got) != want {
			t.Errorf("%d events: %d lines, want %d", n, len(got), want)
		}
	}
}

// What caused something stands before it, though polls are logged in rounded milliseconds and instances' clocks differ.
func TestTimelineIsInItsTrueOrder(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	status := 204
	for _, c := range []struct {
		name          string
		poll, attempt time.Duration // after start; the event is at the poll
	}{
		{"the poll's time is rounded up", 600 * time.Microsecond, 700 * time.Microsecond},
		{"the poll's time is rounded down", 1400 * time.Microsecond, 1450 * time.Microsecond},
		{"all within the first millisecond", 0, 10 * time.Microsecond},
		{"the sender's clock is behind", 10 * time.Millisecond, 2 * time.Millisecond},
		{"the sender's clock is far behind", 10 * time.Millisecond, -time.Second},
	} {
		at := start.Add(c.poll)
		task := &store.Task{
			CreatedAt: start, Polls: 1, Status: store.TaskReady, PollLog: []string{fmt.Sprintf("%d 1 video", at.Round(time.Millisecond).UnixMilli())},
		}
		events := []store.Event{{ID: uuid.New(), Type: "task.ready", CreatedAt: at}}
		deliveries := []store.Delivery{{
			ID: uuid.New(), EventType: "task.ready", Status: store.DeliveryDelivered, CreatedAt: at,
			Attempts: []store.Attempt{{Number: 1, At: start.Add(c.attempt), Outcome: store.DeliveryDelivered, ResponseStatus: &status}},
		}}
		var titles []string
		for _, m := range timeline(task, events, deliveries) {
			titles = append(titles, m.Title)
		}
		want := []string{"Registered", "Polled: 1 video", "task.ready", "Attempt 1 of task.ready delivered"}
		if !slices.Equal(titles, want) {
			t.Errorf("%s: %q", c.name, titles)
		}
	}
}
