package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/memhook/memhook/internal/outbound"
	"github.com/memhook/memhook/internal/outbound/badpeers"
	"github.com/memhook/memhook/memories/memoriestest"
	"github.com/memhook/memhook/webhook"
)

// worst are the peers that hold an attempt for as long as they can.
func worst() (out []badpeers.Peer) {
	for _, p := range badpeers.Table() {
		if p.Serve != nil && !p.Keeps && !p.LargeRequest && (p.Status == 101 || (&outbound.Error{Kind: p.Kind}).Timeout()) && !strings.HasPrefix(string(p.Kind), "timeout while connecting") {
			out = append(out, p)
		}
	}
	return out
}

// 30 hosts do the worst at once, with 20 deliveries at each: a healthy receiver gets its webhooks as before, and SIGTERM
// ends the process in time.
func TestThirtyHostsThatDoTheirWorst(t *testing.T) {
	t.Parallel()
	const hosts, each, healthy = 30, 20, 300
	b := newBench(t, memoriestest.Config{})
	b.fast()
	b.env["MEMHOOK_DELIVERY_TIMEOUT"], b.env["MEMHOOK_SHUTDOWN_TIMEOUT"] = "5s", "10s"
	b.env["MEMHOOK_RETRY_SCHEDULE"] = "5s,5m"
	peers := worst()
	if len(peers) < 10 {
		t.Fatalf("%d peers", len(peers))
	}
	servers := make([]*badpeers.Server, hosts)
	for i := range servers {
		servers[i] = badpeers.Start(t, peers[i%len(peers)], nil)
	}
	in := b.start("")
	run := func(name string) time.Duration {
		begin, before := time.Now(), len(b.receiver.all())
		for i := range healthy {
			time.Sleep(time.Until(begin.Add(time.Duration(i) * 10 * time.Millisecond)))
			in.registerAt(fmt.Sprintf("%s-%d", name, i), b.receiver.URL)
		}
		var lags []time.Duration
		for _, got := range b.receiver.await(t, before+healthy, 30*time.Second)[before:] {
			lags = append(lags, got.at.Sub(got.event.Timestamp.Time))
		}
		slices.Sort(lags)
		return lags[healthy*99/100]
	}
	alone := run("alone")
	for i, s := range servers {
		for n := range each {
			in.registerAt(fmt.Sprintf("worst-%d-%d", i, n), s.URL)
		}
	}
	accepted := func() (n int) {
		for _, s := range servers {
			if s.Accepted() > 0 {
				n++
			}
		}
		return n
	}
	until(t, 20*time.Second, "all hosts are being sent to", func() bool { return accepted() == hosts })
	beside := run("beside")
	t.Logf("p99 of the healthy receiver: %s alone, %s beside %d hosts that do their worst (%d kinds)", alone, beside, hosts, min(hosts, len(peers)))
	// In the long form, alone on the machine: twice, and what noise needs. Otherwise: less than anybody's time-out.
	if beside > pick(2*time.Second, 2*alone+30*time.Millisecond) {
		t.Errorf("p99 of the healthy receiver: %s alone, %s beside", alone, beside)
	}
	if status, took := in.terminate(10 * time.Second); status != 0 {
		t.Errorf("SIGTERM: status %d after %s", status, took)
	} else {
		t.Logf("SIGTERM: %s", took)
	}
}

// tinyproxy is Debian's forward proxy.
type tinyproxy struct {
	t    *testing.T
	file string
	addr string
	log  string
	cmd  *exec.Cmd
}

