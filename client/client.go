// Package client calls memhook's API. Its types and its methods, one for each operation, are generated from
// the OpenAPI document; [New] and [Read] are all that is written by hand:
//
//	c, err := client.New("https://memhook.example", apiKey)
//	…
//	task, err := client.Read[client.Task](c.GetTask(ctx, id))
package client

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

//go:generate sh -c "go run ../cmd/memhook openapi | go tool -modfile=../tools.mod oapi-codegen -config oapi-codegen.yaml -o client.gen.go /dev/stdin"

// maxAnswer is the maximum size of an answer that Read reads, in bytes.
const maxAnswer = 64 << 20

// New returns a client of the memhook at url, which has the scheme and the host and perhaps a path. token is an
// app's API key, or the admin token for the methods whose names begin with Admin. Among the options,
// [WithHTTPClient] sets timeouts and proxies; without it http.Client's defaults hold.
func New(url, token string, options ...ClientOption) (*Client, error) {
	authorize := WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+token)
		return nil
	})
	return NewClient(url, append([]ClientOption{authorize}, options...)...)
}

// Read returns the body of an answer as T; T is struct{} for answers without a body. It takes what a method of
// [Client] returns. If the answer is a problem, the error is a [*Problem].
func Read[T any](resp *http.Response, err error) (T, error) {
	var out T
	if err != nil {
		return out, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return out, fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return out, problemOf(resp, body)
	}
	if len(body) == 0 {
		return out, nil
	}
	if err := json.Unmarshal(body, &out); err != nil {
		return out, fmt.Errorf("the answer with status %s is not one of memhook: %w", resp.Status, err)
	}
	return out, nil
}

// problemOf returns the problem in an answer. Something between the client and memhook may have answered.
func problemOf(resp *http.Response, body []byte) error {
	p := &Problem{}
	if json.Unmarshal(body, p) != nil || p.Code == "" {
		return fmt.Errorf("the answer has status %s and is not one of memhook", resp.Status)
	}
	p.Status = cmp.Or(p.Status, int64(resp.StatusCode))
	return p
}

// Error returns the code and the detail, which names the fields that are wrong.
func (p *Problem) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s (%d): %s", p.Code, p.Status, p.Detail)
	if p.Errors == nil {
		return text.String()
	}
	for _, field := range *p.Errors {
		if part := field.Field + " " + field.Message; !strings.Contains(p.Detail, part) {
			text.WriteString("; " + part)
		}
	}
	return text.String()
}
