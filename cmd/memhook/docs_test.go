package main

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/store/localpg"
	"github.com/memhook/memhook/store/storetest"
)

// block is a block of commands in a document. Its info string says how it is run: plain `sh` in the document's
// shell, `sh background URL` beside it until the document is over, awaited at the URL, `sh elsewhere` not here.
type block struct {
	line       int
	text       string
	background string // the URL that answers once it runs
	elsewhere  bool
}

var fence = regexp.MustCompile("(?ms)^([ ]*)```sh([^\n]*)\n(.*?)^[ ]*```")

func blocksOf(t *testing.T, file string) (blocks []block, whole string) {
	t.Helper()
	raw, err := os.ReadFile(repository(t, file))
	if err != nil {
		t.Fatal(err)
	}
	whole = string(raw)
	for _, m := range fence.FindAllStringSubmatchIndex(whole, -1) {
		indent, info, text := whole[m[2]:m[3]], strings.Fields(whole[m[4]:m[5]]), whole[m[6]:m[7]]
		b := block{line: 1 + strings.Count(whole[:m[0]], "\n"), text: regexp.MustCompile("(?m)^"+indent).ReplaceAllString(text, "")}
		switch {
		case len(info) == 0:
		case info[0] == "elsewhere":
			b.elsewhere = true
		case info[0] == "background" && len(info) == 2:
			b.background = info[1]
		default:
			t.Fatalf("%s:%d: %v", file, b.line, info)
		}
		blocks = append(blocks, b)
	}
	return blocks, whole
}

// clone copies the repository's files as a newcomer has them, with both programs built.
func clone(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "memhook")
	root := repository(t, ".")
	copying := exec.Command("sh", "-c", `mkdir -p "$1" && git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$1"`, "sh", dir)
	copying.Dir = root
	if out, err := copying.CombinedOutput(); err != nil {
		t.Fatalf("copy: %v: %s", err, out)
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{binary, devBinary} {
		raw, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "bin", filepath.Base(program)), raw, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// runDocument runs a document's blocks in one shell and gives what they and the background ones have printed.
func runDocument(t *testing.T, file, dir string, env []string, replace *strings.Replacer) (said, background string) {
	t.Helper()
	blocks, _ := blocksOf(t, file)
	state := filepath.Join(t.TempDir(), "exports") // what later blocks see of earlier ones
	if err := os.WriteFile(state, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var beside safeBuffer
	for _, b := range blocks {
		if b.elsewhere {
			continue
		}
		text := replace.Replace(b.text)
		if b.background != "" {
			cmd := exec.Command("bash", "-euc", "source "+state+"\n"+text)
			cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, &beside, &beside
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
				done := make(chan struct{})
				go func() { _ = cmd.Wait(); close(done) }()
				select {
				case <-done:
				case <-time.After(20 * time.Second):
					_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
				}
			})
			until(t, 2*time.Minute, file+": "+b.background+" answers", func() bool {
				resp, err := http.Get(b.background)
				if err == nil {
					_ = resp.Body.Close()
				}
				return err == nil && resp.StatusCode < 500
			})
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", "source "+state+"\n"+text+"\nexport -p > "+state)
		cmd.Dir, cmd.Env = dir, env
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			t.Fatalf("%s:%d: %v\n%s\n%s", file, b.line, err, text, out)
		}
		said += string(out)
	}
	return said, beside.String() // as far as it is
}

