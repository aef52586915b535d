package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// poll is one answer of a task's life: when, and the list as "id" or "id=STATUS", with "." once it is final, or "!code" for
// a refusal, or "!!code" for the task's end.
type poll struct {
	after time.Duration
	list  string
}

func TestTaskLife(t *testing.T) {
	t.Parallel()
	const settle = 10 * time.Minute
	five := 5
	cases := []struct {
		name  string
		task  Task
		polls []poll
		want  string // type(list)+added, in order
		end   string // status, and "polling" where it goes on
	}{
		{"empty lists", Task{}, []poll{{0, ""}, {time.Minute, ""}}, "", "waiting polling"},
		{"ready", Task{}, []poll{{0, ""}, {time.Minute, "a b"}}, "task.ready(a b)", "ready polling"},
		{
			"a list that grows, reorders and shrinks", Task{},
			[]poll{{0, "a"}, {time.Minute, "a b c"}, {2 * time.Minute, "c a b"}, {3 * time.Minute, "b c"}, {4 * time.Minute, "e a b c d"}},
			"task.ready(a) task.updated(a b c)+b+c task.updated(a b c e d)+e+d", "ready polling",
		},
		{"expected videos", Task{ExpectedVideos: &five}, []poll{{0, "a"}, {time.Minute, "a b c"}, {2 * time.Minute, "a b c d e"}}, "task.ready(a b c d e)", "ready"},
		{"fewer than expected, settled", Task{ExpectedVideos: &five}, []poll{{0, "a"}, {time.Minute, "a b"}, {11 * time.Minute, "a b"}}, "task.ready(a b)", "ready"},
		{"settled", Task{}, []poll{{0, "a"}, {10 * time.Minute, "a"}, {11 * time.Minute, "a b"}}, "task.ready(a)", "ready"},
		{"a list that turns empty again", Task{}, []poll{{0, "a"}, {time.Minute, ""}}, "task.ready(a)", "ready polling"},
		{
			"until indexed", Task{Until: UntilIndexed},
			[]poll{{0, "a=UNPARSE b=UNPARSE"}, {time.Minute, "a=PARSE b=UNPARSE"}, {2 * time.Minute, "a=PARSE b=FAILED"}, {20 * time.Minute, "a=PARSE b=FAILED"}},
			"task.ready(a b) task.indexed(a b)", "ready",
		},
		{"indexed at once", Task{Until: UntilIndexed, ExpectedVideos: new(1)}, []poll{{0, "a=PARSE"}}, "task.ready(a) task.indexed(a)", "ready"},
		{"until indexed, never told", Task{Until: UntilIndexed}, []poll{{0, "a"}, {time.Hour, "a"}}, "task.ready(a)", "ready polling"},
		{
			"words that nobody knows are passed on and are not final", Task{Until: UntilIndexed},
			[]poll{{0, "a=SPLITTING b=FAILED"}, {time.Hour, "a=SPLITTING b=FAILED"}, {2 * time.Hour, "a=PARSE b=FAILED"}},
			"task.ready(a b) task.indexed(a b)", "ready",
		},
		{"done", Task{}, []poll{{0, ""}, {time.Minute, "a=PARSE ."}}, "task.ready(a)", "ready"},
		{"done with fewer than expected", Task{ExpectedVideos: &five}, []poll{{0, "a=PARSE ."}}, "task.ready(a)", "ready"},
		{"done, until indexed", Task{Until: UntilIndexed}, []poll{{0, ""}, {time.Minute, "a=PARSE ."}}, "task.ready(a) task.indexed(a)", "ready"},
		{"failed", Task{}, []poll{{0, ""}, {time.Second, "!!cancelled"}}, "task.failed()!cancelled", "failed"},
		{"failed while it settled", Task{}, []poll{{0, "a"}, {time.Second, "!!late"}}, "task.ready(a)", "ready"},
		{"failed before it was indexed", Task{Until: UntilIndexed}, []poll{{0, "a"}, {time.Second, "!!late"}}, "task.ready(a) task.failed(a)!late", "failed"},
		{"refused four times", Task{}, []poll{{0, "!1"}, {2 * time.Minute, "!1"}, {4 * time.Minute, "!1"}, {9 * time.Minute, "!1"}}, "", "waiting polling"},
		{"refused five times in four minutes", Task{}, []poll{{0, "!1"}, {1 * time.Minute, "!1"}, {2 * time.Minute, "!1"}, {3 * time.Minute, "!1"}, {4 * time.Minute, "!1"}}, "", "waiting polling"},
		{"refused five times in five minutes", Task{}, []poll{{0, "!1"}, {1 * time.Minute, "!1"}, {2 * time.Minute, "!1"}, {3 * time.Minute, "!1"}, {5 * time.Minute, "!3"}}, "task.failed()!3", "failed"},
		{"refused with an answer between", Task{}, []poll{{0, "!1"}, {1 * time.Minute, "!1"}, {2 * time.Minute, ""}, {3 * time.Minute, "!1"}, {5 * time.Minute, "!1"}, {6 * time.Minute, "!1"}}, "", "waiting polling"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			task := c.task
			task.Status, task.Polling = TaskWaiting, true
			var got []string
			for _, p := range c.polls {
				for _, ev := range task.apply(answered(p), settle) {
					got = append(got, told(&task, ev))
				}
			}
			end := task.Status
			if task.Polling {
				end += " polling"
			}
			if strings.Join(got, " ") != c.want || end != c.end {
				t.Errorf("got %q, %s; want %q, %s", got, end, c.want, c.end)
			}
		})
	}
}

