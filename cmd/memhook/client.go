package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/memhook/memhook/client"
	"github.com/memhook/memhook/cmd/internal/app"
	"github.com/memhook/memhook/store"
)

// clientTimeout is the maximum time for one request of a client command. Rotating a secret takes a second; all else
// takes milliseconds.
const clientTimeout = 30 * time.Second

// maxPage is the maximum size of a page of a list.
const maxPage = 500

// remote is the memhook that a client command talks to, and how the command prints.
type remote struct {
	URL  string `name:"url" env:"MEMHOOK_URL" default:"http://127.0.0.1:8080" help:"The memhook to talk to."`
	Key  string `name:"key" env:"MEMHOOK_API_KEY" help:"The app's API key. Other users of the machine can see flags; prefer the variable."`
	JSON bool   `name:"json" help:"Print JSON."`
}

// ProvideClient returns the client of the memhook at URL. kong calls it for the Run methods that take one.
func (r remote) ProvideClient() (*client.Client, error) {
	base, key := strings.TrimSpace(r.URL), strings.TrimSpace(r.Key) // a file or a pasted line ends with a line end
	var wrong app.SettingErrors
	switch {
	case key == "":
		wrong = append(wrong, "MEMHOOK_API_KEY is required: the app's API key, such as "+store.KeyPrefix+"…")
	case !store.ValidKey(key):
		wrong = append(wrong, "MEMHOOK_API_KEY must have only printable ASCII characters and no spaces inside, such as "+store.KeyPrefix+"…")
	}
	if u, err := url.Parse(base); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		wrong = append(wrong, "MEMHOOK_URL must be the http or https URL of a memhook, such as https://memhook.example")
	}
	if wrong != nil {
		return nil, wrong
	}
	return client.New(strings.TrimRight(base, "/"), key, client.WithHTTPClient(&http.Client{Timeout: clientTimeout}))
}

// listPage is a page of any list.
type listPage[T any] struct {
	Data       []T     `json:"data"`
	NextCursor *string `json:"next_cursor"`
}

// readPages reads the first limit entries of a list, page by page.
func readPages[T any](limit int, read func(limit int64, cursor *string) (*http.Response, error)) ([]T, error) {
	all := []T{}
	for cursor := (*string)(nil); len(all) < limit; {
		got, err := client.Read[listPage[T]](read(int64(min(limit-len(all), maxPage)), cursor))
		if err != nil {
			return nil, err
		}
		all = append(all, got.Data...)
		if cursor = got.NextCursor; cursor == nil {
			break
		}
	}
	return all, nil
}

// print prints v: as JSON, or as text does.
func (r remote) print(v any, text func(io.Writer)) error {
	if r.JSON {
		out := json.NewEncoder(os.Stdout)
		out.SetEscapeHTML(false)
		out.SetIndent("", "  ")
		return out.Encode(v)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	text(w)
	return w.Flush()
}

// row writes a line of a table.
func row(w io.Writer, cells ...any) {
	for i, cell := range cells {
		if i > 0 {
			_, _ = io.WriteString(w, "\t")
		}
		_, _ = io.WriteString(w, cellText(cell))
	}
	_, _ = io.WriteString(w, "\n")
}

// cellText writes a value on one line, and what is absent as a dash.
func cellText(v any) string {
	if at, ok := v.(*time.Time); ok && at != nil {
		v = *at
	}
	text := fmt.Sprint(v)
	if at, ok := v.(time.Time); ok {
		text = at.UTC().Format(time.RFC3339)
	}
	if text == "" || text == "<nil>" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 { // no control characters of others on the terminal
			return ' '
		}
		return r
	}, text)
}

// optional returns the value of a flag, or nil if the flag is absent.
func optional[T ~string, S ~string](s S) *T {
	if s == "" {
		return nil
	}
	v := T(s)
	return &v
}

// isTemporary reports whether a request that failed so may succeed if it is repeated.
func isTemporary(err error) bool {
	if problem, ok := errors.AsType[*client.Problem](err); ok {
		return problem.Status == http.StatusTooManyRequests || problem.Status >= http.StatusInternalServerError
	}
	_, ok := errors.AsType[*url.Error](err)
	return ok
}

// pause waits for d. It returns an error if ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