// What the documents tell people to type works, as it stands there, in a fresh copy of the repository.
func TestTheDocumentsCommandsWork(t *testing.T) {
	// Not parallel: the documents name ports.
	pg, err := localpg.Start(t.Context(), localpg.Options{Settings: map[string]string{"listen_addresses": "127.0.0.1", "port": "54329"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pg.Stop() })
	database := "postgres://memhook@127.0.0.1:54329/postgres"
	dir := clone(t)
	pgDump, err := localpg.Program("pg_dump")
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "PATH="+filepath.Dir(pgDump)+":"+os.Getenv("PATH"))
	// The address of the reader's own database, and a key of memories.ai that the simulator takes.
	replace := strings.NewReplacer("postgres://memhook:secret@localhost:5432/memhook", database)

	t.Run("README.md", func(t *testing.T) {
		said, _ := runDocument(t, "README.md", dir, env, replace)
		if !strings.Contains(said, `"status":"waiting"`) || !strings.Contains(said, `"taskId"`) {
			t.Errorf("the README's commands say\n%s", said)
		}
	})
	t.Run("docs/quickstart.md", func(t *testing.T) {
		blocks, _ := blocksOf(t, "docs/quickstart.md")
		if len(blocks) > 4 {
			t.Errorf("%d commands, want at most four", len(blocks))
		}
		begin := time.Now()
		said, _ := runDocument(t, "docs/quickstart.md", dir, env, replace)
		if !strings.Contains(said, `"my-first-task"`) {
			t.Fatalf("the quickstart's commands say\n%s", said)
		}
		// The receiver's own output is in its terminal; the API knows that it answered.
		b := &bench{t: t}
		in := &instance{bench: b, url: "http://127.0.0.1:8080"}
		until(t, time.Minute, "the webhook is verified", func() bool {
			var list struct {
				Data []struct{ Status string }
			}
			return in.callWith("quickstart-0123456789", http.MethodGet, "/v1/deliveries?status=delivered", nil, &list) == http.StatusOK && len(list.Data) > 0 && deliveredTo(in, "http://127.0.0.1:9000/hooks")
		})
		t.Logf("a verified webhook %s after the first command, the binary's build not counted", time.Since(begin).Round(time.Second))
	})
	t.Run("docs/receiving.md and docs/operations.md", func(t *testing.T) {
		b := newBench(t, memoriestest.Config{})
		operated := strings.TrimSuffix(database, "/postgres") + "/operated"
		(&bench{t: t, database: database}).exec(`create database operated`)
		b.database, b.env["DATABASE_URL"] = operated, operated
		in := b.start("127.0.0.1:8080")
		b.sim.Add(readyAfter("task", 0, "PI-1"))
		in.register("task", nil)
		b.receiver.await(t, 1, 20*time.Second)
		time.Sleep(2500 * time.Millisecond) // until the feed shows it
		mine := append(env, "DATABASE_URL="+b.env["DATABASE_URL"], "MEMHOOK_ENCRYPTION_KEY="+storetest.EncryptionKey, "MEMHOOK_API_KEY="+testAPIKey)
		said, _ := runDocument(t, "docs/receiving.md", dir, mine, replace)
		if !strings.Contains(said, "verified") || !strings.Contains(said, "task.ready") {
			t.Errorf("receiving.md's commands say\n%s", said)
		}
		said, _ = runDocument(t, "docs/operations.md", dir, mine, replace)
		for _, want := range []string{"encryption key  fits this database", "memhook  version", "everything is encrypted"} {
			if !strings.Contains(said, want) {
				t.Errorf("operations.md's commands do not say %q:\n%s", want, said)
			}
		}
	})
}

// deliveredTo reports whether a webhook was delivered to a URL.
func deliveredTo(in *instance, url string) bool {
	var list struct {
		Data []struct {
			CallbackURL string `json:"callback_url"`
			Status      string
		}
	}
	in.callWith("quickstart-0123456789", http.MethodGet, "/v1/deliveries", nil, &list)
	for _, d := range list.Data {
		if d.CallbackURL == url && d.Status == "delivered" {
			return true
		}
	}
	return false
}

var namedFile = regexp.MustCompile("`((?:api|cmd|deploy|docs|examples|internal|memories|migrations|store|webhook|worker)/[A-Za-z0-9_./-]+)`")

