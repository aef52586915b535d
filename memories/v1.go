package memories

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// v1 is the first generation: a task has a list of videos, and errors are codes in an envelope, mostly with HTTP 200.
type v1 struct{ wire *wire }

const (
	v1StatusPath = "/serve/api/v1/get_video_ids_by_task_id"
	v1SubmitPath = "/serve/api/v1/scraper_url"
)

func (v *v1) taskStatus(ctx context.Context, key, taskID, uniqueID string) Status {
	query := url.Values{"task_id": {taskID}, "unique_id": {uniqueID}}
	return readV1Status(v.wire.get(ctx, v1StatusPath+"?"+query.Encode(), key), taskID)
}

// v1Envelope is the service's JSON envelope, read tolerantly: strings may come as numbers and the other
// way round, and data may be absent, null or empty.
type v1Envelope struct {
	Code    text            `json:"code"`
	Msg     loose           `json:"msg"`
	Message loose           `json:"message"` // newer pages, and Spring's errors
	Error   loose           `json:"error"`   // Spring's errors
	Data    json.RawMessage `json:"data"`
	Failed  *bool           `json:"failed"`
	Success *bool           `json:"success"`
}

type v1Data struct {
	TaskID   text   `json:"taskId"`
	TaskID2  text   `json:"task_id"`
	VideoIDs []text `json:"video_ids"`
	Videos   []struct {
		VideoNo  text  `json:"video_no"`
		Status   loose `json:"status"`
		Cause    loose `json:"cause"`
		Name     loose `json:"video_name"`
		URL      loose `json:"video_url"`
		Duration loose `json:"duration"`
	} `json:"videos"`
}

// readV1Status classifies an answer about a task.
func readV1Status(a answer, taskID string) Status {
	s, raw := readV1(a)
	if s.Outcome != Listed {
		return s
	}
	data, err := decodeV1Data(raw)
	if err != nil {
		return s.malformed("%s", err)
	}
	if about := cmp.Or(data.TaskID, data.TaskID2); about != "" && string(about) != taskID {
		s.Outcome, s.Message = ForeignTask, "the answer is about another task"
		return s
	}
	if s.Videos, err = data.videos(); err != nil {
		return s.malformed("%s", err)
	}
	return s
}

// readV1 classifies an answer by its envelope, and returns the data if it reports success.
func readV1(a answer) (Status, json.RawMessage) {
	s := a.plain()
	if a.err != nil {
		return s, nil
	}
	var e v1Envelope
	if err := decode(a.body, &e); err != nil {
		if a.ok() {
			s = s.malformed("%s", err)
		}
		return s, nil
	}
	message := cmp.Or(e.Msg.told(), e.Message.told())
	outcome, known := v1Outcomes[strings.TrimLeft(string(e.Code), "0")] // "0429", or newer 429
	switch {
	case known:
		s.Outcome = outcome
		return s.saying(string(e.Code), cmp.Or(message, fmt.Sprintf("%s, code %q", httpStatus(a.status), cut(string(e.Code), maxWord)))), nil
	case !a.ok():
		if message = cmp.Or(message, e.Error.told()); message != "" {
			message = s.Message + ": " + message
		}
		return s.saying(string(e.Code), message), nil
	case e.Code == "":
		return s.malformed("the answer has no code"), nil
	case strings.Trim(string(e.Code), "0") != "" && e.Code != "200": // success is 0000, on the newer pages 200
		return s.saying(string(e.Code), cmp.Or(message, fmt.Sprintf("%s, code %q", httpStatus(a.status), cut(string(e.Code), maxWord)))), nil
	case (e.Failed != nil && *e.Failed) || (e.Success != nil && !*e.Success):
		return s.malformed("the answer says both success and failure"), nil
	case a.status != http.StatusOK:
		return s, nil
	}
	s.Outcome = Listed
	return s.saying(string(e.Code), message), e.Data
}

// v1Outcomes are the codes that are documented, without their leading zeros.
var v1Outcomes = map[string]Outcome{
	"1": TaskRefused, "3": TaskRefused, "409": TaskRefused,
	"401": AccountRefused, "403": AccountRefused, "9009": AccountRefused,
	"402": OutOfCredits, "429": RateLimited,
}

// decodeV1Data reads the data of a success; null, "" and [] are empty.
func decodeV1Data(raw json.RawMessage) (v1Data, error) {
	var data v1Data
	switch string(raw) {
	case "", "null", `""`, "[]":
		return data, nil
	}
	return data, decode(raw, &data)
}

// videos returns the union of both shapes in order, each id once.
func (d *v1Data) videos() ([]Video, error) {
	if len(d.VideoIDs)+len(d.Videos) > maxVideos {
		return nil, fmt.Errorf("the answer lists more than %d videos", maxVideos)
	}
	var list []Video
	index := make(map[string]int, len(d.VideoIDs)+len(d.Videos))
	add := func(v Video) error {
		if v.ID == "" { // listed before it has a number
			return nil
		}
		if !validID(v.ID) {
			return fmt.Errorf("the answer has an impossible video id %.40q", v.ID)
		}
		if i, known := index[v.ID]; known {
			list[i] = list[i].with(v)
			return nil
		}
		index[v.ID] = len(list)
		list = append(list, v)
		return nil
	}
	for _, id := range d.VideoIDs {
		if err := add(Video{ID: string(id)}); err != nil {
			return nil, err
		}
	}
	for _, v := range d.Videos {
		status, cause := v1VideoStatus(v.Status.cut(maxWord), v.Cause.cut(maxMessageLen))
		err := add(Video{
			ID: string(v.VideoNo), Status: status, Cause: cause, Name: v.Name.cut(maxMessageLen),
			URL: v.URL.whole(maxURL), Duration: v.Duration.number(maxDuration),
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// with adds the details of another mention of the same video.
func (v Video) with(o Video) Video {
	v.Status, v.Cause, v.Name, v.URL = cmp.Or(v.Status, o.Status), cmp.Or(v.Cause, o.Cause), cmp.Or(v.Name, o.Name), cmp.Or(v.URL, o.URL)
	v.Duration = cmp.Or(v.Duration, o.Duration)
	return v
}

// v1VideoStatus returns the documented word for one in use, and the cause of a failure: where none is
// told, the word itself if it says more than that the video failed. Unknown words stay as they are.
func v1VideoStatus(word, cause string) (status, why string) {
	switch upper := strings.ToUpper(word); upper {
	case VideoParsed, VideoUnparsed:
		return upper, cause
	case "FAIL", VideoFailed:
		return VideoFailed, cause
	case "ERROR", "PARSE_ERROR":
		return VideoFailed, cmp.Or(cause, upper)
	}
	return word, cause
}

func (v *v1) submit(ctx context.Context, key string, sub Submission) Receipt {
	body, err := json.Marshal(struct {
		URLs        []string `json:"video_urls"`
		CallbackURL string   `json:"callback_url,omitempty"`
	}{sub.URLs, sub.CallbackURL})
	if err != nil {
		return Receipt{Outcome: NotSent, Message: err.Error()}
	}
	a := v.wire.post(ctx, v1SubmitPath, key, body)
	s, raw := readV1(a)
	if s.Outcome == Listed {
		data, err := decodeV1Data(raw)
		if id := string(cmp.Or(data.TaskID, data.TaskID2)); err == nil && validID(id) {
			return Receipt{Outcome: Accepted, TaskID: id, HTTPStatus: a.status}
		}
		s = s.malformed("the answer names no task")
	}
	return a.receipt(s)
}
