package memories_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/memories/memoriestest"
)

func TestParseCallback(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]memories.Callback{
		`{"message":"done","taskId":"t_1","status":"SUCCEEDED"}`:                             {TaskIDs: []string{"t_1"}},
		`{"videoId":"VI1","message":"indexed","taskId":"t_1","status":"INDEXING_SUCCEEDED"}`: {TaskIDs: []string{"t_1"}, VideoIDs: []string{"VI1"}},
		`{"code":200,"message":"x","data":{"status":"PARSE"},"task_id":"t_1"}`:               {TaskIDs: []string{"t_1"}},
		`{"code":200,"data":{"taskId":"t_1","videoNo":"VI1"}}`:                               {TaskIDs: []string{"t_1"}, VideoIDs: []string{"VI1"}},
		`{"videoNo":"VI1","status":"PARSE"}`:                                                 {VideoIDs: []string{"VI1"}},
		`{"videoId":"VI1","videoStatus":"PARSE"}`:                                            {VideoIDs: []string{"VI1"}},
		`{"data":{"videoNo":603068775285264430}}`:                                            {VideoIDs: []string{"603068775285264430"}},
		`{"data":{"video_ids":["VI1","VI2","VI1"],"videos":[{"video_no":"VI3"}]}}`:           {VideoIDs: []string{"VI1", "VI2", "VI3"}},
		`[{"taskId":"a"},{"task_id":"b"},{"taskId":"a"}]`:                                    {TaskIDs: []string{"a", "b"}},
		`{"operation":"op_1","video_id":"VI1"}`:                                              {TaskIDs: []string{"op_1"}, VideoIDs: []string{"VI1"}},
		"\ufeff" + `{"taskId":"t_1"}`:                                                        {TaskIDs: []string{"t_1"}},
		`{"taskId":null,"videoNo":"null","data":{"taskId":true}}`:                            {},
		`{"taskId":"a\u0000b","videoNo":"` + strings.Repeat("x", 300) + `","video_id":"  "}`: {VideoIDs: []string{"  "}},
		`{"taskId":"`: {}, `taskId=t_1`: {}, ``: {}, `null`: {}, `"t_1"`: {}, `7`: {},
		strings.Repeat(`{"data":`, 20) + `{"taskId":"deep"}` + strings.Repeat(`}`, 20): {},
	} {
		if got := memories.ParseCallback([]byte(body)); !reflect.DeepEqual(got, want) {
			t.Errorf("%.60s: %+v, want %+v", body, got, want)
		}
	}
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, `"%d",`, i)
	}
	if got := memories.ParseCallback([]byte(`{"taskIds":[` + many.String() + `"x"]}`)); len(got.TaskIDs) != 100 || got.TaskIDs[99] != "99" {
		t.Errorf("%d ids", len(got.TaskIDs))
	}
}

// The simulator's own callbacks, in both shapes, name what they are about.
func TestSimulatorCallsBack(t *testing.T) {
	t.Parallel()
	bodies := make(chan []byte, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies <- body
	}))
	defer hook.Close()
	sim := memoriestest.New(memoriestest.Config{})
	steps := []memoriestest.Step{{Videos: []memoriestest.Video{{ID: "VI1"}, {ID: "VI2"}}}}
	sim.Add(memoriestest.Task{TaskID: "t_1", Steps: steps, Callback: hook.URL})
	for _, want := range []memories.Callback{{TaskIDs: []string{"t_1"}}, {TaskIDs: []string{"t_1"}, VideoIDs: []string{"VI1"}}, {TaskIDs: []string{"t_1"}, VideoIDs: []string{"VI2"}}} {
		if got := memories.ParseCallback(<-bodies); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	sim.Add(memoriestest.Task{TaskID: "t_2", Steps: steps, Callback: hook.URL, HintVideos: true})
	for _, want := range []string{"VI1", "VI2"} {
		if got := memories.ParseCallback(<-bodies); !reflect.DeepEqual(got, memories.Callback{VideoIDs: []string{want}}) {
			t.Errorf("%+v, want %s", got, want)
		}
	}
	sim.Close()
	if n := sim.Stats().Callbacks; n != 5 || len(bodies) != 0 {
		t.Errorf("%d callbacks, %d too many", n, len(bodies))
	}
}

func FuzzParseCallback(f *testing.F) {
	for _, s := range []string{`{"taskId":"a","data":{"videoNo":1}}`, `[[["a"]]]`, `{"taskId":{"videoNo":["x",{}]}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got := memories.ParseCallback(body)
		for _, list := range [][]string{got.TaskIDs, got.VideoIDs} {
			seen := make(map[string]bool)
			for _, id := range list {
				if id == "" || len(id) > 256 || strings.ContainsRune(id, 0) || seen[id] || len(list) > 100 {
					t.Errorf("%q", list)
				}
				seen[id] = true
			}
		}
	})
}
