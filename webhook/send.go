package webhook

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/memhook/memhook/internal/outbound"
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

// Response is the outcome of an attempt. Status is 0 if there was no response; Err is the reason, in words for the
// receiver's owner that show nothing of memhook's network.
type Response struct {
	SentAt   time.Time
	Duration time.Duration
	Status   int
	Header   http.Header
	Body     []byte // at most MaxResponse
	Err      error
}

// OK reports whether the receiver accepted the webhook: the status was 2xx.
func (r Response) OK() bool { return r.Err == nil && r.Status >= 200 && r.Status < 300 }

// Class returns the kind of outcome, for metrics: 1xx to 9xx, timeout, forbidden, proxy, error.
func (r Response) Class() string {
	e, ok := errors.AsType[*outbound.Error](r.Err)
	switch {
	case r.Status != 0:
		return strconv.Itoa(r.Status/100) + "xx"
	case ok && e.Timeout():
		return "timeout"
	case r.kind() == outbound.Forbidden:
		return "forbidden"
	case r.ProxyFailed():
		return "proxy"
	default:
		return "error"
	}
}

// ProxyFailed reports whether the proxy that webhooks leave through failed, for which the receiver is not to blame.
func (r Response) ProxyFailed() bool { return r.kind() == outbound.Proxy }

// Details returns the cause of Err, which the receiver's owner must not see; nil if there is none.
func (r Response) Details() error { return errors.Unwrap(r.Err) }

func (r Response) kind() outbound.Kind {
	if e, ok := errors.AsType[*outbound.Error](r.Err); ok {
		return e.Kind
	}
	return ""
}

// Sender posts webhooks. It is safe for concurrent use.
type Sender struct {
	guard     *Guard
	proxied   bool
	http      *outbound.Client
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
	Proxy        *url.URL         // http or https: all webhooks leave through it; nil for none
	Roots        *x509.CertPool   // receivers' certificates are verified with it; nil means the system's
	Now          func() time.Time // nil means time.Now
}

// NewSender makes a Sender: HTTP/1.1, no redirects, no proxy from the environment, TLS 1.2 up. Through a proxy, the guard
// judges a target's name and literal address; what a name resolves to is the proxy's to judge.
func NewSender(cfg SenderConfig) *Sender {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	out := outbound.Config{
		Timeout: cfg.Timeout, MaxHeader: maxResponseHeader, MaxBody: MaxResponse, MaxIdle: 1000, MaxIdlePerHost: cfg.ConnsPerHost, Resend: true,
		Control: cfg.Guard.Control, Resolver: cfg.Resolver, Roots: cfg.Roots,
	}
	if cfg.Proxy != nil {
		out.Proxy = http.ProxyURL(cfg.Proxy)
	}
	return &Sender{guard: cfg.Guard, proxied: cfg.Proxy != nil, http: outbound.New(out), userAgent: cfg.UserAgent, now: cfg.Now}
}

// Close lets go of idle connections.
func (s *Sender) Close() { s.http.Close() }

// Send makes one attempt. It never fails: what went wrong is the response's Err.
func (s *Sender) Send(ctx context.Context, r Request) Response {
	at := s.now()
	req, err := s.request(ctx, http.MethodPost, r.URL, bytes.NewReader(r.Body))
	if err != nil {
		return Response{SentAt: at, Err: err}
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
	return s.exchange(req, at)
}

// Probe asks for a URL's head, the way that webhooks take.
func (s *Sender) Probe(ctx context.Context, rawURL string) Response {
	at := s.now()
	req, err := s.request(ctx, http.MethodHead, rawURL, nil)
	if err != nil {
		return Response{SentAt: at, Err: err}
	}
	req.Header.Set("User-Agent", s.userAgent)
	return s.exchange(req, at)
}

// request makes a request of a URL's normal form.
func (s *Sender) request(ctx context.Context, method, rawURL string, body io.Reader) (*http.Request, error) {
	target, err := ParseTarget(rawURL)
	switch {
	case errors.Is(err, ErrForbidden):
		return nil, &outbound.Error{Kind: outbound.Forbidden, Err: err}
	case err != nil:
		return nil, &outbound.Error{Kind: outbound.Unsendable, Err: err}
	case s.proxied:
		if err := s.guard.check(target); err != nil {
			return nil, &outbound.Error{Kind: outbound.Forbidden, Err: err}
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), body)
	if err != nil {
		return nil, &outbound.Error{Kind: outbound.Unsendable, Err: err}
	}
	req.Header.Set("Accept", "*/*")
	return req, nil
}

func (s *Sender) exchange(req *http.Request, at time.Time) Response {
	start := time.Now()
	answer, err := s.http.Do(req.Context(), req)
	out := Response{SentAt: at, Duration: time.Since(start), Err: err}
	if answer == nil {
		return out
	}
	out.Status, out.Header, out.Body = answer.Status, answer.Header, answer.Body
	if answer.Broken != nil && !out.OK() { // the status decides, whatever happens to the body after it
		out.Err = answer.Broken
	}
	return out
}

// RetryAfter reads the header's seconds or date, at most an hour; 0 where it has neither.
func (r Response) RetryAfter() time.Duration {
	return outbound.RetryAfter(r.Header, r.SentAt.Add(r.Duration), time.Hour)
}

// Headers returns the response's headers for storage, bounded in number and length.
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

// Printable returns foreign bytes as text that any database stores: valid UTF-8 without control
// characters but tab and line ends.
func Printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t' {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(string(b), string(unicode.ReplacementChar)))
}
