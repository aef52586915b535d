package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/webhook"
)

// The example receivers verify a live run with a rotation of the secret in the middle, and the one who switches to
// the new secret in the overlap misses nothing. They take what is signed, however long it is, and refuse everything else.
func TestTheExampleReceivers(t *testing.T) {
	t.Parallel()
	installed := nodeModules(t)
	for name, prepare := range map[string]func(t *testing.T) func(addr string) []string{
		"go": goReceiver, "rails": railsReceiver, "laravel": laravelReceiver, "spring": springReceiver,
		"node": func(t *testing.T) func(string) []string {
			return javaScript(beside(t, installed, "node/receiver.js", "receiver.mjs"))
		},
		"express": func(t *testing.T) func(string) []string {
			return javaScript(beside(t, installed, "express/receiver.js", "express.mjs"))
		},
		"nextjs": func(t *testing.T) func(string) []string { return nextReceiver(t, installed) },
		"python": func(t *testing.T) func(string) []string {
			return python(t, "python", repository(t, "examples/receivers/python/receiver.py"))
		},
		"fastapi": func(t *testing.T) func(string) []string {
			return python(t, "fastapi", "-m", "uvicorn", "receiver:app", "--port")
		},
		"django": func(t *testing.T) func(string) []string {
			return python(t, "django", repository(t, "examples/receivers/django/receiver.py"), "runserver", "--noreload")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tryReceiver(t, prepare(t))
		})
	}
}

// tryReceiver runs a receiver, by the command for an address, with webhooks of a real memhook and with others.
func tryReceiver(t *testing.T, command func(addr string) []string) {
	t.Helper()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	in := b.start("")
	addr := freeAddr(t)
	url := "http://" + addr + "/hooks"
	var ep struct{ ID string }
	const first = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
	if status := in.call(http.MethodPost, "/v1/endpoints", map[string]any{"url": url, "secret": first}, &ep); status != http.StatusCreated {
		t.Fatalf("endpoint: %d", status)
	}
	var out safeBuffer
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the receiver says:\n%.20000s", out.String())
		}
	})
	dir := t.TempDir()
	run := func(secret string) (stop func()) {
		args := command(addr)
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "MEMHOOK_SECRET="+secret)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stop = func() { _ = cmd.Process.Signal(syscall.SIGKILL); _ = cmd.Wait() }
		t.Cleanup(stop)
		until(t, time.Minute, "the receiver listens", func() bool {
			resp, err := http.Post(url, "application/json", strings.NewReader("{}"))
			if err == nil {
				_ = resp.Body.Close()
			}
			return err == nil && resp.StatusCode == http.StatusUnauthorized // it is not signed
		})
		return stop
	}
	stop := run(first)
	malformed(t, url)
	taken := signed(t, url, first, &out)
	worked := func(n int) {
		t.Helper()
		delivered := func() bool { return b.query(`select count(*) from deliveries where status = 'delivered'`) == n }
		until(t, 30*time.Second, fmt.Sprint(n, " webhooks are delivered"), delivered)
		until(t, 20*time.Second, fmt.Sprint(n, " webhooks were worked on"), func() bool { return strings.Count(out.String(), "working on") >= n+taken }) // at least once
	}
	const n = 30
	var rotated struct{ Secret string }
	for i := range n {
		in.registerAt(fmt.Sprintf("task-%d", i), url)
		if i == n/3 {
			if status := in.call(http.MethodPost, "/v1/endpoints/"+ep.ID+"/secret/rotate", nil, &rotated); status != http.StatusOK {
				t.Errorf("rotate: %d", status)
			}
		}
		if i == 2*n/3 {
			worked(i + 1) // a killed receiver loses what it has in memory
			stop()
			stop = run(rotated.Secret)
		}
	}
	worked(n)
	if times := strings.Count(out.String(), "in order"); times != 1 {
		t.Errorf("a webhook that came twice was worked on %d times", times)
	}
	if failed := b.query(`select count(*) from attempts where response_status = 401`); failed != 0 {
		t.Errorf("%d webhooks were not verified", failed)
	}
}

// post sends a receiver one request and expects a status.
func post(t *testing.T, url, what string, header http.Header, body string, want int) {
	t.Helper()
	req, _ := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	req.Header = header
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	_ = resp.Body.Close()
	if resp.StatusCode != want {
		t.Errorf("%s answers %d, want %d", what, resp.StatusCode, want)
	}
}

