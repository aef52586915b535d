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
		upload  store.Upload
		outcome memories.Outcome
		after   time.Duration // as the answer asks
		status  string
		retry   time.Duration
		pause   bool // of the whole account
	}{
		{"taken", memories.V1, store.Upload{}, memories.Accepted, 0, store.UploadSubmitted, 0, false},
		{"lost", memories.V1, store.Upload{}, memories.Unknown, 0, store.UploadUnknown, 0, false},
		{"lost, with an idempotency key", memories.Datalake, store.Upload{Attempts: 3}, memories.Unknown, 0, store.UploadQueued, 8 * time.Second, false},
		{"lost again and again", memories.Datalake, store.Upload{Attempts: submitMost - 1}, memories.Unknown, 0, store.UploadUnknown, 0, false},
		{"refused", memories.V1, store.Upload{}, memories.TaskRefused, 0, store.UploadQueued, time.Minute, false},
		{"refused twice", memories.V1, store.Upload{Refusals: 1}, memories.TaskRefused, 0, store.UploadFailed, 0, false},
		{"the key in another form", memories.Datalake, store.Upload{}, memories.AskAgain, 0, store.UploadQueued, 0, false},
		{"not sent", memories.V1, store.Upload{Attempts: 1}, memories.NotSent, 0, store.UploadQueued, 2 * time.Second, true},
		{"not sent for long", memories.V1, store.Upload{Attempts: 100}, memories.NotSent, 0, store.UploadQueued, time.Minute, true},
		{"rate limited", memories.V1, store.Upload{}, memories.RateLimited, 30 * time.Second, store.UploadQueued, 30 * time.Second, true},
		{"a bad key", memories.V1, store.Upload{}, memories.AccountRefused, 0, store.UploadQueued, time.Minute, true},
		{"a firewall", memories.V1, store.Upload{}, memories.Blocked, 0, store.UploadQueued, time.Minute, true},
		{"no credits for a day", memories.V1, store.Upload{Attempts: submitMost - 1}, memories.OutOfCredits, 0, store.UploadFailed, 0, false},
	}
	for _, c := range cases {
		receipt := memories.Receipt{Outcome: c.outcome, TaskID: "task", Message: "words", RetryAfter: c.after}
		r := uploadResult(c.api, &c.upload, receipt)
		if r.Status != c.status || r.Pause != c.pause || (r.Status == store.UploadQueued && r.RetryIn != c.retry) {
			t.Errorf("%s: %+v", c.name, r)
		}
		if (r.Status == store.UploadSubmitted) != (r.TaskID != "") || (r.Error == nil) != (r.Status == store.UploadSubmitted) {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
}
