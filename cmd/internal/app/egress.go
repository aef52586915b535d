package app

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/memhook/memhook/webhook"
)

// NewGuard returns the guard of callback URLs. listener is this instance's own address; nil where it does not listen.
func NewGuard(cfg *Settings, listener net.Addr) *webhook.Guard {
	policy := webhook.Policy{AllowHTTP: cfg.AllowHTTP, Networks: cfg.AllowedNetworks, DenyPorts: cfg.DeniedPorts, Self: cfg.self}
	if tcp, ok := listener.(*net.TCPAddr); ok {
		policy.Listener = tcp.AddrPort()
	}
	return webhook.NewGuard(policy)
}

// NewSender returns the sender of webhooks, whose attempts take at most timeout.
func NewSender(cfg *Settings, guard *webhook.Guard, timeout time.Duration) *webhook.Sender {
	return webhook.NewSender(webhook.SenderConfig{
		Guard: guard, Timeout: timeout, UserAgent: "memhook/" + Version(),
		ConnsPerHost: receiverConns, Proxy: cfg.CallbackProxy, Roots: cfg.CallbackCA,
	})
}

// proxyURL reads the URL of an HTTP proxy, which can hold a password: no error repeats it.
func (s *Settings) proxyURL(v string) error {
	u, err := url.Parse(v)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return errors.New("must be the http or https URL of a proxy, without a path")
	}
	s.CallbackProxy = u
	return nil
}

// callbackCA reads a file of certificates and adds them to the system's.
func (s *Settings) callbackCA(v string) error {
	pem, err := os.ReadFile(v) //nolint:gosec // the operator names the file
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
