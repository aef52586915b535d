package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/localpg"
	"github.com/memhook/memhook/store/storetest"
	"github.com/memhook/memhook/webhook"
)

// dump gives the whole database as text.
func (b *bench) dump() string {
	b.t.Helper()
	program, err := localpg.Program("pg_dump")
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := exec.Command(program, b.database).Output()
	if err != nil {
		b.t.Fatalf("pg_dump: %v", err)
	}
	return string(out)
}

// forms are how a secret could stand somewhere.
func forms(secret string) []string {
	raw := []byte(secret)
	if plain, err := webhook.ParseSecret(secret); err == nil && strings.HasPrefix(secret, webhook.SecretPrefix) {
		raw = plain
	}
	return []string{
		secret, string(raw), base64.StdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw), hex.EncodeToString(raw), hex.EncodeToString([]byte(secret)),
	}
}

// No secret stands in the database or in the log, whatever was done with it.
func TestSecretsStandNowhereInClear(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	b.env["MEMHOOK_LOG_LEVEL"] = "debug"
	b.env["MEMORIES_API_KEY"] = "sk-mavi-very-secret-default"
	const given, header = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=", "gateway-password-123"
	in := b.start("")
	secrets := map[string]string{
		"the default API key": testAPIKey, "the admin token": testAdminToken, "memories.ai's key": b.env["MEMORIES_API_KEY"], "a given signing secret": given, "a header's value": header,
		"the encryption key": storetest.EncryptionKey,
	}
	if status := in.admin(http.MethodPost, "/admin/v1/accounts", map[string]string{"name": "second", "api_key": "sk-mavi-very-secret-second"}, nil); status != http.StatusCreated {
		t.Fatalf("account: %d", status)
	}
	secrets["another key of memories.ai's"] = "sk-mavi-very-secret-second"
	_, secrets["an app's API key"], _ = in.newApp("second")
	var ep struct{ ID string }
	if status := in.call(http.MethodPost, "/v1/endpoints", map[string]any{"url": b.receiver.URL, "secret": given, "headers": map[string]string{"X-Gateway": header}, "signatures": []string{"v1", "v1a"}}, &ep); status != http.StatusCreated {
		t.Fatalf("endpoint: %d", status)
	}
	b.sim.Add(readyAfter("task", 0, "PI-1"))
	task := in.register("task", map[string]any{"metadata": map[string]string{"order": "payload-42"}})
	b.receiver.await(t, 1, 10*time.Second)
	var rotated, hint struct{ Secret, URL string }
	in.call(http.MethodPost, "/v1/endpoints/"+ep.ID+"/secret/rotate", map[string]string{"overlap": "1h"}, &rotated)
	secrets["a rotated signing secret"] = rotated.Secret
	in.call(http.MethodGet, "/v1/hint-url", nil, &hint)
	in.callWith("", http.MethodPost, hint.URL[strings.Index(hint.URL, "/v1/"):], `{"taskId":"task"}`, nil)
	in.call(http.MethodPost, "/v1/endpoints/"+ep.ID+"/test", nil, nil)
	in.call(http.MethodGet, "/v1/tasks/"+task.ID, nil, nil)
	in.callWith("mh_wrong-key-that-was-tried", http.MethodGet, "/v1/tasks", nil, nil)
	sent := b.receiver.await(t, 2, 10*time.Second)

	s, _ := b.store()
	receivers, err := s.Receivers(t.Context(), uuid.MustParse(ep.ID))
	if err != nil || len(receivers) != 1 || receivers[0] == nil {
		t.Fatalf("receivers: %v", err)
	}
	secrets["the endpoint's ed25519 seed"] = string(receivers[0].SigningKeys[0].Seed())
	if len(secrets) != 10 {
		t.Fatalf("%d secrets", len(secrets))
	}
	dump, log := b.dump(), in.log.String()
	if !strings.Contains(dump, "payload-42") || !strings.Contains(log, `"attempt"`) {
		t.Fatal("the dump or the log is not what it should be")
	}
	for name, secret := range secrets {
		for _, form := range forms(secret) {
			if strings.Contains(dump, form) {
				t.Errorf("%s stands in the database", name)
			}
			if strings.Contains(log, form) {
				t.Errorf("%s stands in the log", name)
			}
		}
	}
	private := []string{"payload-42", "mh_wrong-key-that-was-tried", hint.URL[strings.LastIndex(hint.URL, "/")+1:]}
	for _, got := range sent {
		private = append(private, strings.Fields(got.header.Get(webhook.HeaderSignature))...)
	}
	for _, p := range private {
		if strings.Contains(log, p) {
			t.Errorf("%q stands in the log", p)
		}
	}
}

