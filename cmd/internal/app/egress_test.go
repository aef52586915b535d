package app

import (
	"bytes"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/memhook/memhook/internal/outbound/badpeers"
)

func TestEgressSettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "bad.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: badpeers.NewAuthority().DER()})
	if os.WriteFile(good, certificate, 0o600) != nil || os.WriteFile(bad, []byte("hello"), 0o600) != nil {
		t.Fatal("the files cannot be written")
	}
	for _, c := range []struct {
		name, value string
		ok          bool
	}{
		{"MEMHOOK_CALLBACK_PROXY", "http://proxy.internal:3128", true},
		{"MEMHOOK_CALLBACK_PROXY", "https://me:s3cret@proxy.internal/", true},
		{"MEMHOOK_CALLBACK_PROXY", "proxy.internal:3128", false},
		{"MEMHOOK_CALLBACK_PROXY", "socks5://me:s3cret@proxy.internal", false},
		{"MEMHOOK_CALLBACK_PROXY", "http://me:s3cret%zz@proxy.internal", false},
		{"MEMHOOK_CALLBACK_PROXY", "http://me:s3cret@proxy.internal/path", false},
		{"MEMHOOK_CALLBACK_CA", good, true},
		{"MEMHOOK_CALLBACK_CA", bad, false},
		{"MEMHOOK_CALLBACK_CA", filepath.Join(dir, "none.pem"), false},
	} {
		cfg, err := ReadSettings(func(name string) string {
			if name == c.name {
				return c.value
			}
			return ""
		})
		if (err == nil) != c.ok {
			t.Errorf("%s=%s: %v", c.name, c.value, err)
		}
		if err != nil && (!strings.Contains(err.Error(), c.name) || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.ok && cfg.CallbackProxy == nil && cfg.CallbackCA == nil {
			t.Errorf("%s=%s is not kept", c.name, c.value)
		}
	}
}

func TestTheStandardLogGoesToOurs(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	line := `Unsolicited response received on idle HTTP channel starting with "{\"secret\":\"s3cret\"}"; err=<nil>` + "\n"
	if n, err := (standardLog{slog.New(slog.NewJSONHandler(&out, nil))}).Write([]byte(line)); n != len(line) || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if got := out.String(); !strings.Contains(got, "Unsolicited response") || strings.Contains(got, "s3cret") || strings.Count(got, "\n") != 1 {
		t.Errorf("logged %s", got)
	}
}
