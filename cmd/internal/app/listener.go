package app

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// listen opens MEMHOOK_ADDR. It accepts at most MEMHOOK_MAX_CONNECTIONS connections at once, and serves TLS if there
// is a certificate. A certificate that cannot be loaded is a [SettingErrors].
func listen(cfg *Settings) (net.Listener, error) {
	l, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("MEMHOOK_ADDR: %w", err)
	}
	l = netutil.LimitListener(l, cfg.MaxConnections)
	if cfg.TLSCert == "" {
		return l, nil
	}
	c := &certificate{cert: cfg.TLSCert, key: cfg.TLSKey}
	if _, err := c.get(nil); err != nil {
		_ = l.Close()
		return nil, SettingErrors{fmt.Sprintf("MEMHOOK_TLS_CERT: cannot be loaded: %s; for example /etc/memhook/tls.crt", err)}
	}
	return tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"h2", "http/1.1"}}), nil
}

// certificateCheckInterval is how often the certificate file is checked for changes.
const certificateCheckInterval = time.Minute

// certificate is a certificate whose files may be renewed while the service runs.
type certificate struct {
	cert, key string

	mu      sync.Mutex
	loaded  *tls.Certificate
	changed time.Time // modification time of the loaded file
	checked time.Time
}

// get returns the current certificate. It is called for each TLS handshake.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded != nil && time.Since(c.checked) < certificateCheckInterval {
		return c.loaded, nil
	}
	c.checked = time.Now()
	info, err := os.Stat(c.cert)
	if err == nil && c.loaded != nil && info.ModTime().Equal(c.changed) {
		return c.loaded, nil
	}
	if err == nil {
		var pair tls.Certificate
		if pair, err = tls.LoadX509KeyPair(c.cert, c.key); err == nil {
			c.loaded, c.changed = &pair, info.ModTime()
		}
	}
	if c.loaded != nil { // the files may be half written: keep the old one until the next check
		return c.loaded, nil
	}
	return nil, err
}

// ServeUntil serves HTTP until ctx ends.
func ServeUntil(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return server.Close()
	}
}
