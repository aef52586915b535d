package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/memhook/memhook/store"
)

// Bounds of a registration.
const (
	maxTaskID       = 256
	maxMetadataKey  = 128
	maxMetadataText = 2048
	maxExpiresIn    = 90 * 24 * time.Hour
)

// NewTask is a registration.
type NewTask struct {
	TaskID         string            `json:"task_id" minLength:"1" maxLength:"256" example:"4b2d85ea-8b61-4689-96c3-75d907140242_84f9d9b4b6e5940b67e67e2d17ef1f97" doc:"The task id of memories.ai: 1 to 256 printable characters."`
	UniqueID       string            `json:"unique_id,omitempty" maxLength:"256" default:"default" doc:"The unique_id of the upload: printable characters."`
	CallbackURL    string            `json:"callback_url" example:"https://customer.example/hooks" doc:"The URL that receives the webhooks: absolute, at most 2,048 characters, without user name and fragment, and not ending in /*, which is for the URLs of endpoints. A task has at most 1,000 of them."`
	Metadata       map[string]string `json:"metadata,omitempty" maxProperties:"50" doc:"Returned in every event of the task. Names have 1 to 128 bytes, values at most 2,048; the character NUL is refused."`
	ExpectedVideos *int              `json:"expected_videos,omitempty" minimum:"1" maximum:"10000" doc:"The task is ready when its list has this many videos; absent: as soon as it has one. With until downloaded it is not polled further then, so that videos beyond this number are not reported."`
	Until          string            `json:"until,omitempty" enum:"downloaded,indexed" default:"downloaded" doc:"The stage until which the task is followed."`
	ExpiresIn      string            `json:"expires_in,omitempty" example:"24h" doc:"The time until the task expires, as a duration such as 90m or 24h: at least 1s, at most 2160h."`
}

type createTaskOutput struct {
	Status int
	Body   Task
}

func (s *server) createTask(ctx context.Context, in *body[NewTask]) (*createTaskOutput, error) {
	n, err := s.newTask(ctx, callerOf(ctx), in.Body)
	if err != nil {
		return nil, err
	}
	reg, err := s.store.RegisterTask(ctx, n)
	if err != nil {
		return nil, err
	}
	return &createTaskOutput{Status: registeredStatus(reg), Body: wireTask(reg.Task)}, nil
}

// registeredStatus is 201 if the subscription is new, 200 if it existed.
func registeredStatus(reg store.Registered) int {
	if reg.Created {
		return http.StatusCreated
	}
	return http.StatusOK
}

// newTask checks what the schema of a registration cannot express.
func (s *server) newTask(ctx context.Context, who caller, in NewTask) (store.Registration, error) {
	in.UniqueID, in.Until = cmp.Or(in.UniqueID, "default"), cmp.Or(in.Until, store.UntilDownloaded)
	var wrong []FieldError
	bad := func(field, format string, args ...any) {
		wrong = append(wrong, FieldError{field, fmt.Sprintf(format, args...)})
	}
	if !printable(in.TaskID) || utf8.RuneCountInString(in.TaskID) > maxTaskID || in.TaskID == "" {
		bad("task_id", "must be 1 to %d printable characters, without line ends and tabs", maxTaskID)
	}
	if !printable(in.UniqueID) {
		bad("unique_id", "must have printable characters only, without line ends and tabs")
	}
	target, err := s.cfg.Guard.Target(in.CallbackURL)
	if err != nil {
		bad("callback_url", "%s", err)
	} else if strings.HasSuffix(target.Endpoint(), "/*") {
		bad("callback_url", "must not end in /*, which is for the URL of an endpoint only; write the whole path")
	}
	if _, nameless := in.Metadata[""]; nameless {
		bad("metadata", "must not have a member without a name")
	}
	for k, v := range in.Metadata {
		if message := metadataFault(k, v); message != "" {
			bad("metadata."+k[:min(len(k), maxMetadataKey)], "%s", message)
		}
	}
	expires := s.cfg.ExpiresIn
	if in.ExpiresIn != "" {
		if expires, err = parseDuration(in.ExpiresIn, time.Second, maxExpiresIn); err != nil {
			bad("expires_in", "%s", err)
		}
	}
	if wrong != nil {
		return store.Registration{}, invalid(wrong...)
	}
	return store.Registration{
		AppID: who.AppID, UpstreamID: in.TaskID, UniqueID: in.UniqueID, CallbackURL: target.String(),
		Metadata: in.Metadata, Until: in.Until, ExpectedVideos: in.ExpectedVideos, ExpiresIn: expires,
		Traceparent: traceparent(ctx),
	}, nil
}

// metadataFault says what is wrong with a member of metadata; empty if nothing is.
func metadataFault(key, value string) string {
	switch {
	case len(key) > maxMetadataKey:
		return fmt.Sprintf("must have a name of at most %d bytes", maxMetadataKey)
	case len(value) > maxMetadataText:
		return fmt.Sprintf("must have at most %d bytes, not %d", maxMetadataText, len(value))
	case !storable(key + value):
		return "must not contain the character NUL"
	}
	return ""
}

// parseDuration reads a duration within bounds. Its error says what is wanted.
func parseDuration(text string, least, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < least || d > most {
		return 0, fmt.Errorf("must be a duration from %s to %gh with a unit, such as 90m or 24h; a day is 24h", least, most.Hours())
	}
	return d, nil
}

// optionalDuration reads a field with a duration within bounds, standard where it is empty.
func optionalDuration(field, text string, standard, least, most time.Duration) (time.Duration, error) {
	if text == "" {
		return standard, nil
	}
	d, err := parseDuration(text, least, most)
	if err != nil {
		return 0, invalid(FieldError{field, err.Error()})
	}
	return d, nil
}

// storable reports whether PostgreSQL can store a text.
func storable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// repeatedRegistration documents the answer to a registration that was made before.
func repeatedRegistration() map[string]*huma.Response {
	return map[string]*huma.Response{"200": {
		Description: "The same registration was made before.",
		Content:     map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Ref: schemaPrefix + "Task"}}},
	}}
}
