package memories

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Outcome is what an answer means for whom.
type Outcome int

// The outcomes. Only Listed says anything of a task's videos.
const (
	Listed         Outcome = iota // the task's videos; an empty list means not yet
	TaskRefused                   // the task's own trouble: invalid parameters, repeated operation
	AccountRefused                // the key is invalid, deactivated or lacks the permission
	OutOfCredits                  // the account's credits are used up
	RateLimited                   // the account asks too often
	Unavailable                   // no answer, or an error of the service's infrastructure
	Malformed                     // an answer that cannot be what the service means
	ForeignTask                   // an answer about another task
)

var outcomeNames = [...]string{"listed", "task_refused", "account_refused", "out_of_credits", "rate_limited", "unavailable", "malformed", "foreign_task"}

func (o Outcome) String() string { return outcomeNames[o] }

// Bounds of what is believed.
const (
	maxVideos     = 20_000
	maxIDLength   = 256
	maxMessageLen = 500
)

// Video statuses as memories.ai documents them.
const (
	VideoUnparsed = "UNPARSE" // being indexed
	VideoParsed   = "PARSE"   // indexed
	VideoFailed   = "FAILED"
)

// Video is one video of a task. Status is "" where the answer has none.
type Video struct {
	ID     string
	Status string
}

// envelope is the service's JSON envelope, read tolerantly: strings may come as numbers and the other
// way round, data may be absent, null or empty.
type envelope struct {
	Code    text `json:"code"`
	Msg     text `json:"msg"`
	Message text `json:"message"` // newer pages, and Spring's errors
	Data    *struct {
		TaskID   text   `json:"taskId"`
		TaskID2  text   `json:"task_id"`
		VideoIDs []text `json:"video_ids"`
		Videos   []struct {
			VideoNo text `json:"video_no"`
			Status  text `json:"status"`
		} `json:"videos"`
	} `json:"data"`
	Failed  *bool `json:"failed"`
	Success *bool `json:"success"`
}

// text reads a JSON string, number or null as a string.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	switch {
	case string(b) == "null":
		*t = ""
	case len(b) > 0 && b[0] == '"':
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		*t = text(s)
	case len(b) > 0 && (b[0] == '-' || (b[0] >= '0' && b[0] <= '9')):
		*t = text(b)
	default:
		return fmt.Errorf("expected a string or a number, got %.20s", b)
	}
	return nil
}

// Status is the classified answer to one request.
type Status struct {
	Outcome    Outcome
	Videos     []Video       // of Listed, without repetitions, in the answer's order
	Code       string        // the envelope's
	Message    string        // the service's own words, at most 500 bytes, or ours where it had none
	HTTPStatus int           // 0: there was no answer
	RetryAfter time.Duration // as the answer asks; 0 where it does not
}

// classify reads an answer about taskID.
func classify(httpStatus int, body []byte, taskID string) Status {
	s := Status{HTTPStatus: httpStatus}
	e, err := decode(body)
	if err != nil {
		s.Message = clip(err.Error())
		s.Outcome = Malformed
		switch {
		case httpStatus == http.StatusTooManyRequests:
			s.Outcome = RateLimited
		case httpStatus == http.StatusUnauthorized || httpStatus == http.StatusForbidden:
			s.Outcome = AccountRefused
		case httpStatus != http.StatusOK:
			s.Outcome, s.Message = Unavailable, fmt.Sprintf("HTTP %d %s", httpStatus, http.StatusText(httpStatus))
		}
		return s
	}
	s.Code, s.Message = clip(string(e.Code)), clip(string(cmp.Or(e.Msg, e.Message)))
	if s.Outcome = outcomeOf(httpStatus, strings.TrimLeft(string(e.Code), "0")); s.Outcome != Listed {
		if s.Message == "" {
			s.Message = fmt.Sprintf("HTTP %d, code %q", httpStatus, s.Code)
		}
		return s
	}
	if (e.Failed != nil && *e.Failed) || (e.Success != nil && !*e.Success) {
		s.Outcome, s.Message = Malformed, "the answer says both success and failure"
		return s
	}
	if e.Data == nil {
		return s
	}
	if about := cmp.Or(e.Data.TaskID, e.Data.TaskID2); about != "" && string(about) != taskID {
		s.Outcome, s.Message = ForeignTask, "the answer is about another task"
		return s
	}
	if s.Videos, err = e.videos(); err != nil {
		s.Outcome, s.Message = Malformed, err.Error()
	}
	return s
}

// outcomeOf maps the HTTP status and the envelope's code, without its leading zeros.
func outcomeOf(httpStatus int, code string) Outcome {
	switch code {
	case "429":
		return RateLimited
	case "401", "403", "9009":
		return AccountRefused
	case "402":
		return OutOfCredits
	case "1", "3", "409":
		return TaskRefused
	}
	switch {
	case httpStatus == http.StatusTooManyRequests:
		return RateLimited
	case httpStatus == http.StatusUnauthorized || httpStatus == http.StatusForbidden:
		return AccountRefused
	case httpStatus == http.StatusPaymentRequired:
		return OutOfCredits
	case httpStatus != http.StatusOK:
		return Unavailable
	case code == "" || code == "200": // "0000", or the newer pages' 200
		return Listed
	default:
		return Malformed // a code that nobody documents says nothing of the task
	}
}

func decode(body []byte) (*envelope, error) {
	if !utf8.Valid(body) {
		return nil, errors.New("the answer is not UTF-8")
	}
	var e envelope
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, fmt.Errorf("the answer is not the JSON that was expected: %w", err)
	}
	if e.Code == "" {
		return nil, errors.New("the answer has no code")
	}
	return &e, nil
}

// videos gives the union of both shapes in order, each id once.
func (e *envelope) videos() ([]Video, error) {
	if len(e.Data.VideoIDs)+len(e.Data.Videos) > maxVideos {
		return nil, fmt.Errorf("the answer lists more than %d videos", maxVideos)
	}
	var list []Video
	index := make(map[string]int)
	add := func(id, status string) error {
		if id == "" { // listed before it has a number
			return nil
		}
		if len(id) > maxIDLength || strings.ContainsFunc(id, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return fmt.Errorf("the answer has an impossible video id %.40q", id)
		}
		if i, known := index[id]; known {
			list[i].Status = cmp.Or(list[i].Status, status)
			return nil
		}
		index[id] = len(list)
		list = append(list, Video{ID: id, Status: status})
		return nil
	}
	for _, id := range e.Data.VideoIDs {
		if err := add(string(id), ""); err != nil {
			return nil, err
		}
	}
	for _, v := range e.Data.Videos {
		if err := add(string(v.VideoNo), videoStatus(string(v.Status))); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// videoStatus gives the documented word for what is in the wild; unknown ones are dropped.
func videoStatus(s string) string {
	switch strings.ToUpper(s) {
	case "PARSE":
		return VideoParsed
	case "UNPARSE":
		return VideoUnparsed
	case "FAIL", "FAILED":
		return VideoFailed
	default:
		return ""
	}
}

// clip makes foreign text fit to be stored and shown.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > maxMessageLen {
		s = strings.ToValidUTF8(s[:maxMessageLen], "")
	}
	return s
}
