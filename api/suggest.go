package api

import (
	"slices"
	"strings"

	"github.com/memhook/memhook/internal/nearest"
)

// otherNames are the names that other APIs have for fields and parameters of this one, without case and separators.
var otherNames = map[string][]string{
	"callback": {"callback_url"}, "callbackuri": {"callback_url"}, "webhook": {"callback_url", "url"}, "webhookurl": {"callback_url", "url"},
	"url": {"callback_url"}, "endpointurl": {"url"}, "callbackurl": {"url"}, "endpoint": {"endpoint_id"},
	"ttl": {"expires_in"}, "timeout": {"expires_in"}, "expiry": {"expires_in"}, "expiresat": {"expires_in"},
	"events": {"event_types", "type"}, "enabledevents": {"event_types"}, "types": {"event_types"}, "eventtype": {"type"},
	"filtertypes": {"event_types"}, "id": {"task_id"}, "taskid": {"task"}, "items": {"tasks"}, "app": {"app_id"}, "account": {"account_id"},
	"page": {"cursor"}, "offset": {"cursor"}, "after": {"cursor"}, "nextcursor": {"cursor"}, "startingafter": {"after", "cursor"},
	"perpage": {"limit"}, "pagesize": {"limit"}, "count": {"limit", "expected_videos"},
	"state": {"status"}, "query": {"q"}, "search": {"q"}, "key": {"api_key"}, "rps": {"requests_per_second"}, "videos": {"expected_videos"},
	"tags": {"metadata"}, "data": {"metadata", "tasks"}, "from": {"since"}, "to": {"until"},
}

// meant is the end of a message about a wrong name: which of the known ones may have been meant.
func meant(name string, known []string) string {
	near := nearest.Of(name, known)
	if near == "" {
		for _, other := range otherNames[separators.Replace(strings.ToLower(name))] {
			if slices.Contains(known, other) {
				near = other
				break
			}
		}
	}
	if near == "" {
		return ""
	}
	return "; did you mean " + near + "?"
}

var separators = strings.NewReplacer("_", "", "-", "", "[]", "")
