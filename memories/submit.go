package memories

import (
	"net/http"
	"time"
)

// MaxCallbackURL is the longest callback URL that memories.ai takes, in characters.
const MaxCallbackURL = 299

// Submission describes the videos to submit.
type Submission struct {
	// Of v1: the URLs of posts, of a creator's page or of a hashtag, and where memories.ai posts its own
	// callback, at most [MaxCallbackURL] characters.
	URLs        []string
	CallbackURL string

	// Of the Datalake: one video, and the collection that it goes into.
	SourceURL    string
	CollectionID string
	// IdempotencyKey makes repeating a Datalake submission safe; v1 has nothing of the kind.
	IdempotencyKey string
}

// Receipt is the classified answer to a submission. The service took it after Accepted, and may have
// taken it after Unknown: repeating that is safe only on the Datalake, under the same idempotency key.
// After any other outcome it was not taken, and after any but TaskRefused the same submission may succeed
// later. [Outcome] says how to judge a TaskRefused.
type Receipt struct {
	Outcome    Outcome
	TaskID     string // of Accepted: the task's id, with the Datalake the operation's
	Code       string
	Message    string // the service's own words, at most 500 bytes, or ours where it had none
	HTTPStatus int    // 0: there was no answer
	RetryAfter time.Duration
}

// receipt classifies an answer that does not accept the submission.
func (a answer) receipt(s Status) Receipt {
	r := Receipt{Outcome: s.Outcome, Code: s.Code, Message: s.Message, HTTPStatus: s.HTTPStatus, RetryAfter: s.RetryAfter}
	switch s.Outcome {
	case TaskRefused, AccountRefused, OutOfCredits, RateLimited, Blocked, AskAgain:
		return r
	}
	switch {
	case a.unsent:
		r.Outcome = NotSent
	case a.status/100 == 4 && a.status != http.StatusRequestTimeout: // in whatever form, it was not taken
		r.Outcome = TaskRefused
	default:
		r.Outcome = Unknown
	}
	return r
}
