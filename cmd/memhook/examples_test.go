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
// the new secret in the overlap misses nothing.
func TestTheExampleReceivers(t *testing.T) {
	t.Parallel()
	goReceiver := filepath.Join(t.TempDir(), "receiver")
	if out, err := exec.Command("go", "build", "-o", goReceiver, repository(t, "examples/receivers/go")).CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	installed := nodeModules(t)
	express, next := beside(t, installed, "express/receiver.js", "express.mjs"), beside(t, installed, "nextjs/route.ts", "route.mts")
	npx(t, installed, "tsc", "--strict", "--target", "es2022", "--module", "nodenext", "--types", "node", next)
	next = filepath.Join(installed, "next.mjs") // what Next.js does around the handler
	const around = `import { createServer } from "node:http";
import { POST } from "./route.mjs";
createServer(async (request, response) => {
  const answer = await POST(new Request("http://localhost" + request.url, { method: request.method, headers: request.headers, body: request, duplex: "half" }));
  response.writeHead(answer.status).end();
}).listen(Number(process.argv[2]), "127.0.0.1");`
	if err := os.WriteFile(next, []byte(around), 0o600); err != nil {
		t.Fatal(err)
	}
	packages := repository(t, "clients/python")
	python := func(name string, args ...string) func(addr string) []string {
		return func(addr string) []string {
			return slices.Concat([]string{"env", "PYTHONDONTWRITEBYTECODE=1", "PYTHONPATH=" + packages + ":" + repository(t, "examples/receivers/"+name), pythonProgram},
				args, []string{addr[strings.LastIndexByte(addr, ':')+1:]})
		}
	}
	javaScript := func(file string) func(addr string) []string {
		return func(addr string) []string { return []string{"node", file, addr[strings.LastIndexByte(addr, ':')+1:]} }
	}
	for name, command := range map[string]func(addr string) []string{
		"go":      func(addr string) []string { return []string{goReceiver, addr} },
		"node":    javaScript(beside(t, installed, "node/receiver.js", "receiver.mjs")),
		"express": javaScript(express),
		"nextjs":  javaScript(next),
		"python":  python("python", repository(t, "examples/receivers/python/receiver.py")),
		"fastapi": python("fastapi", "-m", "uvicorn", "receiver:app", "--port"),
		"django":  python("django", repository(t, "examples/receivers/django/receiver.py"), "runserver", "--noreload"),
	} {
		if name == "fastapi" || name == "django" { // Debian's packages
			if exec.Command(pythonProgram, "-c", "import fastapi, uvicorn, django").Run() != nil {
				t.Logf("%s has no FastAPI, uvicorn and Django: the %s receiver was not run", pythonProgram, name)
				continue
			}
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
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
			run := func(secret string) (stop func()) {
				args := command(addr)
				cmd := exec.Command(args[0], args[1:]...)
				cmd.Env = append(os.Environ(), "MEMHOOK_SECRET="+secret)
				cmd.Stdout, cmd.Stderr = &out, &out
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				until(t, 20*time.Second, "the receiver listens", func() bool {
					resp, err := http.Post(url, "application/json", strings.NewReader("{}"))
					if err == nil {
						_ = resp.Body.Close()
					}
					return err == nil && resp.StatusCode == http.StatusUnauthorized // it is not signed
				})
				for header, values := range map[string][]string{
					"webhook-timestamp": {"", "abc", strings.Repeat("9", 400), strings.Repeat("9", 5000), "-9223372036854775808"},
					"webhook-signature": {"", "v1,é", "v1", "é"},
				} {
					for _, value := range values {
						req, _ := http.NewRequest(http.MethodPost, url, strings.NewReader("{}"))
						req.Header = http.Header{
							"Content-Type": {"application/json"}, "Webhook-Id": {"evt_1"}, "Webhook-Signature": {"v1,AAAA"},
							"Webhook-Timestamp": {strconv.FormatInt(time.Now().Unix(), 10)},
						}
						req.Header.Set(header, value)
						resp, err := http.DefaultClient.Do(req)
						if err != nil {
							t.Errorf("%s: %.20s: %v", header, value, err)
							continue
						}
						_ = resp.Body.Close()
						if resp.StatusCode != http.StatusUnauthorized {
							t.Errorf("%s: %.20s answers %d", header, value, resp.StatusCode)
						}
					}
				}
				return func() { _ = cmd.Process.Signal(syscall.SIGKILL); _ = cmd.Wait() }
			}
			stop := run(first)
			const n = 30
			long := make([]string, 9000) // more than 1 MiB
			for i := range long {
				long[i] = fmt.Sprintf("PI-6030687752852%05d", i)
			}
			b.sim.Add(readyAfter("long", 0, long...))
			in.want(http.StatusCreated, testAPIKey, http.MethodPost, "/v1/tasks", map[string]any{"task_id": "long", "callback_url": url}, nil)
			var rotated struct{ Secret string }
			for i := range n {
				in.registerAt(fmt.Sprintf("task-%d", i), url)
				if i == n/3 {
					if status := in.call(http.MethodPost, "/v1/endpoints/"+ep.ID+"/secret/rotate", nil, &rotated); status != http.StatusOK {
						t.Errorf("rotate: %d", status)
					}
				}
				if i == 2*n/3 {
					delivered := func() bool {
						return b.query(`select count(*) from deliveries where status = 'delivered'`) == i+2 // with the long list's
					}
					until(t, 20*time.Second, "what was sent so far is delivered", delivered)
					stop()
					stop = run(rotated.Secret)
				}
			}
			until(t, 30*time.Second, "all are delivered", func() bool { return b.query(`select count(*) from deliveries where status = 'delivered'`) == n+1 })
			until(t, 20*time.Second, "all were worked on", func() bool { return strings.Count(out.String(), "working on") == n+1 })
			if failed := b.query(`select count(*) from attempts where response_status = 401`); failed != 0 {
				t.Errorf("%d webhooks were not verified", failed)
			}
			stop()
		})
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
