package webhook

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"code.dny.dev/ssrf"
)

// MaxURLLength is the most characters of a callback URL.
const MaxURLLength = 2048

// ErrForbidden says that a callback URL leads where webhooks must not go.
var ErrForbidden = errors.New("the address is not a public one")

// Policy says where webhooks may go.
type Policy struct {
	AllowHTTP bool           // http:// beside https://
	Networks  []netip.Prefix // special-purpose networks that may be reached all the same
	DenyPorts []uint16
}

// Guard keeps webhooks away from the inside: every address is checked when it is dialled, after it was
// resolved, so that a name that changes its address gains nothing.
type Guard struct {
	policy Policy
	dial   *ssrf.Guardian
}

// NewGuard makes a guard. Addresses in the special-purpose registries of IANA are refused unless the
// policy's networks hold them.
func NewGuard(p Policy) *Guard {
	var v4, v6 []netip.Prefix
	for _, network := range p.Networks {
		if network.Addr().Is4() {
			v4 = append(v4, network)
		} else {
			v6 = append(v6, network)
		}
	}
	return &Guard{policy: p, dial: ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))}
}

// Control is the net.Dialer.Control that refuses forbidden addresses.
func (g *Guard) Control(network, address string, conn syscall.RawConn) error {
	if err := g.allow(network, address, conn); err != nil {
		return fmt.Errorf("%w: %w", ErrForbidden, err)
	}
	return nil
}

func (g *Guard) allow(network, address string, conn syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if slices.Contains(g.policy.DenyPorts, target.Port()) {
		return fmt.Errorf("port %d is denied", target.Port())
	}
	// An IPv4 address in IPv6 clothes is judged as the IPv4 address that it is.
	if ip := target.Addr().WithZone(""); ip.Is4In6() {
		return g.dial.Safe("tcp4", netip.AddrPortFrom(ip.Unmap(), target.Port()).String(), conn)
	}
	return g.dial.Safe(network, address, conn)
}

// CheckURL tells whether a callback URL can be registered: absolute, http(s) as the policy says, without
// userinfo or fragment, of at most [MaxURLLength] characters, and not obviously bound for the inside,
// which is [ErrForbidden]. What a name resolves to is judged at every delivery.
func (g *Guard) CheckURL(raw string) error {
	if len(raw) > MaxURLLength {
		return fmt.Errorf("must have at most %d characters", MaxURLLength)
	}
	if strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\\' }) {
		return errors.New("must not contain spaces, control characters or backslashes")
	}
	u, err := url.Parse(raw)
	if err != nil {
		return errors.New("must be a URL such as https://example.com/hooks")
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http", u.Opaque != "", u.Hostname() == "":
		return errors.New("must be an absolute URL such as https://example.com/hooks")
	case u.Scheme == "http" && !g.policy.AllowHTTP:
		return errors.New("must be https: http is not permitted here (MEMHOOK_ALLOW_HTTP_CALLBACKS)")
	case u.User != nil:
		return errors.New("must not contain a user name or password")
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return errors.New("must not contain a fragment")
	}
	return g.checkHost(u)
}

func (g *Guard) checkHost(u *url.URL) error {
	port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	if u.Port() != "" {
		port = u.Port()
	} else if strings.HasSuffix(u.Host, ":") {
		return errors.New("must not end its host with a colon")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return errors.New("must have a port from 1 to 65535")
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return g.checkName(host)
	}
	network := "tcp6"
	if ip.Is4() {
		network = "tcp4"
	}
	return g.Control(network, net.JoinHostPort(ip.WithZone("").String(), port), nil)
}

// checkName refuses names that mean this machine and numbers that some resolvers read as addresses
// (decimal, octal and hexadecimal notation, fewer than four parts).
func (g *Guard) checkName(host string) error {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return g.Control("tcp4", "127.0.0.1:443", nil)
	}
	if host == "" || strings.Contains(host, "..") || len(host) > 253 {
		return errors.New("must have a host name")
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	if _, err := strconv.ParseUint(last, 0, 64); err == nil || strings.Trim(last, "0123456789") == "" {
		return fmt.Errorf("%w: write an IP address in its usual notation", ErrForbidden)
	}
	return nil
}
