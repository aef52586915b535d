package webhook

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// MaxResponse is how much of a response's body is read, in bytes.
const MaxResponse = 4 << 10

const (
	maxResponseHeader = 32 << 10
	keptHeaders       = 50  // of a response
	keptHeaderLength  = 500 // of one value
)

// Request is one webhook to one URL.
type Request struct {
	URL         string
	ID          string // the event's, the same for every attempt
	Body        []byte
	Secrets     [][]byte             // each signs
	SigningKeys []ed25519.PrivateKey // each signs, too
	Headers     map[string]string
	// Traceparent is W3C's header of the same name; nil for none.
	Traceparent *string
}

// Response is what came of an attempt. Status is 0 where there was no response, and Err says why.
type Response struct {
	SentAt   time.Time
	Duration time.Duration
	Status   int
	Header   http.Header
	Body     []byte // at most MaxResponse
	Err      error
}

// OK tells whether the receiver accepted.
func (r Response) OK() bool { return r.Err == nil && r.Status >= 200 && r.Status < 300 }

// Class says what kind of outcome it is, in one of few words: 2xx to 5xx, timeout, forbidden, error.
func (r Response) Class() string {
	switch {
	case errors.Is(r.Err, errTimeout):
		return "timeout"
	case errors.Is(r.Err, ErrForbidden):
		return "forbidden"
	case r.Err != nil || r.Status < 100:
		return "error"
	default:
		return strconv.Itoa(r.Status/100) + "xx"
	}
}

var errTimeout = errors.New("time-out: no complete response in time")

// Sender posts webhooks. It is safe for concurrent use.
type Sender struct {
	http      *http.Client
	userAgent string
	now       func() time.Time
}

// SenderConfig shapes a Sender.
type SenderConfig struct {
	Guard        *Guard
	Timeout      time.Duration // of one attempt, from dialling to the last byte
	UserAgent    string
	ConnsPerHost int              // connections to one host that are kept open
	Resolver     *net.Resolver    // nil means the system's
	Now          func() time.Time // nil means time.Now
}

// NewSender makes a Sender: no redirects, no proxy from the environment, TLS 1.2 up, HTTP/2 where the
// receiver offers it.
func NewSender(cfg SenderConfig) *Sender {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	dialer := &net.Dialer{Timeout: cfg.Timeout, KeepAlive: 30 * time.Second, Control: cfg.Guard.Control, Resolver: cfg.Resolver}
	return &Sender{
		userAgent: cfg.UserAgent,
		now:       cfg.Now,
		http: &http.Client{
			Timeout: cfg.Timeout,
			Transport: &http.Transport{
				DialContext:            dialer.DialContext,
				TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
				ForceAttemptHTTP2:      true,
				MaxIdleConns:           1000,
				MaxIdleConnsPerHost:    cfg.ConnsPerHost,
				IdleConnTimeout:        time.Minute,
				TLSHandshakeTimeout:    cfg.Timeout,
				MaxResponseHeaderBytes: maxResponseHeader,
				DisableCompression:     true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Close lets go of idle connections.
func (s *Sender) Close() { s.http.CloseIdleConnections() }

// Send makes one attempt. It never fails: what went wrong is the response's Err.
func (s *Sender) Send(ctx context.Context, r Request) Response {
	sentAt, start := s.now(), time.Now()
	resp := s.send(ctx, r, sentAt)
	resp.SentAt, resp.Duration = sentAt, time.Since(start)
	return resp
}

func (s *Sender) send(ctx context.Context, r Request, at time.Time) Response {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, bytes.NewReader(r.Body))
	if err != nil {
		return Response{Err: err}
	}
	for name, value := range r.Headers {
		req.Header.Set(name, value)
	}
	if r.Traceparent != nil {
		req.Header.Set("traceparent", *r.Traceparent)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", s.userAgent)
	req.Header.Set(HeaderID, r.ID)
	req.Header.Set(HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	req.Header.Set(HeaderSignature, Sign(r.ID, at, r.Body, r.Secrets, r.SigningKeys...))
	resp, err := s.http.Do(req)
	if err != nil {
		return Response{Err: plain(err)}
	}
	defer func() { _ = resp.Body.Close() }()
	out := Response{Status: resp.StatusCode, Header: resp.Header}
	// What is longer is not read: closing the body then closes the connection.
	out.Body, err = io.ReadAll(io.LimitReader(resp.Body, MaxResponse))
	if err != nil {
		out.Err = plain(err)
	}
	return out
}

// plain says what went wrong without the URL around it.
func plain(err error) error {
	u, ok := errors.AsType[*url.Error](err)
	switch {
	case ok && u.Timeout():
		return errTimeout
	case ok:
		return u.Err
	}
	if t, ok := errors.AsType[net.Error](err); ok && t.Timeout() {
		return errTimeout
	}
	return err
}

// RetryAfter reads the header's seconds or date, at most an hour; 0 where it has neither.
func (r Response) RetryAfter() time.Duration {
	const most = time.Hour
	value := r.Header.Get("Retry-After")
	if s, err := strconv.Atoi(value); err == nil && s > 0 {
		return min(time.Duration(min(s, 1<<20))*time.Second, most)
	}
	if t, err := http.ParseTime(value); err == nil {
		return max(0, min(t.Sub(r.SentAt.Add(r.Duration)), most))
	}
	return 0
}

// Headers gives the response's headers fit to be stored: bounded in number and length.
func (r Response) Headers() map[string]string {
	if r.Header == nil {
		return nil
	}
	out := make(map[string]string, min(len(r.Header), keptHeaders))
	for name, values := range r.Header {
		if len(out) == keptHeaders {
			break
		}
		value := Printable([]byte(strings.Join(values, ", ")))
		if len(value) > keptHeaderLength {
			value = strings.ToValidUTF8(value[:keptHeaderLength], "")
		}
		out[Printable([]byte(name))] = value
	}
	return out
}

// Printable gives foreign bytes as text that any database stores: valid UTF-8 without control
// characters but tab and line ends.
func Printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t' {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(string(b), string(unicode.ReplacementChar)))
}