func newTinyproxy(t *testing.T) *tinyproxy {
	t.Helper()
	if _, err := exec.LookPath("tinyproxy"); err != nil {
		t.Fatal("install tinyproxy to run this test")
	}
	dir := t.TempDir()
	p := &tinyproxy{t: t, file: filepath.Join(dir, "tinyproxy.conf"), addr: freeAddr(t), log: filepath.Join(dir, "log")}
	_, port, err := net.SplitHostPort(p.addr)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("Port %s\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 60\nMaxClients 200\nLogLevel Connect\nLogFile \"%s\"\n", port, p.log)
	if err := os.WriteFile(p.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	return p
}

func (p *tinyproxy) start() {
	p.t.Helper()
	p.cmd = exec.Command("tinyproxy", "-d", "-c", p.file)
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	until(p.t, 10*time.Second, "tinyproxy listens", func() bool {
		conn, err := net.Dial("tcp", p.addr)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

func (p *tinyproxy) stop() {
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(syscall.SIGKILL)
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

// logged tells whether tinyproxy was asked for something.
func (p *tinyproxy) logged(what string) bool {
	raw, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.Contains(string(raw), what)
}

// Callbacks leave through a real forward proxy; private targets are refused before it; its outage opens no breaker.
func TestCallbacksLeaveThroughAProxy(t *testing.T) {
	t.Parallel()
	proxy := newTinyproxy(t)
	proxy.start()
	authority := badpeers.NewAuthority()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.DER()}), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, memoriestest.Config{})
	b.fast()
	secure := httptest.NewUnstartedServer(b.receiver)
	secure.TLS = authority.Config(func(*x509.Certificate) {})
	secure.StartTLS()
	t.Cleanup(func() { secure.CloseClientConnections(); secure.Close() })
	b.env["MEMHOOK_CALLBACK_PROXY"], b.env["MEMHOOK_CALLBACK_CA"] = "http://"+proxy.addr, ca
	b.env["MEMHOOK_RETRY_SCHEDULE"] = strings.Repeat("500ms,", 60) + "1m"
	in := b.start("")

	in.registerAt("plain", b.receiver.URL)
	in.registerAt("secure", secure.URL+"/tls")
	b.receiver.await(t, 2, 20*time.Second)
	for _, asked := range []string{"CONNECT " + secure.Listener.Addr().String(), "POST " + b.receiver.URL + "/"} {
		if !proxy.logged(asked) {
			t.Errorf("tinyproxy was not asked for %s", asked)
		}
	}

	// A private target does not get as far as the proxy, at registration and, where it came in otherwise, at the attempt.
	for _, url := range []string{"http://10.1.2.3/", "http://169。254。169。254/", "https://[fd00:ec2::254]/"} {
		if status := in.call(http.MethodPost, "/v1/tasks", map[string]any{"task_id": "private", "callback_url": url}, nil); status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d", url, status)
		}
	}
	if status := in.call(http.MethodPost, "/v1/endpoints", map[string]any{"url": "https://before.example/"}, nil); status != http.StatusCreated {
		t.Fatalf("create an endpoint: %d", status)
	}
	b.exec(`update endpoints set url = 'http://10.1.2.3/' where url = 'https://before.example/'`)
	var endpoint struct {
		Data []struct{ ID, URL string }
	}
	in.call(http.MethodGet, "/v1/endpoints", nil, &endpoint)
	for _, ep := range endpoint.Data {
		if ep.URL != "http://10.1.2.3/" {
			continue
		}
		if status := in.call(http.MethodPost, "/v1/endpoints/"+ep.ID+"/test", nil, nil); status != http.StatusAccepted {
			t.Fatalf("test: %d", status)
		}
	}
	until(t, 20*time.Second, "the attempt at the private target is refused", func() bool {
		return b.query(`select count(*)::int from attempts where error = 'the address is not allowed'`) > 0
	})
	if proxy.logged("10.1.2.3") {
		t.Error("tinyproxy was asked for a private target")
	}

	proxy.stop()
	const during = 20 // twice what opens a breaker
	for i := range during {
		in.registerAt(fmt.Sprintf("during-%d", i), []string{b.receiver.URL, secure.URL + "/tls"}[i%2])
	}
	until(t, 20*time.Second, "each has failed", func() bool {
		return b.query(`select count(distinct delivery_id)::int from attempts where error = $1`, string(outbound.Proxy)) == during
	})
	if n := b.query(`select count(*)::int from endpoints where url not like 'http://10.%' and (breaker <> 'closed' or failures > 0)`); n != 0 {
		t.Errorf("the proxy's outage counts for %d endpoints", n)
	}
	proxy.start()
	b.receiver.await(t, 2+during, 30*time.Second)
	if out, err := b.doctor("--egress", secure.URL); err != nil || !strings.Contains(out, "the proxy is http://"+proxy.addr) {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	proxy.stop()
	if out, err := b.doctor("--egress", secure.URL); err == nil || !strings.Contains(out, string(outbound.Proxy)) {
		t.Errorf("doctor without the proxy: %v\n%s", err, out)
	}
}

func (b *bench) doctor(args ...string) (string, error) {
	cmd := exec.Command(binary, append([]string{"doctor"}, args...)...)
	cmd.Env = []string{"MEMHOOK_ADDR=127.0.0.1:0"}
	for k, v := range b.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// A callback URL has one normal form, which is stored, shown and requested.
func TestCallbackURLsHaveOneNormalForm(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	targets := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		targets <- r.RequestURI + " " + r.Header.Get("Accept") + " " + r.UserAgent()[:8]
	}))
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	in := b.start("")
	host := strings.TrimPrefix(server.URL, "http://")
	want := "http://" + host + "/a/%C3%A9?n=%C3%A9&m=%c3%a9"
	ids := make(map[string]bool)
	for i, url := range []string{"HTTP://" + host + "/a/é?n=é&m=%c3%a9", "http://" + host + "/b/../a/./é?n=é&m=%c3%a9", want, "http://１２７。0.0.1:0" + host[len("127.0.0.1:"):] + "/a/%C3%A9?n=%C3%A9&m=%c3%a9"} {
		var task struct {
			Subscriptions []struct {
				EndpointID  string `json:"endpoint_id"`
				CallbackURL string `json:"callback_url"`
			}
		}
		id := fmt.Sprintf("t%d", i)
		b.sim.Add(readyAfter(id, 0, "PI-1"))
		if status := in.call(http.MethodPost, "/v1/tasks", map[string]any{"task_id": id, "callback_url": url}, &task); status != http.StatusCreated {
			t.Fatalf("%s: %d", url, status)
		}
		ids[task.Subscriptions[0].EndpointID] = true
		if got := task.Subscriptions[0].CallbackURL; got != want {
			t.Errorf("%s is shown as %s, want %s", url, got, want)
		}
		select {
		case got := <-targets:
			if got != "/a/%C3%A9?n=%C3%A9&m=%c3%a9 */* memhook/" {
				t.Errorf("%s: the request is %s", url, got)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s got nothing", url)
		}
	}
	if len(ids) != 1 {
		t.Errorf("one URL in four spellings makes %d endpoints", len(ids))
	}
}

// No webhook can make memhook send webhooks: its own address is no callback URL, and the API takes no webhooks.
func TestWebhooksDoNotLoop(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.env["MEMHOOK_PUBLIC_URL"] = "https://memhook.example/base"
	b.env["MEMHOOK_ALLOWED_CALLBACK_NETWORKS"] = "127.0.0.0/8,::1/128"
	in := b.start("")
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(in.url, "http://"))
	for _, url := range []string{in.url + "/v1/endpoints/x/test", "http://localhost:" + port + "/", "https://memhook.example/base/v1/tasks", "https://MEMHOOK.example.:443/base", "http://[::ffff:127.0.0.1]:" + port + "/"} {
		if status := in.call(http.MethodPost, "/v1/endpoints", map[string]any{"url": url}, nil); status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d", url, status)
		}
	}
	ask := func(method, path, token string) int {
		req, err := http.NewRequestWithContext(t.Context(), method, in.url+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set(webhook.HeaderID, "evt_1")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	for _, c := range []struct {
		method, path, token string
		want                int
	}{
		{http.MethodPost, "/v1/tasks", testAPIKey, http.StatusBadRequest},
		{http.MethodGet, "/v1/tasks", testAPIKey, http.StatusBadRequest},
		{http.MethodPost, "/admin/v1/polling/pause", testAdminToken, http.StatusBadRequest},
		{http.MethodPost, "/v1/hints/0123456789abcdef0123456789abcdef", "", http.StatusNoContent},
	} {
		if got := ask(c.method, c.path, c.token); got != c.want {
			t.Errorf("%s %s with a webhook-id: %d, want %d", c.method, c.path, got, c.want)
		}
	}
}
