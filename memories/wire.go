package memories

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/memhook/memhook/internal/outbound"
)

const (
	// largeBody is the most of an answer, in bytes, that counts as small. What is made of an answer takes some ten times its
	// size until it is recorded, so large answers take turns.
	largeBody = 64 << 10
	// largeInUse bounds the bytes of large answers in use. One that exceeds it is used alone.
	largeInUse = 1 << 20
)

// maxRetryAfter bounds what an answer may ask for: a date in 9999 must not silence an account for ever.
const maxRetryAfter = 5 * time.Minute

// wire makes the requests of both generations.
type wire struct {
	base, userAgent string
	polls           *outbound.Client    // keeps connections, and never sends again: each request costs a slot of the budget
	submissions     *outbound.Client    // a connection each: one that died while idle would leave open whether a submission was taken
	large           *semaphore.Weighted // the bytes of large answers that are in use
}

func newWire(base string, conns int, userAgent string) *wire {
	cfg := outbound.Config{
		Timeout: Timeout, MaxHeader: 64 << 10, MaxBody: MaxBody, Proxy: http.ProxyFromEnvironment,
		MaxIdle: conns, MaxIdlePerHost: conns,
	}
	polls := outbound.New(cfg)
	cfg.MaxIdle, cfg.MaxIdlePerHost = 0, 0
	return &wire{
		base: base, userAgent: userAgent, polls: polls, submissions: outbound.New(cfg), large: semaphore.NewWeighted(largeInUse),
	}
}

func (w *wire) close() {
	w.polls.Close()
	w.submissions.Close()
}

// answer is the outcome of one request.
type answer struct {
	status     int // 0: no answer came
	body       []byte
	retryAfter time.Duration // as the header asks, at most maxRetryAfter
	scheme     string        // of WWW-Authenticate
	err        error         // why there is no answer, or not all of it
	unsent     bool          // the service has received nothing of the request
	release    func()        // lets the next large answer be used; nil of a small one
}

// get makes the one request of a poll. A large answer is returned when those before it were released.
func (w *wire) get(ctx context.Context, path, authorization string) answer {
	a := w.do(ctx, w.polls, http.MethodGet, path, authorization, nil)
	if len(a.body) > largeBody {
		n := int64(min(len(a.body), largeInUse))
		if err := w.large.Acquire(ctx, n); err != nil {
			a.body, a.err = nil, err
			return a
		}
		a.release = sync.OnceFunc(func() { w.large.Release(n) })
	}
	return a
}

// post makes the one request of a submission. Once begun it goes on to its end whatever becomes of ctx: an
// answer that nobody waits for would leave open whether the submission was taken.
func (w *wire) post(ctx context.Context, path, authorization string, body []byte) answer {
	if err := ctx.Err(); err != nil {
		return answer{err: err, unsent: true}
	}
	return w.do(context.WithoutCancel(ctx), w.submissions, http.MethodPost, path, authorization, bytes.NewReader(body))
}

func (w *wire) do(ctx context.Context, client *outbound.Client, method, path, authorization string, body io.Reader) answer {
	req, err := http.NewRequestWithContext(ctx, method, w.base+path, body)
	if err != nil {
		return answer{err: &outbound.Error{Kind: outbound.Unsendable, Err: err}, unsent: true}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", authorization)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", w.userAgent)
	resp, err := client.Do(ctx, req)
	if err != nil {
		return answer{err: err, unsent: unsent(err)}
	}
	a := answer{
		status: resp.Status, body: bytes.TrimPrefix(resp.Body, []byte("\ufeff")), scheme: resp.Header.Get("WWW-Authenticate"),
		retryAfter: outbound.RetryAfter(resp.Header, time.Now(), maxRetryAfter),
	}
	switch {
	case resp.Broken != nil: // half of an answer is worth less than its status alone
		a.body, a.err = nil, resp.Broken
	case resp.Cut:
		a.body, a.err = nil, errTooLarge
	}
	return a
}

var errTooLarge = fmt.Errorf("the answer is larger than %d bytes", MaxBody)

// unsent reports whether a request failed before a byte of it left.
func unsent(err error) bool {
	fault, ok := errors.AsType[*outbound.Error](err)
	if !ok {
		return false
	}
	switch fault.Kind {
	case outbound.Unsendable, outbound.Forbidden, outbound.Unresolved, outbound.NoRoute, outbound.Refused, outbound.NotReached, outbound.Proxy,
		outbound.TimeoutConnect, outbound.TimeoutTLS, outbound.TLSExpired, outbound.TLSName, outbound.TLSAuthority, outbound.TLSPlain,
		outbound.TLSNoHTTP1, outbound.TLSOther:
		return true
	default:
		return false
	}
}
