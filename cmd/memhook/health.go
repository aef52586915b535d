package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

type healthCommand struct{}

// Run asks the memhook at MEMHOOK_ADDR of this machine whether it is ready, for containers that have no curl.
func (healthCommand) Run(ctx context.Context) error {
	addr, scheme := os.Getenv("MEMHOOK_ADDR"), "http"
	if addr == "" {
		addr = ":8080"
	}
	if os.Getenv("MEMHOOK_TLS_CERT") != "" {
		scheme = "https"
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("MEMHOOK_ADDR: %w", err)
	}
	if host == "" || host == "0.0.0.0" || host == "::" {
		host = "127.0.0.1"
	}
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // ourselves, whose certificate has another name
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(host, port)+"/readyz", nil) //nolint:gosec // the operator's own setting
	if err != nil {
		return err
	}
	resp, err := client.Do(req) //nolint:gosec // as above
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", resp.Status)
	}
	return nil
}
