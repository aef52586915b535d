package api

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

// Bounds of an endpoint's headers; values in bytes.
const (
	maxHeaders     = 20
	maxHeaderValue = 1024
)

// minRate is the least rate limit, per second: one in 100 seconds.
const minRate = 0.01

// settings checks the settings of an endpoint; absent ones are not changed.
func (s *server) settings(p EndpointPatch, secret string) (set store.EndpointSettings, err error) {
	var wrong []FieldError
	bad := func(field, message string) { wrong = append(wrong, FieldError{field, message}) }
	set = store.EndpointSettings{
		Description: p.Description.orNil(), Enabled: p.Enabled.orNil(), EventTypes: p.EventTypes.orNil(), RateLimit: p.RateLimit.orNil(),
	}
	if p.URL.Set {
		if set.URL, err = s.endpointURL(p.URL.Value); err != nil {
			bad("url", err.Error())
		}
	}
	for i, t := range p.EventTypes.Value {
		if !slices.Contains(store.EventTypes, t) {
			bad(fmt.Sprintf("event_types[%d]", i), oneOf(t, store.EventTypes)+"; leave event_types out for all events of the tasks")
		}
	}
	if p.Headers.Set {
		wrong = append(wrong, checkHeaders(p.Headers.Value)...)
		set.Headers = make(map[string]*string, len(p.Headers.Value))
		for name, value := range p.Headers.Value {
			if set.Headers[name] = &value; value == masked {
				set.Headers[name] = nil
			}
		}
	}
	if r := p.RateLimit.Value; r > 0 && r < minRate {
		bad("rate_limit", fmt.Sprintf("must be at least %g deliveries per second, or 0 for no limit", minRate))
	}
	if p.Signatures.Set {
		set.Signatures = &[]string{store.SignatureHMAC}
		if list := p.Signatures.Value; slices.Contains(list, store.SignatureEd25519) {
			*set.Signatures = append(*set.Signatures, store.SignatureEd25519)
		}
		if p.Signatures.Value != nil && !validSignatures(p.Signatures.Value) {
			bad("signatures", `must be ["v1"] or ["v1","v1a"]; leave it out for ["v1"]`)
		}
	}
	if secret != "" {
		if set.Secret, err = webhook.ParseSecret(secret); err != nil || !strings.HasPrefix(secret, webhook.SecretPrefix) {
			bad("secret", "must be "+webhook.SecretPrefix+" followed by base64 of 24 to 64 bytes")
		}
	}
	if !storable(p.Description.Value) {
		bad("description", "must not contain the character NUL")
	}
	if wrong != nil {
		return set, invalid(wrong...)
	}
	return set, nil
}

// validSignatures reports whether a list has v1 and otherwise at most v1a.
func validSignatures(list []string) bool {
	return slices.Contains(list, store.SignatureHMAC) && (len(list) == 1 || slices.Contains(list, store.SignatureEd25519))
}

// endpointURL returns the normal form of an endpoint's URL.
func (s *server) endpointURL(raw string) (*string, error) {
	target, err := s.cfg.Guard.Target(raw)
	if err != nil {
		return nil, err
	}
	if target.Query() != "" {
		return nil, errors.New("must not have a query: an endpoint is named by scheme, host, port and path, " +
			"and a query belongs to the callback URL of a task")
	}
	return new(target.String()), nil
}

var headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$") // a token of RFC 9110

// reservedHeaders are those that memhook sets, those of the connection (RFC 9110, 7.6.1), and those that would change where
// or how the request goes.
var reservedHeaders = []string{
	"content-type", "content-length", "content-encoding", "user-agent", "host", "connection", "keep-alive", "proxy-connection",
	"proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "expect", "http2-settings",
	"traceparent", "tracestate",
}

// TransformSchema documents which headers are refused.
func (NewEndpoint) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Properties["headers"].Description += " A name has at most 100 letters, digits, hyphens and other characters that HTTP permits, in any " +
		"case; a value at most 1,024 printable ASCII characters. memhook sets these, and those that begin with webhook-, itself: " +
		strings.Join(reservedHeaders, ", ") + "."
	return s
}

func checkHeaders(headers map[string]string) (wrong []FieldError) {
	if len(headers) > maxHeaders {
		wrong = append(wrong, FieldError{"headers", fmt.Sprintf("must be at most %d headers", maxHeaders)})
	}
	seen := make(map[string]bool, len(headers))
	for name, value := range headers {
		lower := strings.ToLower(name)
		twice := seen[lower]
		seen[lower] = true
		switch {
		case twice:
			wrong = append(wrong, FieldError{"headers." + name, "is given twice: the case of a header's name does not matter"})
		case !headerName.MatchString(name):
			wrong = append(wrong, FieldError{"headers." + name[:min(len(name), 100)],
				"must be the name of an HTTP header: up to 100 letters, digits and hyphens, without colons or spaces"})
		case slices.Contains(reservedHeaders, lower) || strings.HasPrefix(lower, "webhook-"):
			wrong = append(wrong, FieldError{"headers." + name, "is set by memhook and cannot be changed; leave it out"})
		case len(value) > maxHeaderValue || strings.ContainsFunc(value, notInHeader):
			wrong = append(wrong, FieldError{"headers." + name,
				fmt.Sprintf("must have a value of at most %d printable ASCII characters, without line ends", maxHeaderValue)})
		}
	}
	return wrong
}

// notInHeader reports whether a rune cannot stand in a header's value.
func notInHeader(r rune) bool { return r < ' ' && r != '\t' || r >= 0x7f }
