package outbound_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/memhook/memhook/internal/outbound"
)

func get(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("User-Agent", "memhook/test")
	return req
}

// recorder keeps the heads of the requests that it answers with 200.
type recorder struct {
	mu    sync.Mutex
	heads []string
}

func (r *recorder) serve(conn net.Conn) {
	in := bufio.NewReader(conn)
	var head strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		head.WriteString(line)
		if line != "\r\n" {
			continue
		}
		r.mu.Lock()
		r.heads = append(r.heads, head.String())
		r.mu.Unlock()
		head.Reset()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	}
}

func (r *recorder) all() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.heads, "")
}

// A GET has no body on the wire, directly and through a proxy.
func TestGetHasNoBody(t *testing.T) {
	t.Parallel()
	var direct, proxied recorder
	target := listen(t, direct.serve)
	if _, err := newClient(t, nil).Do(t.Context(), get(t, target+"/a?b=c")); err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(target, "http://")
	if want := "GET /a?b=c HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: memhook/test\r\n\r\n"; direct.all() != want {
		t.Errorf("sent\n%s\nwant\n%s", direct.all(), want)
	}
	proxy := through(t, strings.Replace(listen(t, proxied.serve), "http://", "http://me:pass@", 1))
	if _, err := newClient(t, proxy).Do(t.Context(), get(t, "http://target.example/a?b=c")); err != nil {
		t.Fatal(err)
	}
	want := "GET http://target.example/a?b=c HTTP/1.1\r\nHost: target.example\r\nUser-Agent: memhook/test\r\nProxy-Authorization: Basic bWU6cGFzcw==\r\n\r\n"
	if proxied.all() != want {
		t.Errorf("sent to the proxy\n%s\nwant\n%s", proxied.all(), want)
	}
}

// A server that speaks HTTP/2 is spoken to in HTTP/1.1.
func TestHTTP1AloneIsSpoken(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); r.Proto != "HTTP/1.1" || r.ContentLength != 0 || len(r.TransferEncoding) > 0 || len(body) > 0 || err != nil {
			t.Errorf("%s, length %d, %v, body %q", r.Proto, r.ContentLength, r.TransferEncoding, body)
		}
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	client := newClient(t, func(c *outbound.Config) {
		c.Roots = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	})
	for range 3 {
		if resp, err := client.Do(t.Context(), get(t, server.URL)); err != nil || resp.Status != http.StatusOK {
			t.Errorf("%+v %v", resp, cause(nil, err))
		}
	}
}

func through(t *testing.T, rawURL string) func(*outbound.Config) {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *outbound.Config) { c.Proxy, c.Timeout = http.ProxyURL(u), time.Second }
}

// What the proxy gets wrong is told from what the target gets wrong.
func TestTheProxysFailuresAreItsOwn(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(nil)
	closed.Close()
	says := func(text string) string {
		return listen(t, func(c net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, text)
			_ = c.Close()
		})
	}
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(untrusted.Close)
	cases := map[string]struct {
		proxy, target string
		kind          outbound.Kind
	}{
		"nobody there":                    {closed.URL, "https://target.example", outbound.Proxy},
		"nobody there, http":              {closed.URL, "http://target.example", outbound.Proxy},
		"no such proxy":                   {"http://proxy.invalid", "http://target.example", outbound.Proxy},
		"407":                             {says("HTTP/1.1 407 No\r\n\r\n"), "https://target.example", outbound.Proxy},
		"407, http":                       {says("HTTP/1.1 407 No\r\n\r\n"), "http://target.example", outbound.Proxy},
		"502":                             {says("HTTP/1.1 502 No\r\n\r\n"), "https://target.example", outbound.Proxy},
		"101":                             {says("HTTP/1.1 101 No\r\n\r\n"), "https://target.example", outbound.Proxy},
		"nonsense":                        {says("hello\r\n\r\n"), "https://target.example", outbound.Proxy},
		"closes":                          {says(""), "https://target.example", outbound.Proxy},
		"closes, http":                    {says(""), "http://target.example", outbound.Proxy},
		"speaks first":                    {says("HTTP/1.1 200 OK\r\n\r\nhello"), "https://target.example", outbound.Proxy},
		"endless":                         {says("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 64<<10)), "https://target.example", outbound.Proxy},
		"says nothing":                    {listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), "https://target.example", outbound.Proxy},
		"TLS that nobody trusts":          {untrusted.URL, "http://target.example", outbound.Proxy},
		"a scheme without a dialer":       {"gopher://127.0.0.1:1", "http://target.example", outbound.Proxy},
		"the target closes in its tunnel": {says("HTTP/1.1 200 OK\r\n\r\n"), "https://target.example", outbound.TLSClosed},
		"the target, http":                {says("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"), "http://target.example", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, err := newClient(t, through(t, c.proxy)).Do(t.Context(), get(t, c.target))
			kind := outbound.Kind("")
			if e, ok := err.(*outbound.Error); ok { //nolint:errorlint // Do's own
				kind = e.Kind
			}
			if kind != c.kind || time.Since(start) > 2*time.Second {
				t.Errorf("%q (%v) after %s, want %q", kind, cause(nil, err), time.Since(start), c.kind)
			}
		})
	}
}

// Tunnels, in HTTP and in SOCKS, carry TLS to the target, whose connection is used again.
func TestTunnels(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) }))
	t.Cleanup(server.Close)
	join := func(a net.Conn, in io.Reader) {
		b, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(a, b); _ = a.Close() }()
		_, _ = io.Copy(b, in)
		_ = b.Close()
	}
	connect := listen(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		req, err := http.ReadRequest(in)
		if err != nil || req.Method != http.MethodConnect || req.Host != "example.com:443" || req.Header.Get("Proxy-Authorization") != "Basic bWU6cGFzcw==" {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_ = c.Close()
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
		join(c, in)
	})
	socks := listen(t, func(c net.Conn) {
		hello := make([]byte, 2)
		_, _ = io.ReadFull(c, hello)
		_, _ = io.ReadFull(c, make([]byte, hello[1]))
		_, _ = c.Write([]byte{5, 0})
		ask := make([]byte, 5)
		_, _ = io.ReadFull(c, ask)
		name := make([]byte, int(ask[4])+2)
		_, _ = io.ReadFull(c, name)
		if string(name[:len(name)-2]) != "example.com" {
			_ = c.Close()
			return
		}
		_, _ = c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		join(c, c)
	})
	for _, proxy := range []string{strings.Replace(connect, "http://", "http://me:pass@", 1), strings.Replace(socks, "http://", "socks5://", 1)} {
		client := newClient(t, func(c *outbound.Config) {
			through(t, proxy)(c)
			c.Roots = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs // its certificate is for example.com
		})
		for range 3 {
			if resp, err := client.Do(t.Context(), get(t, "https://example.com/")); err != nil || string(resp.Body) != "example.com" {
				t.Errorf("%s: %+v %v", proxy, resp, cause(nil, err))
			}
		}
		if n := client.Idle("https://example.com"); n != 1 {
			t.Errorf("%s: %d idle connections", proxy, n)
		}
	}
}
