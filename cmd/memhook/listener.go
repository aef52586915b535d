package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// listen opens the API's address: at most so many connections at once, with TLS where there is a certificate.
func listen(cfg *settings) (net.Listener, error) {
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
		return nil, fmt.Errorf("MEMHOOK_TLS_CERT: %w", err)
	}
	return tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"h2", "http/1.1"}}), nil
}

// certificateFresh is how long a certificate is used before its file is looked at again.
const certificateFresh = time.Minute

// certificate is a certificate in files that somebody renews.
type certificate struct {
	cert, key string

	mu      sync.Mutex
	loaded  *tls.Certificate
	changed time.Time // of the file that was loaded
	looked  time.Time
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded != nil && time.Since(c.looked) < certificateFresh {
		return c.loaded, nil
	}
	c.looked = time.Now()
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
	if c.loaded != nil { // half-written files: the old one goes on, and the next look finds the new one
		return c.loaded, nil
	}
	return nil, err
}
