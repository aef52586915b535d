package worker

import (
	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
)

// videosOf returns the videos of an answer as the store keeps them: what was not told is nil.
func videosOf(told []memories.Video) []store.Video {
	out := make([]store.Video, len(told))
	for i, v := range told {
		out[i] = store.Video{
			ID: v.ID, Status: orNil(v.Status), Cause: orNil(v.Cause), Name: orNil(v.Name), URL: orNil(v.URL), Duration: v.Duration,
		}
	}
	return out
}

// orNil returns a pointer to s, or nil for "".
func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
