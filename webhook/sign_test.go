package webhook

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

func signed(at time.Time, body []byte, secrets [][]byte, seed []byte) http.Header {
	var keys []ed25519.PrivateKey
	if seed != nil {
		keys = append(keys, ed25519.NewKeyFromSeed(seed))
	}
	h := http.Header{}
	h.Set(HeaderID, "evt_1")
	h.Set(HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	h.Set(HeaderSignature, Sign("evt_1", at, body, secrets, keys...))
	return h
}

func TestSignVerifiesElsewhere(t *testing.T) {
	t.Parallel()
	body := []byte(`{"type":"task.ready"}`)
	old, current := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 24)
	seed := bytes.Repeat([]byte{3}, ed25519.SeedSize)
	now := time.Now()
	header := signed(now, body, [][]byte{current, old}, seed)

	for _, secret := range [][]byte{old, current} {
		official, err := standardwebhooks.NewWebhook(FormatSecret(secret))
		if err != nil {
			t.Fatal(err)
		}
		if err := official.Verify(body, header); err != nil {
			t.Errorf("the official library: %v", err)
		}
	}
	// v1a by the documented bytes, independently of this package.
	public := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	fields := strings.Fields(header.Get(HeaderSignature))
	encoded, ok := strings.CutPrefix(fields[len(fields)-1], "v1a,")
	signature, err := base64.StdEncoding.DecodeString(encoded)
	content := "evt_1." + strconv.FormatInt(now.Unix(), 10) + "." + string(body)
	if !ok || err != nil || !ed25519.Verify(public, []byte(content), signature) {
		t.Errorf("v1a in %q does not verify", header.Get(HeaderSignature))
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	body := []byte(`{"type":"task.ready"}`)
	secret, seed := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{3}, ed25519.SeedSize)
	key := FormatSecret(secret)
	public := FormatPublicKey(ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
	other := FormatSecret(bytes.Repeat([]byte{9}, 32))
	now := time.Now()
	without := func(name string) http.Header {
		h := signed(now, body, [][]byte{secret}, seed)
		h.Del(name)
		return h
	}
	cases := []struct {
		name   string
		header http.Header
		body   string
		keys   []string
		want   error
	}{
		{"by the secret", signed(now, body, [][]byte{secret}, nil), string(body), []string{key}, nil},
		{"by one of two secrets", signed(now, body, [][]byte{secret}, nil), string(body), []string{other, key}, nil},
		{"by the public key", signed(now, body, [][]byte{secret}, seed), string(body), []string{public}, nil},
		{"another secret", signed(now, body, [][]byte{secret}, seed), string(body), []string{other}, ErrSignature},
		{"another body", signed(now, body, [][]byte{secret}, seed), string(body) + " ", []string{key, public}, ErrSignature},
		{"no keys", signed(now, body, [][]byte{secret}, seed), string(body), nil, ErrSignature},
		{"the secret's signature as v1a", relabel(signed(now, body, [][]byte{secret}, nil), "v1,", "v1a,"), string(body), []string{key}, ErrSignature},
		{"too old", signed(now.Add(-6*time.Minute), body, [][]byte{secret}, seed), string(body), []string{key}, ErrTimestamp},
		{"from the future", signed(now.Add(6*time.Minute), body, [][]byte{secret}, seed), string(body), []string{key}, ErrTimestamp},
		{"no id", without(HeaderID), string(body), []string{key}, ErrHeaders},
		{"no timestamp", without(HeaderTimestamp), string(body), []string{key}, ErrHeaders},
		{"no signature", without(HeaderSignature), string(body), []string{key}, ErrHeaders},
	}
	for _, c := range cases {
		if err := verifyAt(now, []byte(c.body), c.header, c.keys...); !errors.Is(err, c.want) || (c.want == nil && err != nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if err := Verify(body, signed(now, body, [][]byte{secret}, nil), "whsec_short"); err == nil || errors.Is(err, ErrSignature) {
		t.Errorf("a bad key: %v", err)
	}
}

func relabel(h http.Header, from, to string) http.Header {
	h.Set(HeaderSignature, strings.Replace(h.Get(HeaderSignature), from, to, 1))
	return h
}
