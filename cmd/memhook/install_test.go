package main

import (
	"bytes"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store/localpg"
)

// The commands of the page for Debian make a database, settings, an app, a key and a task, as they stand there. Where
// they want root or systemd, this does what those would do.
func TestTheInstallationOnDebian(t *testing.T) {
	// Not parallel: the document names ports.
	pg, err := localpg.Start(t.Context(), localpg.Options{Settings: map[string]string{"listen_addresses": "127.0.0.1", "port": "54328"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pg.Stop() })
	b := newBench(t, memoriestest.Config{})
	memories, err := url.Parse(b.env["MEMORIES_BASE_URL"])
	if err != nil {
		t.Fatal(err)
	}
	dir := clone(t)
	etc, pid := filepath.Join(dir, "etc"), filepath.Join(dir, "pid")
	start := `(set -a; . ` + etc + `/memhook.env; set +a; MEMORIES_BASE_URL=` + memories.String() +
		` setsid bin/memhook serve > log 2>&1 & echo $! > ` + pid + `)`
	replace := strings.NewReplacer("sudo systemctl enable --now memhook", start, "sudo -u postgres ", "", "sudo ", "", "/etc/memhook", etc,
		"127.0.0.1:5432", "127.0.0.1:54328")
	t.Cleanup(func() {
		raw, _ := os.ReadFile(pid)
		if n, err := strconv.Atoi(strings.TrimSpace(string(raw))); err == nil {
			_ = syscall.Kill(n, syscall.SIGTERM)
		}
		if said, _ := os.ReadFile(filepath.Join(dir, "log")); t.Failed() {
			t.Logf("memhook's log:\n%s", said)
		}
	})
	createdb, err := localpg.Program("createdb")
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+filepath.Dir(createdb)+":"+os.Getenv("PATH"),
		"PGHOST=127.0.0.1", "PGPORT=54328", "PGUSER=memhook_admin", "PGDATABASE=postgres")
	(&bench{t: t, database: "postgres://memhook@127.0.0.1:54328/postgres"}).exec(`create role memhook_admin superuser login`)
	(&bench{t: t, database: "postgres://memhook_admin@127.0.0.1:54328/postgres"}).exec(`alter role memhook rename to installer`)
	said, _ := runDocument(t, "docs/install-debian.md", dir, env, replace)
	for _, want := range []string{`"status":"ready"`, "ID  ENABLED", "my-first-task", "waiting", "https://customer.example/hooks"} {
		if !strings.Contains(said, want) {
			t.Errorf("the page's commands do not say %q:\n%s", want, said)
		}
	}
	info, err := os.Stat(filepath.Join(etc, "memhook.env"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the settings: %v, %v", info, err)
	}
}

// Every block of the pages is at least shell, and names only commands, files and settings that exist.
func TestTheInstallationPagesNameWhatExists(t *testing.T) {
	t.Parallel()
	help, err := exec.Command(binary, "--help").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"docs/install-compose.md", "docs/install-debian.md", "docs/install-kubernetes.md", "docs/install-helm.md"} {
		blocks, whole := blocksOf(t, page)
		for _, b := range blocks {
			check := exec.Command("bash", "-n")
			check.Stdin = strings.NewReader(b.text)
			if out, err := check.CombinedOutput(); err != nil {
				t.Errorf("%s:%d: %s", page, b.line, out)
			}
			for word := range strings.FieldsSeq(b.text) {
				if strings.HasPrefix(word, "deploy/") {
					if _, err := os.Stat(repository(t, word)); err != nil {
						t.Errorf("%s:%d: %v", page, b.line, err)
					}
				}
				for part := range strings.SplitSeq(word, "--from-literal=") {
					name, _, ok := strings.Cut(part, "=")
					isSetting := strings.HasPrefix(name, "MEMHOOK_") || strings.HasPrefix(name, "MEMORIES_")
					if ok && isSetting && name != "MEMHOOK_URL" && !bytes.Contains(help, []byte(name)) {
						t.Errorf("%s:%d: no setting %s", page, b.line, name)
					}
				}
			}
		}
		if len(blocks) < 4 || !strings.Contains(whole, "tasks register") {
			t.Errorf("%s has %d blocks", page, len(blocks))
		}
	}
}
