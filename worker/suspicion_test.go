package worker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
)

// statusOf makes an answer of one word: "ok", "limit", "page" (a firewall's), "down", "garbage", "foreign", or a code.
func statusOf(word string) memories.Status {
	s := memories.Status{HTTPStatus: 200, Message: "words"}
	switch word {
	case "ok":
		s.Outcome = memories.Listed
	case "limit":
		s.Outcome, s.Code = memories.RateLimited, "0429"
	case "page":
		s.Outcome, s.HTTPStatus = memories.AccountRefused, 403
	case "down":
		s.Outcome, s.HTTPStatus = memories.Unavailable, 0
	case "garbage":
		s.Outcome = memories.Malformed
	case "foreign":
		s.Outcome = memories.ForeignTask
	case "9009", "0401":
		s.Outcome, s.Code = memories.AccountRefused, word
	default:
		s.Outcome, s.Code = memories.TaskRefused, word
	}
	return s
}

// Each line is answers, one a second: the task, a plus if it was well before, and the answer. An exclamation mark says that
// the answer is a failure of the account. "others" says that there is another task that was well.
func TestSuspicion(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name    string
		before  store.Backoff
		others  bool
		answers string
	}{
		{"one task of many", store.Backoff{}, true, "a+page b+ok apage b+ok apage b+ok apage b+ok apage"},
		{"a task that was well, and another", store.Backoff{}, true, "a+page b+page! cpage! b+ok apage"},
		{"a new one, and one that was well", store.Backoff{}, true, "a9009 b+9009!"},
		{"new ones beside one that was well", store.Backoff{}, true, "a9009 b9009 c9009 d9009 a9009 b9009 e+ok a9009"},
		{"ten in a row", store.Backoff{}, true, "adown bdown cdown adown bdown cdown adown bdown cdown adown!"},
		{"the only task", store.Backoff{}, false, "adown adown adown! adown! aok adown"},
		{"the only task, with a list in between", store.Backoff{}, false, "a+down adown aok a+down adown"},
		{"new tasks alone", store.Backoff{}, false, "a0401 b0401 c0401! c0401!"},
		{"a rate limit, at once", store.Backoff{}, true, "a+limit! alimit! b+ok"},
		{"a page while the account is rate limited", store.Backoff{}, true, "a+limit! bpage bpage b+ok"},
		{"garbage and silence are one kind", store.Backoff{}, true, "a+garbage b+down! agarbage!"},
		{"foreign answers", store.Backoff{}, false, "aforeign aforeign aforeign aforeign"},
		{"three bad ids", store.Backoff{}, false, "a0001 b0001 c0001 a0001 b0001 c0001 a0001"},
		{"refusals of tasks that were well", store.Backoff{}, true, "a+0001 b+0001! c+0003! a0001! b+ok a0001"},
		{"refusals with a list in between", store.Backoff{}, true, "a+0001 b+ok c0001 b+ok a0001"},
		{"a refusal that never is an outage", store.Backoff{}, true, "a+0409 b+0409 c+0409"},
		{"a refusal ends a refused key", store.Backoff{State: store.AccountRefused}, false, "a0401! a0001 a0401"},
		{"a refusal ends an outage of another kind", store.Backoff{State: store.AccountUnavailable, Reason: "HTTP 502"}, false, "adown! a0001 adown"},
		{"an outage by refusals goes on under the next lease", store.Backoff{State: store.AccountUnavailable, Reason: "0001: no"}, false, "a0001! bdown! c+0001!"},
		{"an outage by refusals of all tasks there are has an end",
			store.Backoff{State: store.AccountUnavailable, Reason: "0001: no", Count: refusalsBelieved - 1}, false, "a0001! b0001 a0001 b0001"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.before.State == "" {
				c.before.State = store.AccountActive
			}
			s := newSuspicion(c.before)
			for i, answer := range strings.Fields(c.answers) {
				word, want := strings.CutSuffix(answer[1:], "!")
				word, well := strings.CutPrefix(word, "+")
				a := asked{task: uuid.UUID{answer[0]}, well: well, others: c.others}
				if got := s.judge(statusOf(word), a, start.Add(time.Duration(i)*time.Second)); got != want {
					t.Errorf("answer %d, %s: the account's: %t", i+1, answer, got)
				}
			}
		})
	}
	late := newSuspicion(store.Backoff{State: store.AccountActive})
	for i, at := range []time.Time{start, start.Add(61 * time.Second)} {
		if late.judge(statusOf("0001"), asked{task: uuid.UUID{byte(i)}, well: true}, at) {
			t.Error("two refusals with more than a minute between them are an outage")
		}
	}
}

// Ten minutes of 0001 over fifty tasks that were well fail none of them. A task that is refused alone fails as it should.
func TestAnOutageByRefusalsFailsNoTask(t *testing.T) {
	t.Parallel()
	for _, all := range []bool{true, false} {
		t.Run(fmt.Sprintf("all %t", all), func(t *testing.T) {
			t.Parallel()
			b := newBundle(t)
			s := newSuspicion(store.Backoff{State: store.AccountActive})
			ids, well := make([]uuid.UUID, 50), make([]bool, 50)
			for i := range ids {
				ids[i] = b.register(t).ID
			}
			now := time.Now()
			var backoff store.Backoff
			poll := func(i int, word string) {
				a := answer{target: pollTarget{id: ids[i]}, status: statusOf(word), sentAt: now, at: now}
				a.failed = s.judge(a.status, asked{task: ids[i], well: well[i], others: true}, now)
				if a.failed {
					backoff = backoffAfter(a.status, backoff, now)
				}
				polled, err := b.store.RecordPoll(t.Context(), pollOf(&a))
				if err != nil {
					t.Fatal(err)
				}
				well[i] = polled.Target.Well
			}
			for i := range ids {
				poll(i, "ok")
			}
			for second := range 600 {
				now = now.Add(time.Second)
				word := "ok"
				if all || second%50 == 0 {
					word = "0001"
				}
				if !now.Before(backoff.Until) {
					poll(second%50, word)
				}
			}
			var failed []uuid.UUID
			for _, id := range ids {
				task, err := b.store.Task(t.Context(), store.Everything(), id)
				if err != nil {
					t.Fatal(err)
				}
				if task.Status == store.TaskFailed {
					failed = append(failed, id)
				}
			}
			if all && len(failed) > 0 {
				t.Errorf("%d tasks failed in an outage", len(failed))
			}
			if !all && (len(failed) != 1 || failed[0] != ids[0]) {
				t.Errorf("%v failed, want %s alone", failed, ids[0])
			}
		})
	}
}
