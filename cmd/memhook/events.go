package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/memhook/memhook/client"
	"github.com/memhook/memhook/webhook"
)

type eventsCommands struct {
	Tail tailEvents `cmd:"" help:"Print events as they happen, within about a second."`
}

// tailInterval is the time between two looks at the feed.
const tailInterval = time.Second

type tailEvents struct {
	remote

	Since  string `default:"0s" help:"Begin with events since then: a time (2026-01-02T15:04:05Z), or how long ago (1h)."`
	After  string `help:"Begin with the event after the one with this id (evt_…)."`
	Type   string `help:"Print only events of this type, such as task.ready."`
	Follow bool   `default:"true" negatable:"" help:"Go on until interrupted; --no-follow ends after the last event."`
}

// Run prints events: a line each, with --json the whole event as a line of JSON.
func (c tailEvents) Run(ctx context.Context, api *client.Client) error {
	after := c.After
	if after == "" {
		var err error
		if after, err = c.start(ctx, api); err != nil {
			return err
		}
	}
	limit := int64(maxPage)
	for {
		params := &client.ListEventsParams{After: &after, Limit: &limit, Type: optional[string](c.Type)}
		got, err := client.Read[listPage[client.Event]](api.ListEvents(ctx, params))
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // interrupted, which is how it ends
		case err != nil && (!c.Follow || !isTemporary(err)):
			return err
		case err != nil:
			fmt.Fprintln(os.Stderr, "memhook:", err)
		}
		for _, event := range got.Data {
			after = event.Id
			if err := c.printEvent(event); err != nil {
				return err
			}
		}
		if got.NextCursor != nil {
			continue
		}
		if !c.Follow {
			return nil
		}
		if err := pause(ctx, tailInterval); err != nil {
			return nil //nolint:nilerr // interrupted: the end of following
		}
	}
}

// start returns the id that comes right before the first event to print. Ids of events begin with their time
// (UUIDv7), which is that of memhook's clock and not of this machine's.
func (c tailEvents) start(ctx context.Context, api *client.Client) (string, error) {
	one := int64(1)
	resp, err := api.ListEvents(ctx, &client.ListEventsParams{Limit: &one})
	if _, err := client.Read[listPage[client.Event]](resp, err); err != nil {
		return "", err
	}
	now, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	since, err := sinceTime(c.Since, now)
	if err != nil {
		return "", fmt.Errorf("--since %w", err)
	}
	millis := fmt.Sprintf("%012x", max(since.UnixMilli(), 0))
	return webhook.EventID(millis[:8] + "-" + millis[8:] + "-0000-0000-000000000000"), nil
}

func (c tailEvents) printEvent(event client.Event) error {
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	if c.JSON {
		return out.Encode(event)
	}
	var body webhook.Event
	var subject struct {
		TaskID string `json:"task_id"`
		URL    string `json:"url"`
	}
	raw, err := json.Marshal(event.Payload)
	if err == nil {
		err = json.Unmarshal(raw, &body)
	}
	if err == nil {
		err = json.Unmarshal(body.Data, &subject)
	}
	if err != nil {
		return fmt.Errorf("read the payload of %s: %w", event.Id, err)
	}
	_, err = fmt.Printf("%s  %-18s  %s  %s\n", cellText(event.Timestamp), event.Type, event.Id, cellText(subject.TaskID+subject.URL))
	return err
}
