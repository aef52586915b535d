package memories

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Outcome is what an answer means, and for whom.
type Outcome int

// The outcomes. One answer cannot always distinguish a task's failure from the account's: after TaskRefused,
// Blocked, Unavailable and Malformed the caller judges by whether other tasks of the account, which were
// well, meet the same (the service answers 0001 to everything in an outage, and a firewall may dislike
// one task's id only). AccountRefused, OutOfCredits and RateLimited concern the account. Listed, Failed
// and ForeignTask concern the task alone, and AskAgain concerns neither.
const (
	Listed         Outcome = iota // what the service knows of the task's videos; an empty list means not yet
	TaskRefused                   // the service refuses the task or the submission, for the reason in Code
	AccountRefused                // the key is invalid, deactivated or lacks the permission
	OutOfCredits                  // the account's credits are used up
	RateLimited                   // the account asks too often
	Unavailable                   // no answer, or an error of the service's infrastructure
	Malformed                     // an answer that cannot be what the service means
	ForeignTask                   // an answer about another task
	Failed                        // the task ended without success; the service will not say anything else of it
	Blocked                       // something in front of the service refused the request: a firewall's 403, a redirect
	AskAgain                      // the service wants the key in another form, which the client now uses: ask at the next slot
	Accepted                      // of a submission: it has a task now
	NotSent                       // of a submission: the service was not reached, so repeating it is safe
	Unknown                       // of a submission: it may have been taken, but no readable answer came
)

var outcomeNames = [...]string{
	"listed", "task_refused", "account_refused", "out_of_credits", "rate_limited", "unavailable", "malformed", "foreign_task",
	"failed", "blocked", "ask_again", "accepted", "not_sent", "unknown",
}

func (o Outcome) String() string { return outcomeNames[o] }

// Video statuses. Other words of the service are passed on as they are; they are not final.
const (
	VideoUnparsed = "UNPARSE" // being indexed
	VideoParsed   = "PARSE"   // indexed
	VideoFailed   = "FAILED"  // every word of the service for failure
)

// Video is one video of a task. What the answer does not tell is empty.
type Video struct {
	ID       string
	Status   string
	Cause    string   // why it failed, at most 500 bytes
	Name     string   // at most 500 bytes
	URL      string   // where it was taken from, at most 2,048 bytes
	Duration *float64 // seconds; nil if the answer has none that makes sense
}

// Progress is the progress that a Datalake operation reports. It is for display only; [Status.Done] decides.
type Progress struct {
	Percent *float64          `json:"percent"`          // 0 to 100; nil if the answer has none
	Stages  map[string]string `json:"stages,omitempty"` // as told, such as "index": "0.5"; at most 16
}

// Status is the classified answer to one request.
type Status struct {
	Outcome    Outcome
	Videos     []Video       // of Listed: without repetitions, in the answer's order
	Done       bool          // of Listed: the list is final (never of a v1 task)
	Progress   *Progress     // of a Datalake operation that reports it
	Code       string        // the service's
	Message    string        // the service's own words, at most 500 bytes, or ours where it had none
	HTTPStatus int           // 0: there was no answer
	RetryAfter time.Duration // as the answer asks, at most 5 minutes; of Listed it concerns this task only

	release func() // see Release
}

// Release says that Videos is used no more. Large answers take turns, so the caller of [Client.TaskStatus] must call it, once or
// more often.
func (s Status) Release() {
	if s.release != nil {
		s.release()
	}
}

// plain classifies an answer by its HTTP status alone.
func (a answer) plain() Status {
	s := Status{HTTPStatus: a.status, RetryAfter: a.retryAfter, release: a.release}
	switch {
	case a.status == 0:
		s.Outcome, s.Message = Unavailable, clip(a.err.Error())
		return s
	case a.status == http.StatusTooManyRequests:
		s.Outcome = RateLimited
	case a.status == http.StatusUnauthorized:
		s.Outcome = AccountRefused
	case a.status == http.StatusPaymentRequired:
		s.Outcome = OutOfCredits
	case a.status == http.StatusForbidden || a.status/100 == 3: // what the service itself means by a 403 stands in its body
		s.Outcome = Blocked
	case a.ok() && (a.err == nil || errors.Is(a.err, errTooLarge)):
		s.Outcome = Malformed
	default:
		s.Outcome = Unavailable
	}
	s.Message = httpStatus(a.status)
	if a.err != nil {
		s.Message = clip(s.Message + "; " + a.err.Error())
	}
	return s
}

func (a answer) ok() bool { return a.status/100 == 2 }

// malformed is the status of a successful answer that does not say what it must. It is s with nothing in it that the answer
// told, so that the caller can still release it.
func (s Status) malformed(format string, args ...any) Status {
	s.Outcome, s.Message = Malformed, clip(fmt.Sprintf(format, args...))
	s.Videos, s.Done, s.Progress = nil, false, nil
	return s
}

// saying sets the service's code and message; an empty message keeps the one that is there.
func (s Status) saying(code, message string) Status {
	s.Code, s.Message = clip(code), clip(cmp.Or(message, s.Message))
	return s
}

func httpStatus(code int) string {
	if text := http.StatusText(code); text != "" {
		return fmt.Sprintf("HTTP %d %s", code, text)
	}
	return fmt.Sprintf("HTTP %d", code)
}