func answered(p poll) Poll {
	out := Poll{At: time.Unix(0, 0).Add(p.after)}
	if code, failed := strings.CutPrefix(p.list, "!!"); failed {
		out.Failure = &TaskError{Code: code}
		return out
	}
	if code, refused := strings.CutPrefix(p.list, "!"); refused {
		out.Refusal = &TaskError{Code: code}
		return out
	}
	for f := range strings.FieldsSeq(p.list) {
		if f == "." {
			out.Done = true
			continue
		}
		id, status, has := strings.Cut(f, "=")
		v := Video{ID: id}
		if has {
			v.Status = &status
		}
		out.Videos = append(out.Videos, v)
	}
	return out
}

func TestDetailsOfVideosAreKept(t *testing.T) {
	t.Parallel()
	at := time.Unix(1e9, 0)
	task := Task{Status: TaskWaiting, Polling: true}
	tell := func(v Video) []Event {
		at = at.Add(time.Second)
		v.ID = "a"
		return task.apply(Poll{At: at, Videos: []Video{v}}, time.Hour)
	}
	tell(Video{Status: new("UNPARSE"), Name: new("first"), URL: new("https://example.com/a"), Duration: new(12.5)})
	if events := tell(Video{}); len(events) != 0 {
		t.Errorf("an answer that tells less is %d events", len(events))
	}
	if events := tell(Video{Status: new(VideoFailed), Cause: new("no sound"), Name: new("second")}); len(events) != 0 {
		t.Errorf("changed details are %d events", len(events))
	}
	want := `[{"video_id":"a","status":"FAILED","cause":"no sound","name":"second","url":"https://example.com/a","duration_seconds":12.5}]`
	if got := toJSON(task.Videos); got != want {
		t.Errorf("kept %s, want %s", got, want)
	}
	if tell(Video{Status: new(VideoParsed)}); task.Videos[0].Cause != nil {
		t.Error("a video that is well keeps the cause of its failure")
	}
}

func TestAListIsBounded(t *testing.T) {
	t.Parallel()
	task := Task{Status: TaskWaiting, Polling: true}
	for answer := range 3 {
		p := Poll{At: time.Unix(int64(answer), 0), Videos: make([]Video, 9_000)}
		for i := range p.Videos {
			p.Videos[i].ID = fmt.Sprint(answer, "-", i)
		}
		events := task.apply(p, time.Hour)
		if answer == 2 && len(events[0].Added) != maxVideos-18_000 {
			t.Errorf("%d videos were added to the full list", len(events[0].Added))
		}
	}
	if len(task.Videos) != maxVideos {
		t.Errorf("%d videos are kept, want %d", len(task.Videos), maxVideos)
	}
}

