package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
)

// Kind is why there is no answer, or why its body ended early, in words for the peer's owner.
// They show nothing of the network that memhook runs in.
type Kind string

// The kinds.
const (
	Refused        Kind = "the connection was refused: nothing accepts connections at this host and port"
	NoRoute        Kind = "the host cannot be reached: there is no route to its address"
	Unresolved     Kind = "the host's name could not be resolved"
	Forbidden      Kind = "the address is not allowed"
	TLSExpired     Kind = "TLS: the certificate has expired or is not valid yet"
	TLSName        Kind = "TLS: the certificate is not valid for this host name"
	TLSAuthority   Kind = "TLS: the certificate is signed by an unknown authority, or an intermediate certificate is missing"
	TLSPlain       Kind = "TLS: the port does not speak TLS"
	TLSNoHTTP1     Kind = "TLS: the server does not offer HTTP/1.1"
	TLSCertificate Kind = "TLS: the certificate is not valid"
	TLSClosed      Kind = "TLS: the connection was closed in the handshake"
	TLSBroken      Kind = "TLS: the server ended the connection with an error; no client certificate is sent"
	TLSOther       Kind = "TLS: the handshake failed; TLS 1.2 or newer is needed"
	TimeoutConnect Kind = "timeout while connecting"
	TimeoutTLS     Kind = "timeout while connecting: the TLS handshake did not end"
	TimeoutAnswer  Kind = "timeout while waiting for the answer"
	TimeoutRead    Kind = "timeout while reading the answer"
	Closed         Kind = "the connection was closed before an answer"
	ClosedRead     Kind = "the connection was closed in the middle of the answer"
	Malformed      Kind = "the answer is not HTTP/1.1"
	HeaderTooLarge Kind = "the answer's header is too large"
	Proxy          Kind = "the proxy that requests leave through failed"
	Unsendable     Kind = "the request could not be made"
	Cancelled      Kind = "the attempt was given up"
	NotReached     Kind = "could not connect to the host"
	MalformedBody  Kind = "the answer's body is not HTTP/1.1"
)

// Error is why an exchange failed. Its text is its kind's; Err holds the details, which are for our log only.
type Error struct {
	Kind Kind
	Err  error
}

// Error returns the kind's words.
func (e *Error) Error() string { return string(e.Kind) }

// Unwrap returns the details.
func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether the time was over.
func (e *Error) Timeout() bool {
	switch e.Kind {
	case TimeoutConnect, TimeoutTLS, TimeoutAnswer, TimeoutRead:
		return true
	default:
		return false
	}
}

var (
	errHeader              = errors.New("the header is too large")
	errStatus              = errors.New("a status below 100")
	errProxyAuthentication = errors.New("it answers 407 Proxy Authentication Required")
)

// forbiddenError is what Config.Control has against an address.
type forbiddenError struct{ error }

func (e forbiddenError) Unwrap() error { return e.error }

// proxyError is a failure of the proxy.
type proxyError struct{ error }

func (e proxyError) Unwrap() error { return e.error }

func asProxyError(err error) error {
	if err == nil {
		return nil
	}
	return proxyError{err}
}

// handshakeError is a failed TLS handshake.
type handshakeError struct{ error }

func (e *handshakeError) Unwrap() error { return e.error }

// phase is what an exchange was doing.
type phase int

const (
	connecting phase = iota
	waiting          // for the head
	reading          // the body
)

// failed classifies an error by the phase in which it occurred. After a time-out it closes the host's idle connections: they
// may be silent too.
func (c *Client) failed(ctx context.Context, r *route, at phase, err error) *Error {
	e := &Error{Kind: kindOf(ctx, at, err), Err: err}
	if r.absolute && e.Kind == Closed { // a proxy whose target closes answers for it
		e.Kind = Proxy
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		c.pool.drop(r.key)
	}
	return e
}

func kindOf(ctx context.Context, at phase, err error) Kind {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return Cancelled
	case errors.As(err, new(proxyError)):
		return Proxy
	case errors.As(err, new(forbiddenError)):
		return Forbidden
	case errors.As(err, new(*net.DNSError)):
		return Unresolved
	case ctx.Err() != nil || isTimeout(err):
		return timeoutKind(at, err)
	case at == connecting:
		return connectKind(err)
	case isTLS(err):
		return TLSBroken
	case errors.Is(err, errHeader):
		return HeaderTooLarge
	case isClosed(err):
		if at == waiting && !errors.Is(err, io.ErrUnexpectedEOF) {
			return Closed
		}
		return ClosedRead
	case at == reading:
		return MalformedBody
	default:
		return Malformed
	}
}

func timeoutKind(at phase, err error) Kind {
	switch {
	case at == reading:
		return TimeoutRead
	case at == waiting:
		return TimeoutAnswer
	case errors.As(err, new(*handshakeError)):
		return TimeoutTLS
	default:
		return TimeoutConnect
	}
}

func connectKind(err error) Kind {
	switch {
	case errors.As(err, new(*handshakeError)):
		return handshakeKind(err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return NoRoute
	case errors.Is(err, syscall.ECONNRESET): // accepted, and reset before connect returned
		return Closed
	default:
		return NotReached
	}
}

func handshakeKind(err error) Kind {
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return TLSExpired
	case errors.As(err, new(x509.HostnameError)):
		return TLSName
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return TLSAuthority
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return TLSCertificate
	case errors.As(err, new(tls.RecordHeaderError)):
		return TLSPlain
	case isClosed(err):
		return TLSClosed
	case strings.Contains(err.Error(), "no application protocol"), strings.Contains(err.Error(), "ALPN"): // crypto/tls has no names for them
		return TLSNoHTTP1
	default:
		return TLSOther
	}
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// isTLS reports whether an error came from TLS after the handshake: an alert of either side, or something else than TLS.
func isTLS(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return errors.As(err, new(tls.RecordHeaderError)) || ok && (op.Op == "remote error" || op.Op == "local error")
}
