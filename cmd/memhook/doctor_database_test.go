package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/memhook/memhook/memories/memoriestest"
)

// The doctor finds nothing wrong beside a memhook that serves, nor with a role that may only read and change rows.
func TestTheDoctorBesideAServingRole(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.start("").terminate(10e9) // the owner migrates
	b.exec(`do $$ begin create role only_serves login; exception when duplicate_object then null; end $$`)
	b.exec(`grant usage on schema memhook to only_serves`)
	b.exec(`grant select, insert, update, delete on all tables in schema memhook to only_serves`)
	b.exec(`grant usage on all sequences in schema memhook to only_serves`)
	owner := b.database
	b.env["DATABASE_URL"] = strings.Replace(owner, "memhook@", "only_serves@", 1)
	b.env["MEMHOOK_AUTO_MIGRATE"] = "false"
	in := b.start("")
	in.registerAt("served", b.receiver.URL)
	b.receiver.await(t, 1, 20e9)
	doctor := func(env ...string) (string, error) {
		cmd := exec.Command(binary, "doctor")
		for k, v := range b.env {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
		cmd.Env = append(cmd.Env, "MEMHOOK_ADDR="+strings.TrimPrefix(in.url, "http://"))
		cmd.Env = append(cmd.Env, env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := doctor()
	if err != nil || strings.Contains(out, "FAIL") || !strings.Contains(out, "a memhook serves at") || !strings.Contains(out, "only_serves may serve") {
		t.Errorf("a sound installation: %v\n%s", err, out)
	}
	if out, err = doctor("MEMHOOK_AUTO_MIGRATE=true"); err != nil || !strings.Contains(out, "MEMHOOK_AUTO_MIGRATE=false") {
		t.Errorf("a role that cannot migrate is not named: %v\n%s", err, out)
	}
	b.exec(`revoke update on memhook.tasks from only_serves`)
	if out, err = doctor(); err == nil || !strings.Contains(out, "grant select, insert, update, delete") {
		t.Errorf("a missing right is not named: %v\n%s", err, out)
	}
	b.exec(`drop owned by only_serves`)
}
