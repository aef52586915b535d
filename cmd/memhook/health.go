package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/memhook/memhook/cmd/internal/app"
)

type healthCommand struct{}

// Run returns an error unless the memhook at MEMHOOK_ADDR on this machine is ready. Containers without curl
// use it as their health check.
func (healthCommand) Run(ctx context.Context) error {
	cfg, err := app.ReadSettings(os.Getenv)
	if err != nil {
		return err
	}
	scheme := "http"
	if cfg.TLSCert != "" {
		scheme = "https"
	}
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // loopback; the certificate has another name
	}}
	url := scheme + "://" + reachable(cfg.Addr) + "/readyz"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", resp.Status)
	}
	return nil
}

// reachable returns the address at which what listens on addr is reached from this machine: 127.0.0.1 stands for all interfaces.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip, literal := netip.ParseAddr(host); err == nil && (host == "" || literal == nil && ip.IsUnspecified()) {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}