// malformed sends a receiver headers that no memhook sends.
func malformed(t *testing.T, url string) {
	t.Helper()
	for name, values := range map[string][]string{
		"webhook-timestamp": {"", "abc", strings.Repeat("9", 400), strings.Repeat("9", 5000), "-9223372036854775808"},
		"webhook-signature": {"", "v1,é", "v1", "é"},
	} {
		for _, value := range values {
			header := http.Header{"Webhook-Id": {"evt_1"}, "Webhook-Signature": {"v1,AAAA"}, "Webhook-Timestamp": {strconv.FormatInt(time.Now().Unix(), 10)}}
			header.Set(name, value)
			post(t, url, fmt.Sprintf("%s: %.20s", name, value), header, "{}", http.StatusUnauthorized)
		}
	}
}

// signed sends a receiver webhooks with proper headers and returns how many it must have worked on.
func signed(t *testing.T, url, secret string, out *safeBuffer) (taken int) {
	t.Helper()
	key, err := webhook.ParseSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	other := []byte("another secret of 24 bytes")
	const refused = http.StatusUnauthorized
	accepted, refusals := make(map[string]bool), []string(nil)
	for _, c := range []struct {
		what string // also the event's id and, in its body, a word to find
		age  time.Duration
		keys [][]byte
		size int // bytes that the body has at least
		want int
	}{
		{"in order", 0, [][]byte{key}, 0, http.StatusNoContent},
		{"in order", 0, [][]byte{key}, 0, http.StatusNoContent}, // again: not worked on twice
		{"four minutes old", 4 * time.Minute, [][]byte{key}, 0, http.StatusNoContent},
		{"old signature first", 0, [][]byte{other, key}, 0, http.StatusNoContent},
		{"old signature last", 0, [][]byte{key, other}, 0, http.StatusNoContent},
		{"long", 0, [][]byte{key}, 3_000_000, http.StatusNoContent}, // as with 20,000 videos
		{"wrong secret", 0, [][]byte{other}, 0, refused},
		{"too old", 6 * time.Minute, [][]byte{key}, 0, refused},
		{"of the future", -6 * time.Minute, [][]byte{key}, 0, refused},
		{"altered", 0, [][]byte{key}, 0, refused},
	} {
		at, id := time.Now().Add(-c.age), "evt_"+strings.ReplaceAll(c.what, " ", "-")
		body := fmt.Sprintf(`{"type":"webhook.test","data":{"word":"%s","more":"é%s"}}`, c.what, strings.Repeat("x", c.size))
		header := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {strconv.FormatInt(at.Unix(), 10)}}
		header.Set("webhook-signature", webhook.Sign(id, at, []byte(body), c.keys))
		if c.what == "altered" {
			body = strings.Replace(body, "webhook.test", "webhook.tost", 1)
		}
		post(t, url, c.what, header, body, c.want)
		if c.want == refused {
			refusals = append(refusals, c.what)
			continue
		}
		accepted[c.what] = true
		until(t, 20*time.Second, c.what+" is worked on", func() bool { return strings.Contains(out.String(), c.what) })
	}
	for _, what := range refusals {
		if strings.Contains(out.String(), what) {
			t.Errorf("%s was worked on", what)
		}
	}
	return len(accepted)
}

func goReceiver(t *testing.T) func(addr string) []string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "receiver")
	if out, err := exec.Command("go", "build", "-o", program, repository(t, "examples/receivers/go")).CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	return func(addr string) []string { return []string{program, addr} }
}

