package storetest

import (
	"bytes"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/memhook/memhook/store/localpg"
)

// Pooled returns how tests reach a database: as it is, or with MEMHOOK_TEST_POOLER=transaction through a PgBouncer in that
// mode. pooler is what [store.Database] must be told of it.
func Pooled(t testing.TB, database string) (through, pooler string) {
	t.Helper()
	if pooler = os.Getenv("MEMHOOK_TEST_POOLER"); pooler == "" {
		return database, ""
	}
	return PgBouncer(t, database, pooler), pooler
}

// PgBouncer runs PgBouncer before a database of a local server, in a pool mode (session or transaction) and otherwise with
// its defaults, until the test is over. It returns the connection string through it.
func PgBouncer(t testing.TB, database, mode string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer" // not in everybody's PATH
	}
	direct, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "memhook-pgbouncer-") //nolint:usetesting // another user must reach it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	config := fmt.Sprintf(`[databases]
* = host=%s user=%s
[pgbouncer]
pool_mode = %s
listen_addr =
unix_socket_dir = %s
auth_type = any
`, direct.Query().Get("host"), direct.User.Username(), mode, dir)
	file := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil { // read by another user
		t.Fatal(err)
	}
	cmd := exec.Command(program, file)
	if err := localpg.AsOwner(cmd, dir); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("start PgBouncer (Debian: apt-get install pgbouncer): %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(strings.TrimSpace(log.String()))
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("unix", filepath.Join(dir, ".s.PGSQL.6432")); err == nil {
			_ = conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("PgBouncer was not ready within 10 s")
		}
	}
	through := *direct
	through.RawQuery = url.Values{"host": {dir}, "port": {"6432"}}.Encode()
	return through.String()
}
