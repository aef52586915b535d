package api

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

// Bounds of an endpoint's headers; values in bytes.
const (
	maxHeaders     = 20
	maxHeaderValue = 1024
)

// settings checks the settings of an endpoint; nil ones are not changed.
func (s *server) settings(p EndpointPatch, secret string) (store.EndpointSettings, error) {
	var wrong []FieldError
	if p.URL != nil {
		if err := s.cfg.Guard.CheckURL(*p.URL); err != nil {
			wrong = append(wrong, FieldError{"url", err.Error()})
		}
	}
	if p.EventTypes != nil {
		for i, t := range *p.EventTypes {
			if !slices.Contains(store.EventTypes, t) {
				wrong = append(wrong, FieldError{fmt.Sprintf("event_types[%d]", i), "must be one of " + strings.Join(store.EventTypes, ", ")})
			}
		}
	}
	if p.Headers != nil {
		wrong = append(wrong, checkHeaders(*p.Headers)...)
	}
	set := store.EndpointSettings{
		URL: p.URL, Description: p.Description, Enabled: p.Enabled, EventTypes: p.EventTypes, Headers: p.Headers, RateLimit: p.RateLimit,
	}
	if secret != "" {
		var err error
		if set.Secret, err = webhook.ParseSecret(secret); err != nil || !strings.HasPrefix(secret, webhook.SecretPrefix) {
			wrong = append(wrong, FieldError{"secret", "must be " + webhook.SecretPrefix + " followed by base64 of 24 to 64 bytes"})
		}
	}
	if p.Description != nil && !storable(*p.Description) {
		wrong = append(wrong, FieldError{"description", "must not contain the character NUL"})
	}
	if wrong != nil {
		return set, invalid(wrong...)
	}
	return set, nil
}

var headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$") // a token of RFC 9110

// reservedHeaders are those that memhook sets, those of the connection (RFC 9110, 7.6.1), and those that would change where
// or how the request goes.
var reservedHeaders = []string{
	"content-type", "content-length", "content-encoding", "user-agent", "host", "connection", "keep-alive", "proxy-connection",
	"proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "expect", "http2-settings",
	"traceparent", "tracestate",
}

func checkHeaders(headers map[string]string) (wrong []FieldError) {
	if len(headers) > maxHeaders {
		wrong = append(wrong, FieldError{"headers", fmt.Sprintf("must be at most %d headers", maxHeaders)})
	}
	for name, value := range headers {
		lower := strings.ToLower(name)
		switch {
		case !headerName.MatchString(name):
			wrong = append(wrong, FieldError{"headers." + name, "must be the name of an HTTP header"})
		case slices.Contains(reservedHeaders, lower) || strings.HasPrefix(lower, "webhook-"):
			wrong = append(wrong, FieldError{"headers." + name, "is set by memhook and cannot be changed"})
		case len(value) > maxHeaderValue || strings.ContainsFunc(value, notInHeader):
			wrong = append(wrong, FieldError{"headers." + name, fmt.Sprintf("must be at most %d printable ASCII characters", maxHeaderValue)})
		}
	}
	return wrong
}

// notInHeader reports whether a rune cannot stand in a header's value.
func notInHeader(r rune) bool { return r < ' ' && r != '\t' || r >= 0x7f }