// rotate-keys that is killed in the middle and run again ends with everything sealed by the new key, and
// deliveries go on meanwhile.
func TestRotatingTheEncryptionKey(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	in := b.start("")
	b.sim.Add(readyAfter("first", 0, "PI-1"))
	secret := in.secret(in.register("first", nil))
	for i := range 1200 {
		if status := in.call(http.MethodPost, "/v1/endpoints", map[string]any{"url": fmt.Sprintf("%s/%d", b.receiver.URL, i), "headers": map[string]string{"X-N": "v"}}, nil); status != http.StatusCreated {
			t.Fatalf("endpoint: %d", status)
		}
	}
	newKey := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("n"), 32))
	b.env["MEMHOOK_ENCRYPTION_KEY"] = newKey + "," + storetest.EncryptionKey
	in.terminate(10 * time.Second)
	in = b.start("")

	keys, err := store.ParseKeyring(newKey)
	if err != nil {
		t.Fatal(err)
	}
	newID := keys.Seal("x", nil)[:4]
	old := func() (n int) {
		for _, column := range []string{"accounts.api_key", "apps.signing_key", "endpoints.secret", "endpoints.headers", "keyring_check.sealed"} {
			table, name, _ := strings.Cut(column, ".")
			n += b.query(`select count(*) from `+table+` where substring(`+name+` from 1 for 4) <> $1`, newID)
		}
		return n
	}
	before := old()
	rotate := func() *exec.Cmd {
		cmd := exec.Command(binary, "rotate-keys")
		cmd.Env = append(os.Environ(), "DATABASE_URL="+b.database, "MEMHOOK_ENCRYPTION_KEY="+b.env["MEMHOOK_ENCRYPTION_KEY"])
		return cmd
	}
	// Killed where it waits for the last endpoint, which somebody holds.
	conn, err := pgx.Connect(t.Context(), b.database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), `begin; select 1 from endpoints where id = (select id from endpoints order by id desc limit 1) for update`); err != nil {
		t.Fatal(err)
	}
	first := rotate()
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, 20*time.Second, "it has begun", func() bool { return old() <= before-500 })
	_ = first.Process.Kill()
	_ = first.Wait()
	if _, err := conn.Exec(t.Context(), `rollback`); err != nil {
		t.Fatal(err)
	}
	left := old()
	t.Logf("%d sealed with the old key, %d after the kill", before, left)
	if left == 0 || left == before {
		t.Errorf("the kill came too late or too early: %d of %d", left, before)
	}
	b.sim.Add(readyAfter("between", 0, "PI-2"))
	in.register("between", nil)
	b.receiver.await(t, 2, 10*time.Second)

	if out, err := rotate().CombinedOutput(); err != nil || !strings.Contains(string(out), "everything is encrypted") {
		t.Fatalf("again: %v: %s", err, out)
	}
	if n := old(); n != 0 {
		t.Errorf("%d still sealed with the old key", n)
	}
	in.terminate(10 * time.Second)
	b.env["MEMHOOK_ENCRYPTION_KEY"] = newKey
	in = b.start("")
	b.sim.Add(readyAfter("last", 0, "PI-3"))
	in.register("last", nil)
	for _, got := range b.receiver.await(t, 3, 10*time.Second) {
		if err := webhook.Verify(got.body, got.header, secret); err != nil {
			t.Errorf("%s: %v", got.task.TaskID, err)
		}
	}
	in.terminate(10 * time.Second)
	b.env["MEMHOOK_ENCRYPTION_KEY"] = storetest.EncryptionKey // the old one alone opens nothing any more
	cmd := exec.Command(binary, "serve")
	for k, v := range b.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.Env = append(cmd.Env, "MEMHOOK_ADDR=127.0.0.1:0")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "MEMHOOK_ENCRYPTION_KEY does not fit") {
		t.Errorf("with the old key: %v: %s", err, out)
	}
}

