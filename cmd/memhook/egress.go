package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/memhook/memhook/webhook"
)

// newGuard makes the guard of callback URLs. listener is this instance's own address; nil where it does not listen.
func newGuard(cfg *settings, listener net.Addr) (*webhook.Guard, error) {
	policy := webhook.Policy{AllowHTTP: cfg.AllowHTTP, Networks: cfg.AllowedNetworks, DenyPorts: cfg.DeniedPorts}
	if tcp, ok := listener.(*net.TCPAddr); ok {
		policy.Listener = tcp.AddrPort()
	}
	if cfg.PublicURL != "" {
		self, err := webhook.ParseTarget(cfg.PublicURL)
		if err != nil {
			return nil, fmt.Errorf("MEMHOOK_PUBLIC_URL %w", err)
		}
		policy.Self = &self
	}
	return webhook.NewGuard(policy), nil
}

func newSender(cfg *settings, guard *webhook.Guard, timeout time.Duration) *webhook.Sender {
	return webhook.NewSender(webhook.SenderConfig{
		Guard: guard, Timeout: timeout, UserAgent: "memhook/" + version(), ConnsPerHost: 500, Proxy: cfg.CallbackProxy, Roots: cfg.CallbackCA,
	})
}

// proxyURL reads the URL of an HTTP proxy, which can hold a password: no error repeats it.
func proxyURL(s *settings, v string) error {
	u, err := url.Parse(v)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return errors.New("must be the http or https URL of a proxy, without a path")
	}
	s.CallbackProxy = u
	return nil
}

// callbackCA reads a file of certificates and adds them to the system's.
func callbackCA(s *settings, v string) error {
	pem, err := os.ReadFile(v) //nolint:gosec // the operator names it
	if err != nil {
		return fmt.Errorf("cannot be read: %w", errors.Unwrap(err))
	}
	if s.CallbackCA, err = x509.SystemCertPool(); err != nil {
		s.CallbackCA = x509.NewCertPool()
	}
	if !s.CallbackCA.AppendCertsFromPEM(pem) {
		return errors.New("holds no certificate in PEM")
	}
	return nil
}

// egress tries the way that webhooks take, the guard and the proxy included.
func (d *doctor) egress(ctx context.Context, url string) {
	guard, err := newGuard(d.cfg, nil)
	if err == nil {
		_, err = guard.Target(url)
	}
	if err != nil {
		d.failf("egress", "use a public https URL, or permit the network with MEMHOOK_ALLOWED_CALLBACK_NETWORKS (and http with MEMHOOK_ALLOW_HTTP_CALLBACKS)", "%s %v", url, err)
		return
	}
	sender := newSender(d.cfg, guard, doctorTimeout)
	defer sender.Close()
	through := "no proxy is used"
	if d.cfg.CallbackProxy != nil {
		through = "the proxy is " + d.cfg.CallbackProxy.Redacted()
	}
	if resp := sender.Probe(ctx, url); resp.Err != nil {
		d.failf("egress", "check DNS, the firewall and NetworkPolicy from this machine; "+through, "%v (%v)", resp.Err, resp.Details())
	} else {
		d.okf("egress", "%s answers %d; %s", url, resp.Status, through)
	}
}

// adoptStandardLog sends what libraries write to Go's standard log to ours. What they quote can be a peer's bytes, and is
// left out.
func adoptStandardLog(to *slog.Logger) {
	log.SetFlags(0)
	log.SetOutput(standardLog{to})
}

type standardLog struct{ to *slog.Logger }

var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// Write logs one line.
func (l standardLog) Write(line []byte) (int, error) {
	l.to.Warn("a library says", "line", quoted.ReplaceAllString(strings.TrimSpace(string(line)), `"…"`))
	return len(line), nil
}