// Links between the documents lead somewhere, and the files and tests that they name exist.
func TestTheDocumentsLinksLead(t *testing.T) {
	t.Parallel()
	docs, _ := filepath.Glob(repository(t, "docs") + "/*.md")
	for _, file := range append(docs, repository(t, "README.md"), repository(t, "CONTRIBUTING.md")) {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`).FindAllStringSubmatch(string(raw), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s leads to %s", filepath.Base(file), m[1])
			}
		}
		for _, m := range namedFile.FindAllStringSubmatch(string(raw), -1) {
			if _, err := os.Stat(repository(t, m[1])); err != nil {
				t.Errorf("%s names the file %s, which does not exist", filepath.Base(file), m[1])
			}
		}
		for _, m := range regexp.MustCompile("`([a-z][A-Za-z0-9_./-]+\\.go)` \\(([^()]*)\\)").FindAllStringSubmatch(string(raw), -1) {
			source, _ := os.ReadFile(repository(t, m[1]))
			for _, name := range regexp.MustCompile("`([A-Za-z0-9]+)`").FindAllStringSubmatch(m[2], -1) {
				if !regexp.MustCompile(`(?m)^(func .*|const |var |type |\t)` + name[1] + `\b`).Match(source) {
					t.Errorf("%s names %s of %s, which does not exist", filepath.Base(file), name[1], m[1])
				}
			}
		}
		for _, m := range regexp.MustCompile("`(Test[A-Za-z]+)`").FindAllStringSubmatch(string(raw), -1) {
			if exec.Command("grep", "-rq", "--include=*_test.go", "func "+m[1]+"(", repository(t, ".")).Run() != nil {
				t.Errorf("%s names %s, which does not exist", filepath.Base(file), m[1])
			}
		}
	}
}

// What is for other tools is as those tools want it, as far as they are to be had.
func TestTheDeploymentsFiles(t *testing.T) {
	t.Parallel()
	unit, err := os.ReadFile(repository(t, "deploy/systemd/memhook.service"))
	if err != nil {
		t.Fatal(err)
	}
	if verify, err := exec.LookPath("systemd-analyze"); err == nil {
		file := filepath.Join(t.TempDir(), "memhook.service")
		text := strings.ReplaceAll(string(unit), "/usr/local/bin/memhook", binary)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(verify, "verify", "--man=no", file).CombinedOutput(); err != nil || strings.Contains(string(out), "memhook.service") {
			t.Errorf("systemd-analyze verify: %v: %s", err, out)
		}
	} else {
		t.Log("systemd-analyze is not to be had: the unit was not checked")
	}
	composed, err := os.ReadFile(repository(t, "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, ports := range regexp.MustCompile(`ports: \[.*`).FindAllString(string(composed), -1) { // a proxy adds TLS
		if !strings.HasPrefix(ports, `ports: ["127.0.0.1:`) {
			t.Errorf("docker-compose.yml publishes %s", ports)
		}
	}
	if compose, err := exec.LookPath("docker-compose"); err == nil {
		dir := t.TempDir()
		config := func() (string, error) {
			cmd := exec.Command(compose, "config")
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			return string(out), err
		}
		if err := os.WriteFile(filepath.Join(dir, "docker-compose.yml"), composed, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := config(); err == nil || !strings.Contains(out, "make env") {
			t.Errorf("docker-compose config without secrets: %v: %s", err, out)
		}
		const env = "POSTGRES_PASSWORD=p\nMEMHOOK_ENCRYPTION_KEY=k\nMEMHOOK_API_KEY=a\nMEMHOOK_ADMIN_TOKEN=t\nMEMHOOK_RETENTION=48h\n"
		if err := os.WriteFile(filepath.Join(dir, ".env"), []byte(env), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := config(); err != nil || !strings.Contains(out, "MEMHOOK_ADMIN_TOKEN: t") || !strings.Contains(out, "MEMHOOK_RETENTION: 48h") {
			t.Errorf("docker-compose config: %v: %s", err, out)
		}
	} else {
		t.Log("docker-compose is not to be had: docker-compose.yml was not checked")
	}
	if kubectl, err := exec.LookPath("kubectl"); err == nil {
		out, err := exec.Command(kubectl, "kustomize", repository(t, "deploy/kubernetes")).CombinedOutput()
		if err != nil || strings.Count(string(out), "\nkind: ") < 11 {
			t.Errorf("kubectl kustomize: %v: %s", err, out)
		}
		for _, word := range []string{"readOnlyRootFilesystem: true", "runAsNonRoot: true", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy", "ServiceMonitor", "value: 230MiB"} {
			if !strings.Contains(string(out), word) {
				t.Errorf("the manifests have no %s", word)
			}
		}
	} else {
		t.Log("kubectl is not to be had: the manifests were not checked")
	}
}
