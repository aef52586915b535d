package main

import (
	"errors"
	"net"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store/storetest"
)

// The doctor names each fault and its remedy, and finds nothing where there is none.
func TestDoctor(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.start("").terminate(10e9) // a database with all that a first start leaves
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	refusing := memoriestest.New(memoriestest.Config{})
	refusing.SetAccount("a", []string{"sk-mavi-test"}, 0, "0401")
	refused := httptest.NewServer(refusing)
	defer refused.Close()
	poor := memoriestest.New(memoriestest.Config{})
	poor.SetAccount("a", []string{"sk-mavi-test"}, 0, "0402")
	empty := httptest.NewServer(poor)
	defer empty.Close()
	newer := storetest.URL(t)
	nb := &bench{t: t, database: newer}
	nb.exec(`insert into goose_db_version (version_id, is_applied) values (99999, true)`)
	bare := storetest.EmptyURL(t)
	rb := &bench{t: t, database: bare}
	rb.exec(`revoke create on schema public from public; drop role if exists nobody_much; create role nobody_much login; alter schema public owner to pg_database_owner`)
	cases := []struct {
		name, finding, remedy string
		env                   map[string]string
		args                  []string
	}{
		{"no database's address", "DATABASE_URL: missing", "memhook --help", map[string]string{"DATABASE_URL": ""}, nil},
		{"a bad encryption key", "MEMHOOK_ENCRYPTION_KEY: key 1 is not base64 of 32 bytes", "memhook --help", map[string]string{"MEMHOOK_ENCRYPTION_KEY": "c2hvcnQ="}, nil},
		{"no database there", "FAIL  database", "start PostgreSQL", map[string]string{"DATABASE_URL": "postgres://memhook@127.0.0.1:1/memhook"}, nil},
		{"no such database", "does not exist", "check host, port, name", map[string]string{"DATABASE_URL": strings.Replace(b.database, "/test_", "/nowhere_", 1)}, nil},
		{"no rights", "may not create the schema", "create schema memhook authorization", map[string]string{"DATABASE_URL": strings.Replace(bare, "memhook@", "nobody_much@", 1), "MEMHOOK_AUTO_MIGRATE": "false"}, nil},
		{"not migrated", "needed is", "memhook migrate up", map[string]string{"DATABASE_URL": bare, "MEMHOOK_AUTO_MIGRATE": "false"}, nil},
		{"a newer schema", "newer than this memhook knows", "install the newer memhook", map[string]string{"DATABASE_URL": newer}, nil},
		{"another encryption key", "does not fit this database", "rotate-keys", map[string]string{"MEMHOOK_ENCRYPTION_KEY": "bm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm4="}, nil},
		{"a refused key of memories.ai", "refuses the key of the account default", "replace the account's key", map[string]string{"MEMORIES_BASE_URL": refused.URL}, nil},
		{"no credits", "has no credits left", "buy credits", map[string]string{"MEMORIES_BASE_URL": empty.URL}, nil},
		{"no memories.ai there", "does not answer as it should", "MEMORIES_BASE_URL", map[string]string{"MEMORIES_BASE_URL": "http://127.0.0.1:1"}, nil},
		{"a forbidden way out", "not a public address", "MEMHOOK_ALLOWED_CALLBACK_NETWORKS", nil, []string{"--egress", "http://10.0.0.1/"}},
		{"nobody at the way out", "FAIL  egress", "firewall", nil, []string{"--egress", "http://127.0.0.1:1/"}},
		{"an address in use", "FAIL  address", "choose another MEMHOOK_ADDR", map[string]string{"MEMHOOK_ADDR": busy.Addr().String()}, nil},
	}
	run := func(env map[string]string, args ...string) (string, error) {
		cmd := exec.Command(binary, append([]string{"doctor"}, args...)...)
		cmd.Env = []string{"MEMHOOK_ADDR=127.0.0.1:0"}
		for k, v := range b.env {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
		for k, v := range env {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, c := range cases {
		out, err := run(c.env, c.args...)
		want := 1
		if strings.Contains(c.remedy, "--help") { // a setting
			want = 2
		}
		if status, ok := errors.AsType[*exec.ExitError](err); !ok || status.ExitCode() != want {
			t.Errorf("%s: %v, want status %d", c.name, err, want)
		}
		if err == nil || !strings.Contains(out, c.finding) || !strings.Contains(out, c.remedy) {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
	}
	if out, err := run(nil, "--egress", b.receiver.URL); err != nil || strings.Contains(out, "FAIL") {
		t.Errorf("a sound installation: %v\n%s", err, out)
	}
}
