package webhook

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of Standard Webhooks.
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

// The prefixes of the two kinds of key as people see them.
const (
	SecretPrefix    = "whsec_"
	PublicKeyPrefix = "whpk_"
)

// Tolerance is how far a webhook's timestamp may be from the receiver's clock.
const Tolerance = 5 * time.Minute

// Errors of [Verify].
var (
	ErrHeaders   = errors.New("webhook: a header is missing or malformed")
	ErrTimestamp = errors.New("webhook: the timestamp is more than five minutes from now")
	ErrSignature = errors.New("webhook: no signature matches")
)

// FormatSecret writes a secret as people see it.
func FormatSecret(secret []byte) string {
	return SecretPrefix + base64.StdEncoding.EncodeToString(secret)
}

// FormatPublicKey writes a public key as people see it.
func FormatPublicKey(key ed25519.PublicKey) string {
	return PublicKeyPrefix + base64.StdEncoding.EncodeToString(key)
}

// ParseSecret reads a secret of 24 to 64 bytes as people write it.
func ParseSecret(s string) ([]byte, error) {
	secret, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, SecretPrefix))
	if err != nil || len(secret) < 24 || len(secret) > 64 {
		return nil, fmt.Errorf("a secret is %s and base64 of 24 to 64 bytes", SecretPrefix)
	}
	return secret, nil
}

// Sign returns the value of the signature header: an HMAC-SHA256 (v1) for each secret and an ed25519 signature (v1a) for
// each key. What is signed is "{id}.{timestamp}.{body}", the timestamp in Unix seconds.
func Sign(id string, timestamp time.Time, body []byte, secrets [][]byte, keys ...ed25519.PrivateKey) string {
	content := signedContent(id, strconv.FormatInt(timestamp.Unix(), 10), body)
	signatures := make([]string, 0, len(secrets)+len(keys))
	for _, secret := range secrets {
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac(secret, content)))
	}
	for _, key := range keys {
		signatures = append(signatures, "v1a,"+base64.StdEncoding.EncodeToString(ed25519.Sign(key, content)))
	}
	return strings.Join(signatures, " ")
}

func signedContent(id, timestamp string, body []byte) []byte {
	content := make([]byte, 0, len(id)+len(timestamp)+len(body)+2)
	content = append(append(content, id...), '.')
	content = append(append(content, timestamp...), '.')
	return append(content, body...)
}

func mac(secret, content []byte) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write(content)
	return h.Sum(nil)
}

// Verify reports whether body is a webhook that was signed, within the last five minutes, with one of
// the keys: secrets (whsec_…), of which a receiver has two while one is being replaced, or public keys
// (whpk_…). The body must be the bytes that were received. Comparisons take constant time.
//
// Its errors are [ErrHeaders], [ErrTimestamp], [ErrSignature], and one for a key that cannot be read.
// A verified webhook can still be a repetition: the receiver remembers the webhook-id of what it has done.
func Verify(body []byte, header http.Header, keys ...string) error {
	return verifyAt(time.Now(), body, header, keys...)
}

func verifyAt(now time.Time, body []byte, header http.Header, keys ...string) error {
	id, timestamp := header.Get(HeaderID), header.Get(HeaderTimestamp)
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if id == "" || err != nil || header.Get(HeaderSignature) == "" {
		return ErrHeaders
	}
	if age := now.Sub(time.Unix(seconds, 0)); age > Tolerance || age < -Tolerance {
		return ErrTimestamp
	}
	content := signedContent(id, timestamp, body)
	matched := false
	for _, key := range keys {
		check, scheme, err := checker(key, content)
		if err != nil {
			return err
		}
		for s := range strings.FieldsSeq(header.Get(HeaderSignature)) {
			version, encoded, _ := strings.Cut(s, ",")
			signature, err := base64.StdEncoding.DecodeString(encoded)
			if err == nil && version == scheme && check(signature) {
				matched = true
			}
		}
	}
	if !matched {
		return ErrSignature
	}
	return nil
}

// checker returns a function that checks a signature with the key, and the key's scheme.
func checker(key string, content []byte) (check func([]byte) bool, scheme string, err error) {
	if encoded, ok := strings.CutPrefix(key, PublicKeyPrefix); ok {
		public, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(public) != ed25519.PublicKeySize {
			return nil, "", fmt.Errorf("webhook: a public key is %s and base64 of %d bytes", PublicKeyPrefix, ed25519.PublicKeySize)
		}
		return func(s []byte) bool { return ed25519.Verify(public, content, s) }, "v1a", nil
	}
	secret, err := ParseSecret(key)
	if err != nil {
		return nil, "", fmt.Errorf("webhook: %w", err)
	}
	want := mac(secret, content)
	return func(s []byte) bool { return subtle.ConstantTimeCompare(want, s) == 1 }, "v1", nil
}