// The encryption key changes in two steps, as docs/operations.md has them: at each moment one instance seals and another, which has
// the step before, opens. Nothing waits for a second attempt.
func TestTheEncryptionKeyChangesInTwoSteps(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	before, after := storetest.EncryptionKey, base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("n"), 32))
	with := func(keys string, args ...string) *instance {
		b.env["MEMHOOK_ENCRYPTION_KEY"] = keys
		return b.start("", args...)
	}
	seals, opens := with(before, "--role", "api"), with(before, "--role", "worker")
	n := 0
	deliver := func(what string) {
		t.Helper()
		n++
		seals.registerAt(fmt.Sprint("task-", n), fmt.Sprintf("%s/%d", b.receiver.URL, n))
		b.receiver.await(t, n, 20*time.Second)
		if log := opens.log.String() + seals.log.String(); strings.Contains(log, "sealed") {
			t.Errorf("%s:\n%s", what, log)
		}
	}
	deliver("before")
	for _, keys := range []string{before + "," + after, after + "," + before} {
		seals.terminate(20 * time.Second)
		seals = with(keys, "--role", "api")
		deliver("the one that seals has " + keys)
		opens.terminate(20 * time.Second)
		opens = with(keys, "--role", "worker")
		deliver("both have " + keys)
	}
	until(t, 20*time.Second, "all are recorded", func() bool { return b.query(`select count(*) from deliveries where status = 'delivered'`) == n })
	if again := b.query(`select count(*) from deliveries where attempt_count <> 1`); again != 0 {
		t.Errorf("%d were not delivered by their first attempt", again)
	}
}

// A secret that an instance cannot open holds up the deliveries to its own endpoint, not those beside it: here the key was changed in
// one step, and the instance that delivers has the old one only.
func TestASecretThatCannotBeOpenedIsItsEndpointsTrouble(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	before := storetest.EncryptionKey
	old := b.start("")
	const pairs = 20
	for i := range pairs { // their endpoints are sealed with the old key
		old.want(http.StatusCreated, testAPIKey, http.MethodPost, "/v1/endpoints", map[string]any{"url": fmt.Sprintf("%s/old/%d", b.receiver.URL, i)}, nil)
	}
	b.env["MEMHOOK_ENCRYPTION_KEY"] = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("n"), 32)) + "," + before
	api := b.start("", "--role", "api")
	for i := range pairs {
		for _, kind := range []string{"old", "new"} {
			api.registerAt(fmt.Sprintf("%s-%d", kind, i), fmt.Sprintf("%s/%s/%d", b.receiver.URL, kind, i))
		}
	}
	for _, got := range b.receiver.await(t, pairs, 20*time.Second) {
		if !strings.HasPrefix(got.task.TaskID, "old-") {
			t.Errorf("%s was sent, with a secret that cannot be opened", got.task.TaskID)
		}
	}
	until(t, 20*time.Second, "those of the old key are recorded", func() bool {
		return b.query(`select count(*) from deliveries where status = 'delivered'`) == pairs
	})
	if again := b.query(`select count(*) from attempts`); again != pairs {
		t.Errorf("%d attempts for %d deliveries", again, pairs)
	}
	until(t, 30*time.Second, "the log says which setting is wrong", func() bool {
		return strings.Contains(old.log.String(), "a key that is not in MEMHOOK_ENCRYPTION_KEY")
	})
	old.terminate(20 * time.Second)
	b.start("")
	b.receiver.await(t, 2*pairs, 30*time.Second)
}