func portOf(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

func javaScript(file string) func(addr string) []string {
	return func(addr string) []string { return []string{"node", file, portOf(addr)} }
}

// nextReceiver compiles the handler for Next.js; what Next.js does around it is a few lines here.
func nextReceiver(t *testing.T, installed string) func(addr string) []string {
	t.Helper()
	npx(t, installed, "tsc", "--strict", "--target", "es2022", "--module", "nodenext", "--types", "node", beside(t, installed, "nextjs/route.ts", "route.mts"))
	next := filepath.Join(installed, "next.mjs")
	const around = `import { createServer } from "node:http";
import { POST } from "./route.mjs";
createServer(async (request, response) => {
  const answer = await POST(new Request("http://localhost" + request.url, { method: request.method, headers: request.headers, body: request, duplex: "half" }));
  response.writeHead(answer.status).end();
}).listen(Number(process.argv[2]), "127.0.0.1");`
	if err := os.WriteFile(next, []byte(around), 0o600); err != nil {
		t.Fatal(err)
	}
	return javaScript(next)
}

// python runs an example with the system's Python, which has Debian's packages.
func python(t *testing.T, name string, args ...string) func(addr string) []string {
	t.Helper()
	if name != "python" && exec.Command(pythonProgram, "-c", "import fastapi, uvicorn, django").Run() != nil {
		t.Skip(pythonProgram + " has no FastAPI, uvicorn and Django (Debian: python3-fastapi python3-uvicorn python3-django)")
	}
	path := repository(t, "clients/python") + ":" + repository(t, "examples/receivers/"+name)
	return func(addr string) []string {
		return slices.Concat([]string{"env", "PYTHONDONTWRITEBYTECODE=1", "PYTHONPATH=" + path, pythonProgram}, args, []string{portOf(addr)})
	}
}

func railsReceiver(t *testing.T) func(addr string) []string {
	t.Helper()
	const needs = `%w[rails active_record active_job action_controller sqlite3 puma].each { |name| require name }`
	if exec.Command("ruby", "-e", needs).Run() != nil {
		t.Skip("there is no Rails with Puma and SQLite (Debian: ruby-railties ruby-activejob ruby-activerecord ruby-sqlite3 puma)")
	}
	host, controller := repository(t, "cmd/memhook/testdata/receivers/rails.rb"), repository(t, "examples/receivers/rails/hooks_controller.rb")
	return func(addr string) []string { return []string{"ruby", host, controller, portOf(addr)} }
}

func laravelReceiver(t *testing.T) func(addr string) []string {
	t.Helper()
	if exec.Command("php", "-r", `require "Illuminate/autoload.php";`).Run() != nil {
		t.Skip("there is no Laravel (Debian: php-cli php-laravel-framework)")
	}
	host, controller := repository(t, "cmd/memhook/testdata/receivers/laravel.php"), repository(t, "examples/receivers/laravel/HooksController.php")
	return func(addr string) []string {
		return []string{"env", "CONTROLLER=" + controller, "php", "-S", addr, host}
	}
}

func springReceiver(t *testing.T) func(addr string) []string {
	t.Helper()
	var classPath []string
	for _, needs := range []string{"spring3-web.servlet", "spring3-*", "tomcat9-catalina", "tomcat9-*", "commons-logging"} {
		jars, _ := filepath.Glob("/usr/share/java/" + needs + ".jar")
		if _, err := exec.LookPath("javac"); err != nil || len(jars) == 0 {
			t.Skip("there is no Java with Spring and Tomcat (Debian: default-jdk-headless libspring-web-servlet-java libtomcat9-java)")
		}
		classPath = append(classPath, jars...)
	}
	classes := t.TempDir()
	classPath = append(classPath, classes)
	compile := exec.Command("javac", "-d", classes, "-cp", strings.Join(classPath, ":"),
		repository(t, "examples/receivers/spring/HooksController.java"), repository(t, "cmd/memhook/testdata/receivers/Host.java"))
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("javac: %v: %s", err, out)
	}
	return func(addr string) []string {
		return []string{"java", "-cp", strings.Join(classPath, ":"), "example.Host", portOf(addr)}
	}
}

// pythonProgram is the system's Python, which has Debian's packages.
const pythonProgram = "/usr/bin/python3"

// beside copies an example into the folder of the npm packages that it needs.
func beside(t *testing.T, dir, example, name string) string {
	t.Helper()
	source, err := os.ReadFile(repository(t, "examples/receivers/"+example))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name), source, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// The curl example verifies by hand what memhook signs.
func TestVerifyingByHand(t *testing.T) {
	t.Parallel()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
	key, err := webhook.ParseSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_700_000_000, 0)
	body := `{"type":"task.ready"}`
	for signature, want := range map[string]bool{
		webhook.Sign("evt_1", at, []byte(body), [][]byte{[]byte("another secret of 24 bytes"), key}): true,
		webhook.Sign("evt_2", at, []byte(body), [][]byte{key}):                                       false,
	} {
		cmd := exec.Command(repository(t, "examples/receivers/curl/verify.sh"), "evt_1", "1700000000", signature)
		cmd.Env = append(os.Environ(), "MEMHOOK_SECRET="+secret)
		cmd.Stdin = strings.NewReader(body)
		if out, err := cmd.CombinedOutput(); (err == nil) != want {
			t.Errorf("%s: %v: %s", signature, err, out)
		}
	}
}

// The upstream example's whole story.
func TestTheUpstreamExample(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	addr := freeAddr(t)
	sim := exec.Command(devBinary, "sim", "--addr", addr, "--median", "500ms")
	if err := sim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Process.Kill(); _ = sim.Wait() })
	b.env["MEMORIES_BASE_URL"] = "http://" + addr
	in := b.start("")
	upstream := filepath.Join(t.TempDir(), "upstream")
	if out, err := exec.Command("go", "build", "-o", upstream, repository(t, "examples/upstream")).CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	cmd := exec.Command(upstream, "https://www.youtube.com/watch?v=x")
	cmd.Env = append(os.Environ(), "MEMORIES_BASE_URL=http://"+addr, "MEMORIES_API_KEY=sk-mavi-test", "MEMHOOK_URL="+in.url, "MEMHOOK_API_KEY="+testAPIKey)
	var out safeBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	until(t, 30*time.Second, "the webhook is verified", func() bool { return strings.Contains(out.String(), `verified: {"type":"task.ready"`) })
}