func told(t *Task, ev Event) string {
	ids := make([]string, len(t.Videos))
	for i, v := range t.Videos {
		ids[i] = v.ID
	}
	s := fmt.Sprintf("%s(%s)", ev.Type, strings.Join(ids, " "))
	for _, id := range ev.Added {
		s += "+" + id
	}
	if ev.Error != nil {
		s += "!" + ev.Error.Code
	}
	return s
}

func TestTaskExpires(t *testing.T) {
	t.Parallel()
	now := time.Now()
	cases := []struct {
		task   Task
		events int
		status string
	}{
		{Task{Status: TaskWaiting}, 1, TaskExpired},
		{Task{Status: TaskReady}, 0, TaskReady},
		{Task{Status: TaskReady, Until: UntilIndexed}, 1, TaskExpired},
		{Task{Status: TaskReady, Until: UntilIndexed, IndexedAt: &now}, 0, TaskReady},
	}
	for i, c := range cases {
		c.task.Polling = true
		if events := c.task.expire(); len(events) != c.events || c.task.Status != c.status || c.task.Polling {
			t.Errorf("case %d: %v, %s, polling %v", i, events, c.task.Status, c.task.Polling)
		}
	}
}

func TestEndpointHealth(t *testing.T) {
	t.Parallel()
	start := time.Unix(0, 0)
	fail := func(after time.Duration) AttemptResult { return AttemptResult{At: start.Add(after)} }
	t.Run("failures in a row open the breaker, a probe closes it", func(t *testing.T) {
		t.Parallel()
		ep := Endpoint{Enabled: true, Breaker: BreakerClosed}
		for i := range breakerThreshold {
			if ep.Breaker != BreakerClosed {
				t.Fatalf("open after %d failures", i)
			}
			ep.apply(fail(time.Second))
		}
		if ep.Breaker != BreakerOpen || !ep.HoldUntil.Equal(start.Add(time.Second+probeAfter)) {
			t.Errorf("%s until %v", ep.Breaker, ep.HoldUntil)
		}
		ep.apply(fail(2 * time.Second)) // one that was in flight
		if !ep.HoldUntil.Equal(start.Add(time.Second + probeAfter)) {
			t.Error("what was in flight prolonged the hold")
		}
		ep.Breaker = BreakerHalfOpen // as Release does
		probe := fail(20 * time.Second)
		probe.Released = true
		ep.apply(probe)
		if ep.Breaker != BreakerOpen || !ep.HoldUntil.Equal(start.Add(20*time.Second+2*probeAfter)) {
			t.Errorf("after a failed probe: %s until %v", ep.Breaker, ep.HoldUntil)
		}
		ep.Breaker = BreakerHalfOpen
		if events := ep.apply(AttemptResult{At: start, Delivered: true, Released: true}); !slices.Equal(events, []string{EventEndpointRecovered}) || !ep.Healthy() {
			t.Errorf("after a good probe: %v %+v", events, ep)
		}
	})
	t.Run("five days of failures disable", func(t *testing.T) {
		t.Parallel()
		ep := Endpoint{Enabled: true, Breaker: BreakerClosed}
		ep.apply(fail(0))
		if ep.apply(fail(disableAfter - time.Second)); !ep.Enabled {
			t.Error("disabled too soon")
		}
		if events := ep.apply(fail(disableAfter)); !slices.Equal(events, []string{EventEndpointDisabled}) || ep.Enabled || *ep.DisabledReason != DisabledFailing {
			t.Errorf("%v %+v", events, ep)
		}
		if events := ep.apply(fail(disableAfter + time.Second)); events != nil {
			t.Errorf("disabled twice: %v", events)
		}
	})
	t.Run("410 disables at once", func(t *testing.T) {
		t.Parallel()
		ep := Endpoint{Enabled: true, Breaker: BreakerClosed}
		if events := ep.apply(AttemptResult{At: start, Gone: true}); !slices.Equal(events, []string{EventEndpointDisabled}) || ep.Enabled {
			t.Errorf("%v", events)
		}
	})
}
