package worker

import (
	"testing"
	"time"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
)

func TestWhatSubmissionsComeTo(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name    string
		api     memories.API
		next    store.NextUpload
		outcome memories.Outcome
		after   time.Duration // as the answer asks
		status  string
		retry   time.Duration
		pause   bool // of the whole account
	}{
		{"taken", memories.V1, store.NextUpload{}, memories.Accepted, 0, store.UploadSubmitted, 0, false},
		{"lost", memories.V1, store.NextUpload{}, memories.Unknown, 0, store.UploadUnknown, 0, false},
		{"lost, with an idempotency key", memories.Datalake, store.NextUpload{Upload: store.Upload{Attempts: 3}}, memories.Unknown, 0, store.UploadQueued, 8 * time.Second, false},
		{"lost again and again", memories.Datalake, store.NextUpload{Upload: store.Upload{Attempts: submitMost - 1}}, memories.Unknown, 0, store.UploadUnknown, 0, false},
		{"refused", memories.V1, store.NextUpload{}, memories.TaskRefused, 0, store.UploadQueued, refusedUploadPause, false},
		{"refused twice", memories.V1, store.NextUpload{Upload: store.Upload{Refusals: 1}}, memories.TaskRefused, 0, store.UploadFailed, 0, false},
		{"the key in another form", memories.Datalake, store.NextUpload{}, memories.AskAgain, 0, store.UploadQueued, 0, false},
		{"not sent", memories.V1, store.NextUpload{Upload: store.Upload{Attempts: 1}}, memories.NotSent, 0, store.UploadQueued, 2 * time.Second, true},
		{"not sent for long", memories.V1, store.NextUpload{Upload: store.Upload{Attempts: 100}}, memories.NotSent, 0, store.UploadQueued, time.Minute, true},
		{"rate limited", memories.V1, store.NextUpload{}, memories.RateLimited, 30 * time.Second, store.UploadQueued, 30 * time.Second, true},
		{"a bad key", memories.V1, store.NextUpload{}, memories.AccountRefused, 0, store.UploadQueued, time.Minute, true},
		{"a firewall", memories.V1, store.NextUpload{}, memories.Blocked, 0, store.UploadQueued, time.Minute, true},
		{"no credits for a day", memories.V1, store.NextUpload{Upload: store.Upload{Attempts: submitMost - 1}}, memories.OutOfCredits, 0, store.UploadFailed, 0, false},
	}
	for _, c := range cases {
		receipt := memories.Receipt{Outcome: c.outcome, TaskID: "task", Message: "words", RetryAfter: c.after}
		r := uploadResult(c.api, &c.next, receipt)
		if r.Status != c.status || r.Pause != c.pause || (r.Status == store.UploadQueued && r.RetryIn != c.retry) {
			t.Errorf("%s: %+v", c.name, r)
		}
		if (r.Status == store.UploadSubmitted) != (r.TaskID != "") || (r.Error == nil) != (r.Status == store.UploadSubmitted) {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
}

// In an outage v1 refuses every upload with 0001. One that is refused again and again fails only if memories.ai has taken
// another in between, or after a quarter of an hour; a refusal that no outage explains fails it the second time.
func TestARefusalMayBeAnOutage(t *testing.T) {
	t.Parallel()
	fails := func(code string, well bool) (after int, over time.Duration) {
		next := &store.NextUpload{Well: well}
		for after = 1; after < 100; after++ {
			r := uploadResult(memories.V1, next, memories.Receipt{Outcome: memories.TaskRefused, Code: code})
			if r.Status == store.UploadFailed {
				break
			}
			if !r.Refused {
				t.Fatalf("%s: %+v", code, r)
			}
			over += r.RetryIn
			next.Upload.Refusals++
		}
		return after, over
	}
	for _, code := range []string{"0001", "0003", "1", "3"} {
		if after, over := fails(code, false); after == 100 || over < 10*time.Minute {
			t.Errorf("%s: an upload fails after %d refusals, over %s", code, after, over)
		}
		if after, _ := fails(code, true); after != 2 {
			t.Errorf("%s, while others are taken: an upload fails after %d refusals", code, after)
		}
	}
	if after, _ := fails("0409", false); after != 2 {
		t.Errorf("0409: an upload fails after %d refusals", after)
	}
}
