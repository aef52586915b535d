package api

import (
	"slices"
	"strings"
)

// otherNames are the names that other APIs have for fields and parameters of this one, without case and separators.
var otherNames = map[string][]string{
	"callback": {"callback_url"}, "callbackuri": {"callback_url"}, "webhook": {"callback_url", "url"}, "webhookurl": {"callback_url", "url"},
	"url": {"callback_url"}, "endpointurl": {"url"}, "callbackurl": {"url"}, "endpoint": {"endpoint_id"},
	"ttl": {"expires_in"}, "timeout": {"expires_in"}, "expiry": {"expires_in"}, "expiresat": {"expires_in"},
	"events": {"event_types", "type"}, "enabledevents": {"event_types"}, "types": {"event_types"}, "eventtype": {"type"},
	"filtertypes": {"event_types"}, "id": {"task_id"}, "taskid": {"task"}, "items": {"tasks"}, "app": {"app_id"}, "account": {"account_id"},
	"page": {"cursor", "after"}, "offset": {"cursor", "after"}, "after": {"cursor"}, "cursor": {"after"}, "nextcursor": {"cursor", "after"},
	"startingafter": {"cursor", "after"}, "perpage": {"limit"}, "pagesize": {"limit"}, "count": {"limit", "expected_videos"},
	"state": {"status"}, "query": {"q"}, "search": {"q"}, "key": {"api_key"}, "rps": {"requests_per_second"}, "videos": {"expected_videos"},
	"tags": {"metadata"}, "data": {"metadata", "tasks"}, "from": {"since"}, "to": {"until"},
}

// nearest returns which of the known names a wrong one probably means; empty if none is near.
func nearest(name string, known []string) string {
	plain := plainly(name)
	best, least := "", 3
	for _, k := range known {
		d := distance(plain, plainly(k))
		if strings.HasSuffix(k, "."+name) { // ready for task.ready
			d = 0
		}
		if d < least && (d == 0 || 2*d < min(len(plain), len(k))) {
			best, least = k, d
		}
	}
	if best != "" {
		return best
	}
	for _, k := range otherNames[plain] {
		if slices.Contains(known, k) {
			return k
		}
	}
	return ""
}

// meant is the end of a message about a wrong name: which one may have been meant.
func meant(name string, known []string) string {
	if near := nearest(name, known); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}

// plainly returns a name without its case and separators.
func plainly(name string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "", "[", "", "]", "").Replace(strings.ToLower(name[:min(len(name), 100)]))
}

// distance is the least number of bytes to insert, delete or replace that turns a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
