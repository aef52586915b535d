package badpeers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"sync"
	"time"
)

// certificateKind is what is wrong with a peer's certificate.
type certificateKind int

const (
	goodCertificate certificateKind = iota
	expiredCertificate
	wrongNameCertificate
	strangerCertificate // signed by an authority that nobody trusts
)

// issuer signs the peers' certificates.
type issuer struct {
	pool *x509.CertPool
	root *x509.Certificate
	key  *ecdsa.PrivateKey

	mu     sync.Mutex
	issued map[certificateKind]tls.Certificate
}

var authority, stranger = newIssuer(), newIssuer()

func newIssuer() *issuer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "badpeers"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return &issuer{pool: pool, root: root, key: key, issued: make(map[certificateKind]tls.Certificate)}
}

func (i *issuer) certificate(kind certificateKind) tls.Certificate {
	if kind == strangerCertificate && i != stranger {
		return stranger.certificate(kind)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if c, ok := i.issued[kind]; ok {
		return c
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(kind) + 2), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	switch kind {
	case expiredCertificate:
		template.NotAfter = time.Now().Add(-time.Minute)
	case wrongNameCertificate:
		template.DNSNames, template.IPAddresses = []string{"elsewhere.example"}, nil
	}
	der, err := x509.CreateCertificate(rand.Reader, template, i.root, i.key.Public(), i.key)
	if err != nil {
		panic(err)
	}
	i.issued[kind] = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: i.key}
	return i.issued[kind]
}
