package main

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what is generated")

//go:generate go test -run TestReadmeListsTheSettings . -update

func TestReadmeListsTheSettings(t *testing.T) {
	t.Parallel()
	const path, begin, end = "../../README.md", "<!-- settings -->\n", "<!-- /settings -->"
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(raw), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatal("README.md has no place for the settings")
	}
	want := before + begin + settingsTable() + end + after
	if want == string(raw) {
		return
	}
	if !*update {
		t.Fatal("README.md is behind the settings: run make generate")
	}
	if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReadSettings(t *testing.T) {
	t.Parallel()
	s, err := readSettings(func(string) string { return "" })
	if err != nil || len(s.RetrySchedule) != 9 || s.RequestsPerSecond != 1 || !s.AutoMigrate {
		t.Errorf("the defaults: %+v, %v", s, err)
	}
	bad := map[string]string{
		"DATABASE_URL": "mysql://x", "MEMHOOK_ENCRYPTION_KEY": "c2hvcnQ=", "MEMORIES_REQUESTS_PER_SECOND": "NaN", "MEMHOOK_PUBLIC_URL": "example.com",
		"MEMHOOK_ALLOW_HTTP_CALLBACKS": "perhaps", "MEMHOOK_ALLOWED_CALLBACK_NETWORKS": "10.0.0.0/33", "MEMHOOK_RETRY_SCHEDULE": "5s,-1s",
		"MEMHOOK_DELIVERY_TIMEOUT": "0s", "MEMHOOK_LOG_LEVEL": "loud", "MEMHOOK_LOG_FORMAT": "xml", "MEMHOOK_DENIED_CALLBACK_PORTS": "99999",
	}
	_, err = readSettings(func(name string) string { return bad[name] })
	if err == nil {
		t.Fatal("bad settings were read")
	}
	if lines := strings.Split(err.Error(), "\n"); len(lines) != len(bad) {
		t.Errorf("%d lines for %d bad settings:\n%s", len(lines), len(bad), err)
	}
	for name, value := range bad {
		if name == "DATABASE_URL" && strings.Contains(err.Error(), value) {
			t.Errorf("the value of %s is repeated", name)
		}
	}
}
