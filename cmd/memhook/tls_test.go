package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
)

// certify writes a certificate for 127.0.0.1 and gives a client that trusts it alone.
func certify(t *testing.T) (cert, key string, client *http.Client) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
	if err := os.WriteFile(cert, certPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return cert, key, &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func TestTLSAndTrustedProxies(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.env["MEMHOOK_LOG_LEVEL"] = "debug"
	signIn := func(client *http.Client, base string, header ...string) *http.Cookie {
		t.Helper()
		req, _ := http.NewRequest(http.MethodPost, base+"/admin/sign-in", strings.NewReader(url.Values{"token": {testAdminToken}}.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if len(resp.Cookies()) != 1 {
			t.Fatalf("sign in: %d", resp.StatusCode)
		}
		return resp.Cookies()[0]
	}
	plain := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

	in := b.start("")
	if c := signIn(plain, in.url, "X-Forwarded-Proto", "https", "X-Forwarded-For", "192.0.2.77"); c.Secure || strings.Contains(in.log.String(), "192.0.2.77") {
		t.Error("what nobody trusted was believed")
	}
	b.env["MEMHOOK_TRUSTED_PROXIES"] = "127.0.0.0/8"
	in = b.start("")
	if c := signIn(plain, in.url, "X-Forwarded-Proto", "https", "X-Forwarded-For", "192.0.2.77"); !c.Secure {
		t.Error("a trusted proxy was not believed")
	}
	until(t, 20*time.Second, "the log has the client", func() bool { return strings.Contains(in.log.String(), `"client":"192.0.2.77"`) })

	cert, key, client := certify(t)
	b.env["MEMHOOK_TLS_CERT"], b.env["MEMHOOK_TLS_KEY"] = cert, key
	addr := freeAddr(t)
	serve := exec.Command(binary, "serve")
	serve.Env = []string{"MEMHOOK_ADDR=" + addr}
	for k, v := range b.env {
		serve.Env = append(serve.Env, k+"="+v)
	}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = serve.Process.Kill(); _ = serve.Wait() })
	until(t, 20*time.Second, "it answers over TLS", func() bool {
		resp, err := client.Get("https://" + addr + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil && resp.StatusCode == http.StatusOK
	})
	resp, err := client.Get("https://" + addr + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.TLS == nil || resp.ProtoMajor != 2 {
		t.Errorf("over TLS: %d, HTTP/%d", resp.StatusCode, resp.ProtoMajor)
	}
	if c := signIn(client, "https://"+addr); !c.Secure {
		t.Error("the cookie is not Secure over TLS")
	}
	health := exec.Command(binary, "health")
	health.Env = serve.Env
	if out, err := health.CombinedOutput(); err != nil {
		t.Errorf("health over TLS: %v: %s", err, out)
	}
}
