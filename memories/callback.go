package memories

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// Bounds of what is read of a callback.
const (
	maxCallbackIDs   = 100 // of each kind
	maxCallbackDepth = 8
)

// Callback is what memories.ai's own callback is about. Anyone can send one: it is a hint to ask, and
// never an answer.
type Callback struct {
	TaskIDs  []string // tasks, or a Datalake's operations
	VideoIDs []string
}

// ParseCallback returns the ids that a callback's body names, in whatever shape: at the top or nested, one
// or a list, in any spelling that was seen (taskId, task_id, videoNo, video_id, data.videoNo, …). At most
// 100 of each kind are returned, each once. A body that is not JSON names none.
func ParseCallback(body []byte) Callback {
	var c Callback
	var v any
	decoder := json.NewDecoder(strings.NewReader(strings.TrimPrefix(string(body), "\ufeff")))
	decoder.UseNumber()
	if decoder.Decode(&v) == nil {
		c.read(v, nil, 0)
	}
	return c
}

// read collects the ids in v, which go into list if a name above them matches.
func (c *Callback) read(v any, list *[]string, depth int) {
	if depth > maxCallbackDepth {
		return
	}
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			c.read(v[name], c.list(name), depth+1)
		}
	case []any:
		for _, value := range v {
			c.read(value, list, depth+1)
		}
	case string:
		add(list, v)
	case json.Number:
		add(list, v.String())
	}
}

// list returns the list that the values of a name belong into, or nil.
func (c *Callback) list(name string) *[]string {
	switch strings.TrimSuffix(strings.ToLower(strings.ReplaceAll(name, "_", "")), "s") {
	case "taskid", "operation", "operationid":
		return &c.TaskIDs
	case "videoid", "videono":
		return &c.VideoIDs
	}
	return nil
}

func add(list *[]string, id string) {
	if list != nil && len(*list) < maxCallbackIDs && validID(id) && id != "null" && !slices.Contains(*list, id) {
		*list = append(*list, id)
	}
}
